"""`summary_transformer` with the LSTM of See, Liu and Manning 2017, section 2.1: bidirectional encoder, additive attention, input feeding.

Command: jaxnmt train summary_lstm --data.train train.tsv --data.validation val.tsv --data.test test.tsv
Time, score: depend on the file
"""

from jaxnmt.config import Experiment, Recurrent, replace
from jaxnmt.config.files import load_config


def config() -> Experiment:
    model = Recurrent(cell="lstm", context="luong", score="concat", emb_dim=256, hidden_dim=256, tie_embeddings="all")
    return replace(load_config("summary_transformer"), model=model, **{"schedule.learning_rate": 2e-3})
