"""Which batches a run will have: from its prepared data where there is some, else the largest that its config allows, all full."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from jaxnmt import config as cfg
from jaxnmt.data.batching import BatchPlan
from jaxnmt.data.packing import Shape
from jaxnmt.data.prepared import prepare
from jaxnmt.errors import UserError
from jaxnmt.parallel.sharding import num_shards

_SAMPLE = 256  # batches that shares and tokens are counted in


@dataclasses.dataclass(frozen=True)
class Share:
    """Batches of one shape: their share of all steps, and the tokens of one, the end counted."""

    shape: Shape
    share: float
    source_tokens: float
    target_tokens: float


@dataclasses.dataclass(frozen=True)
class Workload:
    """Attributes:
    source_vocab, target_vocab: sizes of the vocabularies.
    said: where all this is from, for people.
    """

    source_vocab: int
    target_vocab: int
    shares: tuple[Share, ...]
    said: str


class Lengths:
    """A run's sentence lengths and vocabularies, from which its batches follow for any mesh and batch size.

    Args:
        run: its folder; where it holds a tokenizer, its data is opened.

    Raises:
        UserError: without data, a vocabulary of all the words that it has.
    """

    def __init__(self, experiment: cfg.Experiment, run: Path, say: Callable[[str], None]):
        if experiment.data.train and (run / "tokenizer" / "tokenizer.json").exists():
            data = prepare(experiment, run / "tokenizer", say=say)
            self.lengths = [(corpus.source_lengths, corpus.target_lengths) for corpus in data.train]
            self.weights = list(data.weights)
            self.vocabularies = data.tokenizer.source_vocab_size, data.tokenizer.target_vocab_size
            self.prepared, self.said = True, f"batches as the run {run} has them"
            return
        size, longest = experiment.tokenizer.vocab_size, np.array([experiment.data.max_length - 1])
        if size == 0:
            raise UserError(
                "tokenizer.vocab_size 0 takes all words of data that is not prepared yet: give a number, or run `jaxnmt data prepare` first"
            )
        self.lengths, self.weights, self.vocabularies = [(longest, longest)], [1.0], (size, size)
        self.prepared, self.said = False, "no prepared data: the largest shape that the config allows, every row full"

    def workload(self, experiment: cfg.Experiment, mesh: jax.sharding.Mesh) -> Workload:
        """The batches of a run on a mesh."""
        parts, training = num_shards("B", mesh), experiment.training
        plan = BatchPlan(
            self.lengths,
            self.weights,
            experiment.batching,
            training.seed,
            experiment.data.max_length,
            row_multiple=training.accumulation,
            row_padding=training.accumulation * parts,
        )
        shares = self._counted(plan, training.steps) if self.prepared else tuple(_full(shape) for shape in plan.shapes)
        return Workload(*self.vocabularies, shares, self.said)

    def _counted(self, plan: BatchPlan, steps: int) -> tuple[Share, ...]:
        totals: dict[Shape, np.ndarray] = collections.defaultdict(lambda: np.zeros(3))
        for step in range(min(_SAMPLE, steps)):
            batch = plan.batch(step)
            of_corpus = [batch.index[batch.corpus == c] for c in range(len(self.lengths))]
            tokens = [sum(float((side[c][rows] + 1).sum()) for c, rows in enumerate(of_corpus)) for side in zip(*self.lengths, strict=True)]
            totals[batch.shape] += (1.0, *tokens)
        batches = sum(total[0] for total in totals.values())
        return tuple(Share(shape, total[0] / batches, *(total[1:] / total[0])) for shape, total in sorted(totals.items()))


def _full(shape: Shape) -> Share:
    return Share(shape, 1.0, shape.rows * shape.source, shape.rows * shape.target)
