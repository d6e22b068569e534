"""English to French on the embedded corpus with a bag of words, rung 0: the model of `bag`, smaller, in minutes on a laptop.

Command: jaxnmt train phrases/bag
Time, score: not yet measured
"""

from jaxnmt.config import Experiment, replace
from jaxnmt.config_files import load


def config() -> Experiment:
    model = replace(load("bag").model, emb_dim=128, hidden_dim=256, dropout=0.1)
    return replace(load("phrases/gru_bahdanau"), model=model)
