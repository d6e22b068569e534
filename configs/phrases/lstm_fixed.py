"""English to French on the embedded corpus with the LSTM through one vector: the model of `lstm_fixed`, smaller, in minutes on a laptop.

Command: jaxnmt train phrases/lstm_fixed
Time, score: not yet measured
"""

from jaxnmt.config import Experiment, replace
from jaxnmt.config_files import load


def config() -> Experiment:
    model = replace(load("lstm_fixed").model, emb_dim=128, hidden_dim=128, dropout=0.1)
    return replace(load("phrases/gru_bahdanau"), model=model)
