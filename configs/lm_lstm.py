"""A language model: an LSTM (Sundermeyer et al. 2012) that predicts each word from those before it.

Command: jaxnmt train lm_lstm --data.train mono.txt
Time, score: depend on the files
"""

from jaxnmt.config import Batching, Experiment, Recurrent, replace
from jaxnmt.config.files import load_config


def config() -> Experiment:
    model = Recurrent(cell="lstm", context="fixed", input_feeding=False, tie_embeddings="all", emb_dim=256, hidden_dim=256)
    batching = Batching(layout="buckets", tokens=4096, max_shapes=4)
    return replace(load_config("lm_small"), model=model, batching=batching, **{"schedule.learning_rate": 3e-3})
