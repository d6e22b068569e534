"""English to French on the embedded corpus with Google's system in small: the model of `gnmt_small`, smaller, in minutes on a laptop.

Command: jaxnmt train phrases/gnmt_small
Time, score: not yet measured
"""

from jaxnmt.config import Batching, Checkpoints, Experiment, Schedule, Training, Validation, replace
from jaxnmt.config_files import load


def config() -> Experiment:
    quickstart = load("quickstart")
    return Experiment(
        data=quickstart.data,
        tokenizer=quickstart.tokenizer,
        batching=Batching(layout="buckets", tokens=2048),
        model=replace(load("gnmt_small").model, emb_dim=128, hidden_dim=128, dropout=0.1),
        optimizer=load("gnmt_small").optimizer,
        schedule=Schedule(name="cosine", learning_rate=3e-3, warmup_steps=200),
        training=Training(steps=2000),
        validation=Validation(every=500),
        checkpoints=Checkpoints(every=500),
    )
