"""RNNsearch in small (Bahdanau, Cho, Bengio 2015) for Multi30k English to German, text already lowercased, tokenised and split with `@@ `.

A bidirectional GRU encoder, and a GRU decoder with additive attention and a maxout output.

Files: docs/benchmarks.md has the commands that make them.
Command: jaxnmt train gru_bahdanau --data.train train.en train.de --data.validation val.en val.de --data.test test2016.en test2016.de
         jaxnmt evaluate runs/gru_bahdanau
Time: 77 minutes of training on one core of two, other work beside it
Score: BLEU-4 38.15 on test2016 (beam 5, one run); greedy on validation 36.57
Learning rates tried, perplexity and greedy BLEU on validation after 120 steps (docs/ladder.md):
  0.0005 132.3 5.7, 0.001 87.7 6.5, 0.002 54.0 9.4, 0.004 35.2 12.9, 0.008 30.2 13.0
"""

from jaxnmt.config import Batching, Checkpoints, Data, Experiment, Optimizer, Recurrent, Schedule, Tokenizer, Training, Validation


def config() -> Experiment:
    return Experiment(
        data=Data(source_language="en", target_language="de", max_length=64),
        tokenizer=Tokenizer(kind="words", vocab_size=0),
        batching=Batching(layout="buckets", tokens=4096, max_shapes=12),
        model=Recurrent(cell="gru", context="bahdanau", emb_dim=256, hidden_dim=512, tie_embeddings="all", dropout=0.4),
        optimizer=Optimizer(clip_norm=1.0, epsilon=1e-8),
        schedule=Schedule(name="cosine", learning_rate=4e-3, warmup_steps=200),
        training=Training(steps=1800),
        validation=Validation(every=200),
        checkpoints=Checkpoints(every=200),
    )
