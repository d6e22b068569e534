"""A few training steps on given batches, with the compiled step of a run, without files."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnmt import config as cfg
from jaxnmt.data.packing import Shape
from jaxnmt.lab.laws.subject import batch_of, random_pairs
from jaxnmt.models.seq2seq import Seq2Seq
from jaxnmt.parallel.sharding import make_mesh, to_mesh
from jaxnmt.training.state import TrainState, shardings_of
from jaxnmt.training.step import TrainPrograms

SHAPE = Shape(8, 9, 8)


def batch(step: int, shape: Shape = SHAPE) -> dict[str, np.ndarray]:
    """Return the random pairs of a step; the last row is empty, as in a batch that is padded."""
    pairs = random_pairs(shape.rows - 1, 100 + step, 1, min(shape.source, shape.target) - 2)
    return batch_of(pairs, [*([i] for i in range(shape.rows - 1)), []], shape.source, shape.target)


def shape_of(arrays: dict[str, np.ndarray]) -> Shape:
    """Return the shape of a batch's arrays."""
    (rows, source), (_, target) = arrays["encoder_input_tokens"].shape, arrays["decoder_input_tokens"].shape
    return Shape(rows, source, target)


class Practice:
    """Training of a model, with its step compiled for some shapes.

    Attributes:
        abstract: shapes, types and layout of the state.
    """

    def __init__(self, model: Seq2Seq, experiment: cfg.Experiment, shapes: Sequence[Shape] = (SHAPE,)):
        self.model, self.experiment = model, experiment
        self.mesh = make_mesh(experiment.mesh)
        self.programs = TrainPrograms(model, experiment, self.mesh)
        self.programs.compile(shapes, packed=False)
        self.abstract = self.programs.abstract

    def fresh(self, lr_scale: float = 1.0) -> TrainState:
        """Return the state before the first step; `lr_scale` multiplies the learning rate."""
        state = self.programs.fresh(self.experiment.training)
        scale = jax.device_put(np.float32(lr_scale), self.abstract.lr_scale.sharding)
        return dataclasses.replace(state, lr_scale=scale)

    def own(self, state: TrainState) -> TrainState:
        """Return a copy laid out like `abstract`: a step donates its arrays, and those of a checkpoint reader must not be donated."""
        return jax.jit(lambda s: jax.tree.map(jnp.copy, s), out_shardings=shardings_of(self.abstract))(state)

    def run(self, state: TrainState, batches: Iterable[dict[str, np.ndarray]]) -> tuple[TrainState, list[float]]:
        """Return the state after a step on each batch, and the mean loss of each."""
        sums: list[Any] = []
        for arrays in batches:
            state, metrics = self.programs(state, shape_of(arrays), to_mesh(arrays, self.mesh))
            sums.append(metrics.sums)
        return state, [float(x.loss) / float(x.tokens) for x in jax.device_get(sums)]
