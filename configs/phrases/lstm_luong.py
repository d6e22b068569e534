"""English to French on the embedded corpus with Luong's LSTM: the model of `lstm_luong`, smaller, in minutes on a laptop.

Command: jaxnmt train phrases/lstm_luong
Time, score: not yet measured
"""

from jaxnmt.config import Experiment, replace
from jaxnmt.config_files import load


def config() -> Experiment:
    model = replace(load("lstm_luong").model, emb_dim=128, hidden_dim=128, dropout=0.1)
    return replace(load("phrases/gru_bahdanau"), model=model, **{"schedule.learning_rate": 6e-3})
