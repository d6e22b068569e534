"""Luong, Pham, Manning 2015 in small for Multi30k English to German, text already lowercased, tokenised and split with `@@ `.

A stacked LSTM with global attention (score general) and input feeding.

Files: docs/benchmarks.md has the commands that make them.
Command: jaxnmt train lstm_luong --data.train train.en train.de --data.validation val.en val.de --data.test test2016.en test2016.de
         jaxnmt evaluate runs/lstm_luong
Time: 59 minutes of training on one core of two, other work beside it
Score: BLEU-4 37.06 on test2016 (beam 5, one run); greedy on validation 36.31
Learning rates tried, perplexity and greedy BLEU on validation after 120 steps (docs/ladder.md):
  0.0005 225.4 2.8, 0.001 139.1 4.3, 0.002 80.6 5.4, 0.004 70.5 4.3, 0.008 61.7 7.0
"""

from jaxnmt.config import Experiment, Recurrent, replace
from jaxnmt.config.files import load_config


def config() -> Experiment:
    model = Recurrent(
        cell="lstm",
        context="luong",
        num_encoder_layers=2,
        num_decoder_layers=2,
        emb_dim=384,
        hidden_dim=384,
        tie_embeddings="all",
        dropout=0.4,
    )
    return replace(load_config("gru_bahdanau"), model=model, **{"schedule.learning_rate": 8e-3, "training.steps": 1500})
