"""Tatoeba, short everyday sentences, English to Turkish from a TSV file.

Command: jaxnmt train tatoeba --data.train eng-tur.train.tsv.gz --data.validation eng-tur.val.tsv.gz
Time, score: not yet measured
"""

from jaxnmt.config import Batching, Data, Experiment, Schedule, Tokenizer, Training, Transformer


def config() -> Experiment:
    return Experiment(
        data=Data(source_language="en", target_language="tr", max_length=64),
        tokenizer=Tokenizer(vocab_size=8000),
        batching=Batching(tokens=4096, row_length=64),
        model=Transformer(dropout=0.3),
        schedule=Schedule(learning_rate=2e-3, warmup_steps=1000),
        training=Training(steps=8000),
    )
