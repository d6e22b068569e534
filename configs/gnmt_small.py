"""Google's system in small (Wu et al. 2016) for Multi30k English to German, text already lowercased, tokenised and split with `@@ `.

A bidirectional LSTM layer below others with residual connections; every layer of the decoder reads the context that the bottom one's
last state has asked for.

Files: docs/benchmarks.md has the commands that make them.
Command: jaxnmt train gnmt_small --data.train train.en train.de --data.validation val.en val.de --data.test test2016.en test2016.de
         jaxnmt evaluate runs/gnmt_small
Time, score: not yet measured
"""

from jaxnmt.config import Experiment, Recurrent, replace
from jaxnmt.config_files import load


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
    return replace(load("gru_bahdanau"), model=model)
