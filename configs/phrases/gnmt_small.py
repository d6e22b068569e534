"""English to French on the embedded corpus with Google's system in small: the model of `gnmt_small`, smaller, in minutes on a laptop.

Command: jaxnmt train phrases/gnmt_small
Time, score: not yet measured
"""

from jaxnmt.config import Experiment, replace
from jaxnmt.config_files import load


def config() -> Experiment:
    model = replace(load("gnmt_small").model, emb_dim=128, hidden_dim=128, dropout=0.1)
    return replace(load("phrases/gru_bahdanau"), model=model)
