"""Multi30k (image captions) English to German from raw text, SentencePiece pieces.

Command: jaxnmt train multi30k
         jaxnmt train multi30k --data.train train.en train.de --data.validation val.en val.de --data.test test2016.en test2016.de
Time, score: not yet measured
"""

from jaxnmt.config import Batching, Data, Experiment, Schedule, Tokenizer, Training, Transformer


def config() -> Experiment:
    return Experiment(
        data=Data(train=("multi30k/en-de:train",), validation=("multi30k/en-de:validation",), test=("multi30k/en-de:test",), max_length=64),
        tokenizer=Tokenizer(vocab_size=8000),
        batching=Batching(tokens=4096, row_length=64),
        model=Transformer(dropout=0.3),
        schedule=Schedule(learning_rate=2e-3, warmup_steps=1000),
        training=Training(steps=8000),
    )
