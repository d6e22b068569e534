"""Luong, Pham, Manning 2015 in small for Multi30k English to German, text already lowercased, tokenised and split with `@@ `.

A stacked LSTM with global attention (score general) and input feeding.


Files: docs/benchmarks.md has the commands that make them.
Command: jaxnmt train lstm_luong --data.train train.en train.de --data.validation val.en val.de --data.test test2016.en test2016.de
         jaxnmt evaluate runs/lstm_luong
Time, score: not yet measured
"""

from jaxnmt.config import Batching, Checkpoints, Data, Experiment, Optimizer, Recurrent, Schedule, Tokenizer, Training, Validation


def config() -> Experiment:
    return Experiment(
        data=Data(source_language="en", target_language="de", max_length=64),
        tokenizer=Tokenizer(kind="words", vocab_size=0),
        batching=Batching(layout="buckets", tokens=4096, max_shapes=12),
        model=Recurrent(
            cell="lstm",
            context="luong",
            num_encoder_layers=2,
            num_decoder_layers=2,
            emb_dim=512,
            hidden_dim=512,
            tie_embeddings="all",
            dropout=0.4,
        ),
        optimizer=Optimizer(clip_norm=1.0, epsilon=1e-8),
        schedule=Schedule(learning_rate=2e-3, warmup_steps=500),
        training=Training(steps=20_000, ema_decay=0.999, max_minutes=180),
        validation=Validation(every=500),
        checkpoints=Checkpoints(every=500),
    )
