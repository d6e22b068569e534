"""English to French on the embedded corpus with the LSTM through one vector: the model of `lstm_fixed`, smaller, in minutes on a laptop.

Command: jaxnmt train phrases/lstm_fixed
Time: 3 minutes of training on one core of two, other work beside it
Score: BLEU 27.3 on the test split (beam 5, one run; the corpus of version 0.1.0)
Learning rates tried, greedy BLEU on validation after 300 steps (docs/ladder.md):
  0.0015 11.1, 0.003 15.2, 0.006 16.2, 0.012 18.7, 0.024 17.5
"""

from jaxnmt.config import Experiment, replace
from jaxnmt.config.files import load_config


def config() -> Experiment:
    model = replace(load_config("lstm_fixed").model, emb_dim=128, hidden_dim=128, dropout=0.1)
    return replace(load_config("phrases/gru_bahdanau"), model=model)
