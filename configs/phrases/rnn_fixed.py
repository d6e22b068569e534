"""English to French on the embedded corpus with the plain recurrent network: the model of `rnn_fixed`, smaller, in minutes on a laptop.

Command: jaxnmt train phrases/rnn_fixed
Time, score: not yet measured
"""

from jaxnmt.config import Experiment, replace
from jaxnmt.config_files import load


def config() -> Experiment:
    model = replace(load("rnn_fixed").model, emb_dim=128, hidden_dim=256, dropout=0.1)
    return replace(load("phrases/gru_bahdanau"), model=model, **{"schedule.learning_rate": 3e-3})
