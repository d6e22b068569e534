"""A small Transformer for your own files: 3+3 layers, width 256, 8000 pieces.

Command: jaxnmt train transformer_small --data.train a.en a.de
Time, score: depend on the files
"""

from jaxnmt.config import Batching, Data, Experiment, Schedule, Tokenizer, Training, Transformer


def config() -> Experiment:
    return Experiment(
        data=Data(max_length=128),
        tokenizer=Tokenizer(vocab_size=8000),
        batching=Batching(tokens=4096, row_length=128),
        model=Transformer(),
        schedule=Schedule(learning_rate=1e-3, warmup_steps=1000),
        training=Training(steps=10_000),
    )
