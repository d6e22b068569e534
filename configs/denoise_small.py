"""An encoder–decoder that learns to restore the hidden spans of texts. Translation can start from it.

Command: jaxnmt train denoise_small --data.train mono.txt
Time, score: depend on the files
"""

from jaxnmt.config import Denoising, Experiment, replace
from jaxnmt.config.files import load_config


def config() -> Experiment:
    return replace(load_config("mlm_small"), task=Denoising())
