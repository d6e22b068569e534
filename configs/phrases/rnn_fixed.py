"""English to French on the embedded corpus with the plain recurrent network: the model of `rnn_fixed`, smaller, in minutes on a laptop.

Command: jaxnmt train phrases/rnn_fixed
Time: 2 minutes of training on one core of two, other work beside it
Score: BLEU 10.1 on the test split (beam 5, one run; the corpus of version 0.1.0)
Learning rates tried, greedy BLEU on validation after 300 steps (docs/ladder.md):
  0.0015 7.1, 0.003 9.1, 0.006 8.4, 0.012 6.5, 0.024 3.6
"""

from jaxnmt.config import Experiment, replace
from jaxnmt.config.files import load_config


def config() -> Experiment:
    model = replace(load_config("rnn_fixed").model, emb_dim=128, hidden_dim=256, dropout=0.1)
    return replace(load_config("phrases/gru_bahdanau"), model=model, **{"schedule.learning_rate": 3e-3})
