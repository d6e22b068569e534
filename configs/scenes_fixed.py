"""Captions of the embedded scenes, by an LSTM that knows the picture as one vector, its first state (Vinyals et al. 2015).

Command: jaxnmt train scenes_fixed
Time, score: docs/captions.md
"""

from jaxnmt.config import Experiment, Recurrent, Schedule, replace
from jaxnmt.config.files import load_config


def config() -> Experiment:
    model = Recurrent(context="fixed", input_feeding=False, emb_dim=64, hidden_dim=128, dropout=0.0)
    return replace(load_config("scenes"), model=model, schedule=Schedule(name="cosine", learning_rate=4e-3, warmup_steps=200))
