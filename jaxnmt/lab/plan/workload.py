"""The batches of a run: from its prepared data if there is some, else full batches of the largest shape that its config allows."""

from __future__ import annotations

import collections
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from jaxnmt import config as cfg
from jaxnmt.data.batching import BatchPlan
from jaxnmt.data.packing import Shape
from jaxnmt.data.prepared import prepare
from jaxnmt.errors import UserError
from jaxnmt.parallel.sharding import num_shards

_SAMPLE = 256  # batches from which shares and tokens are counted


class Share(NamedTuple):
    """Batches of one shape: their share of all steps, and the tokens of one, including EOS."""

    shape: Shape
    share: float
    source_tokens: float
    target_tokens: float


class Lengths:
    """A run's sentence lengths and vocabularies, from which its batches follow for any mesh and batch size.

    Args:
        run: its folder; if it has a tokenizer, its data is opened.

    Attributes:
        vocabularies: sizes of the source's and the target's.
        origin: where the lengths are from, for readers.

    Raises:
        UserError: there is no data and the vocabulary's size depends on it.
    """

    def __init__(self, experiment: cfg.Experiment, run: Path, say: Callable[[str], None]):
        self.prepared = bool(experiment.data.train) and (run / "tokenizer" / "tokenizer.json").exists()
        if self.prepared:
            data = prepare(experiment, run / "tokenizer", say=say)
            self.lengths, self.weights = [corpus.lengths for corpus in data.train], list(data.weights)
            self.vocabularies = data.tokenizer.source_vocab_size, data.tokenizer.target_vocab_size
            self.origin = f"batches of the prepared data of {run}"
            return
        size, longest = experiment.tokenizer.vocab_size, np.array([experiment.data.max_length - 1])
        if size == 0:
            raise UserError(
                "tokenizer.vocab_size 0 means all words of the data, and there is no prepared data: give a number, or run "
                "`jaxnmt data prepare` first"
            )
        self.lengths, self.weights, self.vocabularies = [(longest, longest)], [1.0], (size, size)
        self.origin = "no prepared data: the largest shape that the config allows, every row full"

    def shares(self, experiment: cfg.Experiment, mesh: jax.sharding.Mesh) -> tuple[Share, ...]:
        """Return the batches of a run on a mesh."""
        plan = BatchPlan(self.lengths, self.weights, experiment, num_shards("B", mesh))
        if not self.prepared:
            return tuple(Share(shape, 1.0, shape.rows * shape.source, shape.rows * shape.target) for shape in plan.shapes)
        totals: dict[Shape, np.ndarray] = collections.defaultdict(lambda: np.zeros(3))
        for step in range(min(_SAMPLE, experiment.training.steps)):
            batch = plan.batch(step)
            of_corpus = [batch.index[batch.corpus == c] for c in range(len(self.lengths))]
            tokens = [sum(float((side[c][rows] + 1).sum()) for c, rows in enumerate(of_corpus)) for side in zip(*self.lengths, strict=True)]
            totals[batch.shape] += (1.0, *tokens)
        batches = sum(total[0] for total in totals.values())
        return tuple(Share(shape, total[0] / batches, *(total[1:] / total[0])) for shape, total in sorted(totals.items()))
