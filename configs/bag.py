"""Rung 0, for Multi30k English to German, text already lowercased, tokenised and split with `@@ `: no order and no memory.

A feed-forward layer on the mean of the source's words is all that the decoder, a plain recurrent network, knows of it.

Files: docs/benchmarks.md has the commands that make them.
Command: jaxnmt train bag --data.train train.en train.de --data.validation val.en val.de --data.test test2016.en test2016.de
         jaxnmt evaluate runs/bag
Time, score: not yet measured
"""

from jaxnmt.config import Experiment, replace
from jaxnmt.config_files import load


def config() -> Experiment:
    rnn = load("rnn_fixed")
    return replace(rnn, model=replace(rnn.model, encoder="bag"))
