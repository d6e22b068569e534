"""English to French on the embedded corpus with Luong's LSTM: the model of `lstm_luong`, smaller, in minutes on a laptop.

Command: jaxnmt train phrases/lstm_luong
Time: 2 minutes of training on one core of two, other work beside it
Score: BLEU 99.9 on the test split (beam 5, one run; the corpus of version 0.1.0)
Learning rates tried, greedy BLEU on validation after 300 steps (docs/ladder.md):
  0.0015 23.0, 0.003 76.0, 0.006 95.5, 0.012 95.7, 0.024 87.6
"""

from jaxnmt.config import Experiment, replace
from jaxnmt.config.files import load_config


def config() -> Experiment:
    model = replace(load_config("lstm_luong").model, emb_dim=128, hidden_dim=128, dropout=0.1)
    return replace(load_config("phrases/gru_bahdanau"), model=model, **{"schedule.learning_rate": 6e-3})
