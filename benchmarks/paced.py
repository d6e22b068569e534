"""A training that takes so many steps each time it is told to; run by `versus_opennmt.py`, ours and OpenNMT-py's alike.

    python paced.py opennmt ARGUMENTS OF onmt_train
    python paced.py jaxnmt transformer|base|lstm SOURCE TARGET [settings]

Each line read from stdin is a number of steps; after them one line `BURST {"units": .., "seconds": ..}` is written; its
units are target tokens.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path


class Pace:
    """Counts steps and tokens; waits for the next order when one is done."""

    def __init__(self) -> None:
        self.left = self.tokens = 0
        self.began = 0.0

    def wait(self) -> None:
        """Until told to go on. When nobody tells any more, the process ends."""
        order = sys.stdin.readline()
        if not order:
            os._exit(0)
        self.left, self.tokens, self.began = int(order), 0, time.perf_counter()

    def report(self) -> None:
        """The burst is over."""
        record = {"units": self.tokens, "seconds": time.perf_counter() - self.began}
        print("BURST " + json.dumps(record), flush=True)


def opennmt(words: list[str]) -> None:
    """OpenNMT-py's own command: tokens are counted where its trainer takes its batches, time where its optimizer has stepped."""
    import onmt.trainer
    import torch
    from onmt.bin import train
    from torch.optim.optimizer import register_optimizer_step_post_hook

    torch.set_num_threads(os.cpu_count() or 1)
    pace = Pace()
    step = onmt.trainer.Trainer._gradient_accumulation

    def counted(self, batches, *arguments):
        pad = self.train_loss.padding_idx
        pace.tokens += sum(int((batch["tgt"][:, 1:] != pad).sum()) for batch in batches)  # after the start token
        return step(self, batches, *arguments)

    def stepped(*_) -> None:
        pace.left -= 1
        if pace.left <= 0:
            pace.report()
            pace.wait()

    onmt.trainer.Trainer._gradient_accumulation = counted
    register_optimizer_step_post_hook(stepped)
    pace.wait()
    sys.argv = ["onmt_train", *words]
    train.main()


def jaxnmt(model: str, source: str, target: str, settings: list[str]) -> None:
    """Our training loop, with a hook that waits."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from jaxnmt.parallel import compiler

    compiler.use_right_fusions()  # as the command does, and before JAX is imported
    compiler.enable_huge_pages()
    compiler.enable_compilation_cache()
    import tyro

    from jaxnmt.config import Batching, Experiment, Recurrent, Transformer, replace
    from jaxnmt.lab.benchmark import Measurement
    from jaxnmt.training.hooks import Hook

    same_models = {
        "transformer": Transformer(attention_dropout=0.1, activation_dropout=0.1),
        "base": Transformer(512, 8, 0, 2048, 6, 6, attention_dropout=0.1, activation_dropout=0.1),
        "lstm": Recurrent(cell="lstm", emb_dim=512, hidden_dim=512, tie_embeddings="all", dropout=0.1),
    }
    same = {
        "model": same_models[model],
        "data.train": (source, target),
        "data.max_length": 64,
        "data.cleaning.max_ratio": 1e6,
        "data.cleaning.drop_duplicates": False,
        "data.held_out": 0,
        "tokenizer.kind": "words",
        "tokenizer.vocab_size": 0,
        "batching": Batching(layout="buckets", max_shapes=12) if model == "lstm" else Batching(row_length=64),
        "schedule.learning_rate": 5e-4,
        "training.steps": 1_000_000,
    }
    experiment = tyro.cli(Experiment, args=settings, default=replace(Experiment(), **same))

    class Paced(Hook):
        def __init__(self):
            self.pace = Pace()

        def start(self, trainer):
            self.pace.wait()

        def record(self, trainer, finished):
            self.pace.tokens += int(finished.metrics.sums.tokens)

        def is_due(self, trainer, step):
            self.pace.left -= 1
            return self.pace.left <= 0

        def run(self, trainer, step):
            self.pace.report()
            self.pace.wait()

    compiler.check()
    with tempfile.TemporaryDirectory() as folder:
        Measurement(experiment, Path(folder), [Paced()]).run()


if __name__ == "__main__":
    if sys.argv[1] == "opennmt":
        opennmt(sys.argv[2:])
    else:
        jaxnmt(sys.argv[2], sys.argv[3], sys.argv[4], sys.argv[5:])
