"""A language model: a Transformer decoder that predicts each word from those before it.

Command: jaxnmt train lm_small --data.train mono.txt
Time, score: depend on the files
"""

from jaxnmt.config import Batching, Data, Decoding, Experiment, Language, Schedule, Tokenizer, Training, Transformer, Validation


def config() -> Experiment:
    return Experiment(
        task=Language(),
        data=Data(max_length=128),
        tokenizer=Tokenizer(vocab_size=8000),
        batching=Batching(tokens=4096, row_length=128),
        model=Transformer(),
        schedule=Schedule(learning_rate=1e-3, warmup_steps=1000),
        training=Training(steps=10_000, label_smoothing=0.0),
        validation=Validation(metric="loss"),
        decoding=Decoding(max_length_extra=60),
    )
