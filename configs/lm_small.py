"""A language model: a Transformer decoder that predicts each word from those before it.

Command: jaxnmt train lm_small --data.train mono.txt
Time, score: depend on the files
"""

from jaxnmt.config import Experiment, Language, replace
from jaxnmt.config.files import load_config


def config() -> Experiment:
    return replace(load_config("mlm_small"), task=Language(), **{"decoding.max_length_extra": 60})
