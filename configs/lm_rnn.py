"""A language model: a plain RNN (Mikolov et al. 2010) that predicts each word from those before it.

Command: jaxnmt train lm_rnn --data.train mono.txt
Time, score: depend on the files
"""

from jaxnmt.config import Batching, Experiment, Recurrent, replace
from jaxnmt.config.files import load_config


def config() -> Experiment:
    model = Recurrent(cell="rnn", context="fixed", input_feeding=False, tie_embeddings="all", emb_dim=256, hidden_dim=256)
    batching = Batching(layout="buckets", tokens=4096, max_shapes=4)
    return replace(load_config("lm_small"), model=model, batching=batching)
