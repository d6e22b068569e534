"""English to French on the embedded corpus with RNNsearch: the model of `gru_bahdanau`, smaller, in minutes on a laptop.

Command: jaxnmt train phrases/gru_bahdanau
Time: 3 minutes of training on one core of two, other work beside it
Score: BLEU 99.4 on the test split (beam 5, one run; the corpus of version 0.1.0)
Learning rates tried, greedy BLEU on validation after 300 steps (docs/ladder.md):
  0.0015 40.8, 0.003 76.3, 0.006 91.8, 0.012 94.7, 0.024 81.1
"""

from jaxnmt.config import Batching, Checkpoints, Experiment, Schedule, Training, Validation, replace
from jaxnmt.config.files import load_config


def config() -> Experiment:
    quickstart = load_config("quickstart")
    return Experiment(
        data=quickstart.data,
        tokenizer=quickstart.tokenizer,
        batching=Batching(layout="buckets", tokens=2048),
        model=replace(load_config("gru_bahdanau").model, emb_dim=128, hidden_dim=128, dropout=0.1),
        optimizer=load_config("gru_bahdanau").optimizer,
        schedule=Schedule(name="cosine", learning_rate=1.2e-2, warmup_steps=200),
        training=Training(steps=1000),
        validation=Validation(every=250),
        checkpoints=Checkpoints(every=250),
    )
