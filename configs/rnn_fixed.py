"""The plainest encoder-decoder for Multi30k English to German, text already lowercased, tokenised and split with `@@ `.

Elman's recurrent network (1990) on both sides of one fixed vector, which every step of the decoder reads (Cho et al. 2014).


Files: docs/benchmarks.md has the commands that make them.
Command: jaxnmt train rnn_fixed --data.train train.en train.de --data.validation val.en val.de --data.test test2016.en test2016.de
         jaxnmt evaluate runs/rnn_fixed
Time, score: not yet measured
"""

from jaxnmt.config import Batching, Checkpoints, Data, Experiment, Optimizer, Recurrent, Schedule, Tokenizer, Training, Validation


def config() -> Experiment:
    return Experiment(
        data=Data(source_language="en", target_language="de", max_length=64),
        tokenizer=Tokenizer(kind="words", vocab_size=0),
        batching=Batching(layout="buckets", tokens=4096, max_shapes=12),
        model=Recurrent(cell="rnn", context="fixed", bidirectional="none", emb_dim=256, hidden_dim=512, tie_embeddings="all", dropout=0.2),
        optimizer=Optimizer(clip_norm=1.0, epsilon=1e-8),
        schedule=Schedule(learning_rate=2e-3, warmup_steps=500),
        training=Training(steps=20_000, ema_decay=0.999, max_minutes=180),
        validation=Validation(every=500),
        checkpoints=Checkpoints(every=500),
    )
