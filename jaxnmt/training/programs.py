"""The compiled programs of a run: every shape's training and evaluation step, made before the first step."""

from __future__ import annotations

import concurrent.futures
import functools
import os
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np
import optax

from jaxnmt import config as cfg
from jaxnmt.data.packing import Shape
from jaxnmt.models.seq2seq import Seq2Seq
from jaxnmt.parallel.sharding import batch_sharding
from jaxnmt.training.state import TrainState, initial_state, shardings_of
from jaxnmt.training.step import evaluation_step, train_step


def batch_struct(shape: Shape, packed: bool, mesh: jax.sharding.Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """Return names, shapes and types of a batch's arrays, as `loader.assemble` makes them."""
    source, target = (shape.rows, shape.source), (shape.rows, shape.target)
    arrays = {
        "encoder_input_tokens": (source, np.int32),
        "decoder_input_tokens": (target, np.int32),
        "decoder_target_tokens": (target, np.int32),
        "decoder_loss_weights": (target, np.float32),
    }
    if packed:
        arrays |= {f"encoder_{name}": (source, np.int32) for name in ("segment_ids", "positions")}
        arrays |= {f"decoder_{name}": (target, np.int32) for name in ("segment_ids", "positions")}
    return {name: jax.ShapeDtypeStruct(*array, sharding=batch_sharding(mesh)) for name, array in arrays.items()}


def fresh_state(
    model: Seq2Seq, optimizer: optax.GradientTransformation, config: cfg.Training, abstract: TrainState, mesh: jax.sharding.Mesh
) -> TrainState:
    """Make the state before the first step, laid out like `abstract`."""
    make = functools.partial(initial_state, model.on(mesh), optimizer, config)
    return jax.jit(make, out_shardings=shardings_of(abstract))()


def jitted_step(
    model: Seq2Seq, optimizer: optax.GradientTransformation, config: cfg.Experiment, abstract: TrainState, mesh: jax.sharding.Mesh
):
    """Return `(state, batch) -> (state, metrics)`, not compiled yet; the state is donated and keeps its layout."""
    step = functools.partial(train_step, model.on(mesh), optimizer, config)
    return jax.jit(step, donate_argnums=0, out_shardings=(shardings_of(abstract), None))


class TrainPrograms:
    """The training step, compiled ahead of time for each shape; a call with another shape is an error, never a compilation."""

    def __init__(
        self,
        model: Seq2Seq,
        optimizer: optax.GradientTransformation,
        config: cfg.Experiment,
        abstract: TrainState,
        mesh: jax.sharding.Mesh,
        shapes: Sequence[Shape],
        packed: bool,
    ):
        step = jitted_step(model, optimizer, config, abstract, mesh)
        structs = [batch_struct(shape, packed, mesh) for shape in shapes]
        self.shapes, self.seconds = tuple(shapes), time.perf_counter()
        self._programs = dict(zip(shapes, _compile_all([lambda b=b: step.lower(abstract, b) for b in structs]), strict=True))
        self.seconds = time.perf_counter() - self.seconds

    def __call__(self, state: TrainState, shape: Shape, batch: dict[str, jax.Array]):
        return self._programs[shape](state, batch)

    def memory(self, shape: Shape) -> int | None:
        """Return bytes on a device, arguments and temporaries; None if the compiler does not report them."""
        analysis = self._programs[shape].memory_analysis()
        return None if analysis is None else analysis.argument_size_in_bytes + analysis.temp_size_in_bytes

    def describe(self) -> list[str]:
        """Return a line for each shape."""
        lines = []
        for shape in self.shapes:
            memory = self.memory(shape)
            size = "" if memory is None else f", {memory / 2**20:,.0f} MiB on a device"
            lines.append(f"  {shape.rows} rows x {shape.source} source x {shape.target} target positions{size}")
        return lines


def evaluation_program(model: Seq2Seq, label_smoothing: float, mesh: jax.sharding.Mesh) -> Callable:
    """Return `(params, batch) -> LossSums`, compiled for each shape when it first occurs."""
    return jax.jit(functools.partial(evaluation_step, model.on(mesh), label_smoothing))


def _compile_all(lowerings: Sequence[Callable]) -> list:
    """Trace one after the other, compile side by side. Ctrl-C does not wait for a compilation."""
    lowered = [lower() for lower in lowerings]
    pool = concurrent.futures.ThreadPoolExecutor(max_workers=max(1, min(len(lowered), os.cpu_count() or 1)))
    try:
        return list(pool.map(lambda program: program.compile(), lowered))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
