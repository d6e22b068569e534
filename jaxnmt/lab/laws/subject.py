"""What the laws test: a configuration's model at its full size, over small vocabularies and random sentences."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnmt import config as cfg
from jaxnmt.data.batching import PlannedBatch
from jaxnmt.data.corpus import in_memory
from jaxnmt.data.loader import assemble
from jaxnmt.data.packing import Shape
from jaxnmt.models.layers import DropoutKey
from jaxnmt.models.seq2seq import Seq2Seq, build_model, is_scanned, stack_layers, unscanned

SOURCE_VOCAB, TARGET_VOCAB = 23, 29  # of models whose embeddings are not all one
FIRST_WORD = 4  # the ids before it are special
ROUNDING = 1e-4
"""Largest difference between two orders of the same float32 sums, in logits, or relative to the largest gradient."""

Pair = tuple[list[int], list[int]]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether a law holds (None: it does not apply), and what was measured or why it does not apply."""

    holds: bool | None
    measured: str


def does_not_apply(why: str) -> Verdict:
    """Return the verdict of a law that does not apply to a model."""
    return Verdict(None, why)


def close(difference: float, bound: float = ROUNDING, what: str = "largest difference") -> Verdict:
    """Return a verdict that holds if a difference is at most `bound`, and not NaN."""
    return Verdict(bool(difference <= bound), f"{what} {difference:.1g}, at most {bound:g} allowed")


def distance(left: Any, right: Any) -> float:
    """Return the largest relative difference of two pytrees of one structure.

    A leaf's differences are divided by its largest number, or by a hundredth of the largest number of all leaves if that is larger: some
    gradients are nothing but rounding.
    """
    left, right = jax.device_get((left, right))
    largest = max(np.abs(x).max() for x in jax.tree.leaves(right))
    scaled = jax.tree.map(lambda a, b: np.abs(a - b).max() / max(np.abs(b).max(), 0.01 * largest), left, right)
    return float(np.max(jax.tree.leaves(scaled)))  # numpy's max propagates NaN


def random_pairs(count: int, seed: int = 0, shortest: int = 2, longest: int = 6) -> list[Pair]:
    """Return random (source ids, target ids), without start and end."""
    random = np.random.default_rng(seed)
    side = lambda vocab: random.integers(FIRST_WORD, vocab, random.integers(shortest, longest + 1)).tolist()  # noqa: E731
    return [(side(SOURCE_VOCAB), side(TARGET_VOCAB)) for _ in range(count)]


def batch_of(pairs: Sequence[Pair], rows: Sequence[Sequence[int]], source: int, target: int, packed: bool = False) -> dict[str, np.ndarray]:
    """Return the arrays of a batch of `source` and `target` positions; its row r holds the pairs numbered `rows[r]`."""
    row = np.array([r for r, members in enumerate(rows) for _ in members], np.int32)
    index = np.array([i for members in rows for i in members], np.int64)
    planned = PlannedBatch(0, Shape(len(rows), source, target), packed, row, np.zeros_like(row), index)
    return assemble(planned, [in_memory(pairs)])


def model_of(config: Any, target_vocab: int = TARGET_VOCAB) -> Seq2Seq:
    """Return the model with another source than target vocabulary, if its embeddings allow that."""
    shared = getattr(config, "tie_embeddings", "") == "all"
    return build_model(config, target_vocab if shared else SOURCE_VOCAB, target_vocab)


def some_params(model: Seq2Seq, seed: int = 0) -> Any:
    """Return fresh parameters, each moved a little: a bias at zero, or a scale at one, would hide that the model forgets it."""
    random = np.random.default_rng(seed)

    def move(x):
        spread = min(float(x.std()) or 0.2, 0.2)
        return jnp.asarray(x + spread * random.standard_normal(x.shape, np.float32))

    key = jax.random.key(seed, impl="unsafe_rbg")  # its bits come from one instruction: compiled in a fraction of the time
    return jax.tree.map(move, jax.device_get(jax.jit(model.init)(key)))


class WithoutDropout(Seq2Seq):
    """A model that ignores its dropout key."""

    def __init__(self, model: Seq2Seq):
        super().__init__(model.module, model.target_vocab)

    def _apply(self, params, method, *args):
        return super()._apply(params, method, *(None if isinstance(x, DropoutKey) else x for x in args))


class Subject:
    """A model that the laws test.

    Attributes:
        config: the model's configuration, in float32, so that rounding does not hide mistakes.
        model: as it trains; with params.
        flat_model: as it decodes, its layers one by one; with flat_params, the same parameters.
        experiment: a run of this model, for the laws about training.
    """

    def __init__(self, config: Any):
        self.config = dataclasses.replace(config, dtype="float32") if hasattr(config, "dtype") else config
        self.model, self.flat_model = model_of(self.config), model_of(unscanned(self.config))
        # Rounding may take a ReLU past zero, and Adam's first steps follow a gradient's sign, however small it is. At a high learning rate,
        # rounding on eight devices that differs from rounding on one would soon show in the loss.
        changes = {"schedule.name": "constant", "schedule.learning_rate": 1e-4, "schedule.warmup_steps": 2, "training.ema_decay": 0.9}
        self.experiment = cfg.replace(cfg.Experiment(model=self.config), **changes)

    @functools.cached_property
    def flat_params(self) -> Any:
        return some_params(self.flat_model)

    @functools.cached_property
    def params(self) -> Any:
        return jax.jit(stack_layers)(self.flat_params) if is_scanned(self.config) else self.flat_params

    @functools.cached_property
    def _logits(self):
        return jax.jit(lambda params, batch: self.model.decode(params, self.model.encode(params, batch), batch))

    def logits(self, batch: dict[str, np.ndarray], params: Any = None) -> np.ndarray:
        """Return teacher-forced logits of the ids that are tokens, (B, T, V)."""
        return np.asarray(self._logits(self.params if params is None else params, batch))[..., :TARGET_VOCAB]
