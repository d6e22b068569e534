"""A run's real programs, compiled for a target: memory, work and collectives of one call on one device."""

from __future__ import annotations

import dataclasses
import functools
import re
import time
from typing import Any

import jax
import numpy as np

from jaxnmt import config as cfg
from jaxnmt.data.packing import Shape
from jaxnmt.decoding.search import SearchOptions, search
from jaxnmt.decoding.translator import target_length
from jaxnmt.errors import UserError, first_line
from jaxnmt.lab.plan import hlo
from jaxnmt.lab.plan.arithmetic import Work, work
from jaxnmt.lab.plan.collectives import Collective, collectives
from jaxnmt.lab.plan.topology import GIB, Target
from jaxnmt.lab.sharding_table import bytes_per_device
from jaxnmt.models.seq2seq import build_model, unscanned
from jaxnmt.parallel.sharding import make_mesh, replicated
from jaxnmt.training.loss import CHUNK_TOKENS
from jaxnmt.training.optim import make_optimizer
from jaxnmt.training.programs import batch_struct, jitted_step
from jaxnmt.training.state import abstract_state

_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_FULL = re.compile(r"Used ([\d.]+)([KMGT]) of")  # all memory; for a program that is far too large only its temporaries:
_FAR_TOO_FULL = re.compile(r"\(([\d.]+)([KMGT])\) exceeds available HBM")


@dataclasses.dataclass(frozen=True)
class Compiled:
    """One program on one of its devices.

    Attributes:
        shape: of its batch.
        arguments: bytes of the state and the batch (donated, so that results reuse them).
        temporaries: bytes of everything else: activations, gradients, the program itself. If the program does not fit, all memory that it
            needs beyond its arguments.
        fits: whether the program fits into the device's memory.
        work: of all devices together.
        cycles: the compiler's estimate for its instructions, without collectives and Pallas kernels; None if it gives none.
        accessed: the compiler's estimate of bytes read and written; the body of a loop counts once.
        collectives: of a call.
        order: for each position in the mesh, row by row, the index of its device in the target.
        seconds: time of tracing and compiling.
    """

    shape: Shape
    arguments: int
    temporaries: int
    fits: bool
    work: Work
    cycles: int | None
    accessed: float
    collectives: tuple[Collective, ...]
    order: tuple[int, ...]
    seconds: float

    @property
    def memory(self) -> int:
        """Bytes on a device."""
        return self.arguments + self.temporaries

    @property
    def sent(self) -> float:
        """Bytes that a device sends in a call."""
        return sum(collective.sent for collective in self.collectives)


def training(experiment: cfg.Experiment, target: Target, vocabularies: tuple[int, int], shape: Shape) -> Compiled:
    """Compile the training step of a batch shape: the function that the trainer jits.

    Args:
        vocabularies: sizes of the source's and the target's.

    Raises:
        UserError: the mesh does not fit the devices or the model, or the compiler fails for another reason than memory.
    """
    mesh = make_mesh(experiment.mesh, target.devices)
    model = build_model(experiment.model, *vocabularies)
    optimizer = make_optimizer(experiment.optimizer, model.axes)
    abstract = abstract_state(model, optimizer, experiment.training, mesh)
    batch = batch_struct(shape, experiment.batching.layout == "packed", mesh)
    step = jitted_step(model, optimizer, experiment, abstract, mesh)
    chunks = -(-shape.rows * shape.target // experiment.training.accumulation // CHUNK_TOKENS)  # of the output layer, at most
    return _compile(step, (abstract, batch), target, mesh, shape, chunks)


def decoding(experiment: cfg.Experiment, target: Target, vocabularies: tuple[int, int], shape: Shape) -> Compiled:
    """Compile the search that validation and `translate` run, on one device; `shape.target` is the longest translation."""
    mesh = make_mesh(cfg.Mesh(), target.devices[:1])
    model = build_model(unscanned(experiment.model), *vocabularies)
    placed = functools.partial(jax.ShapeDtypeStruct, sharding=replicated(mesh))
    params = jax.tree.map(lambda x: placed(x.shape, x.dtype), model.shapes)
    options = SearchOptions(
        experiment.decoding.beam_size, target_length(shape.source, experiment.decoding), experiment.decoding.length_penalty
    )
    batch = {"encoder_input_tokens": placed((shape.rows, shape.source), np.int32)}
    program = jax.jit(functools.partial(search, model, options))
    return _compile(program, (params, batch, placed((shape.rows,), np.int32)), target, mesh, shape, shape.target)


def _compile(jitted: Any, arguments: tuple, target: Target, mesh: jax.sharding.Mesh, shape: Shape, unknown_trips: int) -> Compiled:
    began = time.perf_counter()
    traced = jitted.trace(*arguments)
    lowered = traced.lower()
    arithmetic = work(traced.jaxpr, unknown_trips)
    numbers = {device.id: i for i, device in enumerate(target.devices)}
    order = tuple(numbers[device.id] for device in mesh.devices.flat)
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        size, seconds = sum(map(bytes_per_device, jax.tree.leaves(arguments))), time.perf_counter() - began
        return Compiled(shape, size, required(str(error), size), False, arithmetic, None, 0.0, (), order, seconds)
    seconds = time.perf_counter() - began
    needs = compiled.memory_analysis()
    program = hlo.parse(_text(compiled))
    cycles = [int(found[1]) * times for i, times, _ in program.runs(unknown_trips) if (found := _CYCLES.search(i.rest))]
    temporaries = needs.temp_size_in_bytes + needs.output_size_in_bytes - needs.alias_size_in_bytes + needs.generated_code_size_in_bytes
    memory = needs.argument_size_in_bytes + temporaries
    return Compiled(
        shape=shape,
        arguments=needs.argument_size_in_bytes,
        temporaries=temporaries,
        fits=target.chip.memory is None or memory <= target.chip.memory,
        work=arithmetic,
        cycles=sum(cycles) if cycles and target.chip.clock else None,
        accessed=float((compiled.cost_analysis() or {}).get("bytes accessed", 0.0)),
        collectives=tuple(collectives(program, mesh.size, unknown_trips)),
        order=order,
        seconds=seconds,
    )


def required(message: str, arguments: int) -> int:
    """Return the bytes that a program needs beyond its arguments, from the compiler's out-of-memory message.

    Raises:
        UserError: the compiler failed for another reason.
    """
    units = {"K": 2**10, "M": 2**20, "G": GIB, "T": 2**40}
    if found := _FULL.search(message):
        return max(int(float(found[1]) * units[found[2]]) - arguments, 0)
    if found := _FAR_TOO_FULL.search(message):
        return int(float(found[1]) * units[found[2]])
    raise UserError(f"the compiler rejects the program: {message.splitlines()[0][:300]}") from None


def _text(compiled: Any) -> str:
    try:
        return compiled.as_text()
    except jax.errors.JaxRuntimeError as error:
        raise UserError(
            "this JAX cannot read the programs of the installed TPU compiler, whose version does not match: "
            f"pip install 'jax[tpu]=={jax.__version__}' ({first_line(error)[:120]})"
        ) from None
