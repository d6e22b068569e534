"""An encoder–decoder that learns to restore the hidden spans of texts. Translation can start from it.

Command: jaxnmt train denoise_small --data.train mono.txt
Time, score: depend on the files
"""

from jaxnmt.config import Batching, Data, Denoising, Experiment, Schedule, Tokenizer, Training, Transformer, Validation


def config() -> Experiment:
    return Experiment(
        task=Denoising(),
        data=Data(max_length=128),
        tokenizer=Tokenizer(vocab_size=8000),
        batching=Batching(tokens=4096, row_length=128),
        model=Transformer(),
        schedule=Schedule(learning_rate=1e-3, warmup_steps=1000),
        training=Training(steps=10_000, label_smoothing=0.0),
        validation=Validation(metric="loss"),
    )
