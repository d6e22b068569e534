"""Captions of the embedded scenes, by an LSTM that looks at one part of the picture for each word (soft attention, Xu et al. 2015).

Command: jaxnmt train scenes_attention
Time, score: 99.1 % of the test's captions exact (docs/captions.md)
"""

from jaxnmt.config import Experiment, Recurrent, Schedule, replace
from jaxnmt.config.files import load_config


def config() -> Experiment:
    model = Recurrent(context="bahdanau", emb_dim=64, hidden_dim=128, dropout=0.0)
    schedule = Schedule(name="cosine", learning_rate=4e-3, warmup_steps=200)
    return replace(load_config("scenes"), model=model, schedule=schedule)
