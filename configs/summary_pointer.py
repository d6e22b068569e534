"""`summary_lstm` with a copy switch: the pointer-generator of See, Liu and Manning 2017, sections 2.2 and 2.3.

Command: jaxnmt train summary_pointer --data.train train.tsv --data.validation val.tsv --data.test test.tsv
         --model.coverage 1 adds coverage, which lets it repeat itself less. In the paper, it is trained with coverage at the end alone.
Time, score: depend on the file
"""

from jaxnmt.config import Experiment, replace
from jaxnmt.config.files import load_config


def config() -> Experiment:
    return replace(load_config("summary_lstm"), **{"model.copy": True})
