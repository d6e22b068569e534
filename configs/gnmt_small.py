"""Google's system in small (Wu et al. 2016) for Multi30k English to German, text already lowercased, tokenised and split with `@@ `.

A bidirectional LSTM layer below others with residual connections; every layer of the decoder reads the context that the bottom one's
last state has asked for.

Files: docs/benchmarks.md has the commands that make them.
Command: jaxnmt train gnmt_small --data.train train.en train.de --data.validation val.en val.de --data.test test2016.en test2016.de
         jaxnmt evaluate runs/gnmt_small
Time, score: not measured at this size (docs/ladder.md has smaller ones)
Learning rates tried, perplexity and greedy BLEU on validation after 120 steps (docs/ladder.md):
  0.0005 167.4 4.2, 0.001 99.3 4.7, 0.002 77.8 6.1, 0.004 41.4 12.2, 0.008 37.9 10.6
"""

from jaxnmt.config import Experiment, Recurrent, replace
from jaxnmt.config.files import load_config


def config() -> Experiment:
    model = Recurrent(
        cell="lstm",
        context="bahdanau",
        bidirectional="first",
        residual=True,
        num_encoder_layers=3,
        num_decoder_layers=3,
        emb_dim=256,
        hidden_dim=256,
        tie_embeddings="all",
        dropout=0.3,
    )
    return replace(load_config("gru_bahdanau"), model=model)
