"""The plainest encoder-decoder for Multi30k English to German, text already lowercased, tokenised and split with `@@ `.

Elman's recurrent network (1990) on both sides of one fixed vector, which every step of the decoder reads (Cho et al. 2014).

Files: docs/benchmarks.md has the commands that make them.
Command: jaxnmt train rnn_fixed --data.train train.en train.de --data.validation val.en val.de --data.test test2016.en test2016.de
         jaxnmt evaluate runs/rnn_fixed
Time, score: not measured at this size (docs/ladder.md has smaller ones)
Learning rates tried, perplexity and greedy BLEU on validation after 120 steps (docs/ladder.md):
  0.0005 168.2 1.9, 0.001 111.4 1.1, 0.002 85.6 1.4, 0.004 77.0 1.7, 0.008 84.4 0.9
"""

from jaxnmt.config import Experiment, Recurrent, replace
from jaxnmt.config.files import load_config


def config() -> Experiment:
    model = Recurrent(cell="rnn", context="fixed", bidirectional="none", emb_dim=256, hidden_dim=512, tie_embeddings="all", dropout=0.2)
    return replace(load_config("gru_bahdanau"), model=model)
