"""English to French on the embedded corpus with a bag of words, rung 0: the model of `bag`, smaller, in minutes on a laptop.

Command: jaxnmt train phrases/bag
Time: 1 minute of training on one core of two, other work beside it
Score: BLEU 33.1 on the test split (beam 5, one run; the corpus of version 0.1.0)
Learning rates tried, greedy BLEU on validation after 300 steps (docs/ladder.md):
  0.0015 16.3, 0.003 23.8, 0.006 29.0, 0.012 31.2, 0.024 25.4
"""

from jaxnmt.config import Experiment, replace
from jaxnmt.config.files import load_config


def config() -> Experiment:
    model = replace(load_config("bag").model, emb_dim=128, hidden_dim=256, dropout=0.1)
    return replace(load_config("phrases/gru_bahdanau"), model=model)
