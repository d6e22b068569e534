"""Sequence to sequence in small (Sutskever, Vinyals, Le 2014) for Multi30k English to German, text already lowercased, tokenised and split
with `@@ `.

A stacked LSTM that reads its source backwards, and another that starts from the first one's last states and sees nothing else.

Files: docs/benchmarks.md has the commands that make them.
Command: jaxnmt train lstm_fixed --data.train train.en train.de --data.validation val.en val.de --data.test test2016.en test2016.de
         jaxnmt evaluate runs/lstm_fixed
Time: 52 minutes of training on one core of two, other work beside it
Score: BLEU-4 18.24 on test2016 (beam 5, one run); greedy on validation 17.07
Learning rates tried, perplexity and greedy BLEU on validation after 120 steps (docs/ladder.md):
  0.0005 221.9 2.7, 0.001 192.6 3.0, 0.002 135.1 3.7, 0.004 95.9 4.0, 0.008 75.9 3.7
"""

from jaxnmt.config import Experiment, Recurrent, replace
from jaxnmt.config.files import load_config


def config() -> Experiment:
    model = Recurrent(
        cell="lstm",
        context="fixed",
        input_feeding=False,
        bidirectional="none",
        reverse_source=True,
        bridge="copy",
        num_encoder_layers=2,
        num_decoder_layers=2,
        emb_dim=384,
        hidden_dim=384,
        tie_embeddings="all",
        dropout=0.4,
    )
    return replace(load_config("lstm_luong"), model=model)
