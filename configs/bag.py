"""Rung 0, for Multi30k English to German, text already lowercased, tokenised and split with `@@ `: no order and no memory.

A feed-forward layer on the mean of the source's words is all that the decoder, a plain recurrent network, knows of it.

Files: docs/benchmarks.md has the commands that make them.
Command: jaxnmt train bag --data.train train.en train.de --data.validation val.en val.de --data.test test2016.en test2016.de
         jaxnmt evaluate runs/bag
Time, score: not measured at this size (docs/ladder.md has smaller ones)
Learning rates tried, perplexity and greedy BLEU on validation after 120 steps (docs/ladder.md):
  0.0005 141.6 4.0, 0.001 84.7 4.4, 0.002 55.5 5.3, 0.004 46.5 7.4, 0.008 38.5 8.7
"""

from jaxnmt.config import Experiment, replace
from jaxnmt.config.files import load_config


def config() -> Experiment:
    rnn = load_config("rnn_fixed")
    return replace(rnn, model=replace(rnn.model, encoder="bag"), **{"schedule.learning_rate": 8e-3})
