"""English to French on the embedded corpus with Google's system in small: the model of `gnmt_small`, smaller, in minutes on a laptop.

Command: jaxnmt train phrases/gnmt_small
Time: 5 minutes of training on one core of two, other work beside it
Score: BLEU 99.9 on the test split (beam 5, one run; the corpus of version 0.1.0)
Learning rates tried, greedy BLEU on validation after 300 steps (docs/ladder.md):
  0.0015 41.6, 0.003 80.7, 0.006 94.5, 0.012 96.7, 0.024 94.8
"""

from jaxnmt.config import Experiment, replace
from jaxnmt.config.files import load_config


def config() -> Experiment:
    model = replace(load_config("gnmt_small").model, emb_dim=128, hidden_dim=128, dropout=0.1)
    return replace(load_config("phrases/gru_bahdanau"), model=model)
