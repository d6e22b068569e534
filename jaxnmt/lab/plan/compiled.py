"""A run's real programs, compiled for a target: memory, work and collectives of one call on one device."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import time
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnmt import config as cfg
from jaxnmt.data.packing import Shape
from jaxnmt.decoding.batches import bucket, most_rows, output_limit
from jaxnmt.decoding.options import search_options
from jaxnmt.decoding.search import search
from jaxnmt.errors import UserError, first_line
from jaxnmt.lab.plan import hlo
from jaxnmt.lab.plan.chips import GIB, Target
from jaxnmt.lab.plan.hlo import Collective
from jaxnmt.lab.plan.timing import Schedule, schedule
from jaxnmt.lab.sharding_table import bytes_per_device
from jaxnmt.models.attention import attend
from jaxnmt.models.fused_attention import Mask
from jaxnmt.models.parameters import for_decoding
from jaxnmt.models.seq2seq import build_model
from jaxnmt.parallel.sharding import activation_spec, make_mesh, replicated
from jaxnmt.training.loss import chunk_tokens
from jaxnmt.training.step import TrainPrograms, batch_struct

_UNITS = {"K": 2**10, "M": 2**20, "G": GIB, "T": 2**40}
_FULL = re.compile(r"Used ([\d.]+)([KMGT]) of")  # all memory; for a program that is far too large only its temporaries:
_FAR_TOO_FULL = re.compile(r"\(([\d.]+)([KMGT])\) exceeds available HBM")


@dataclasses.dataclass(frozen=True)
class Work:
    """The work of all devices together in one call.

    Attributes:
        flops: floating-point operations of matrix products, including those in kernels.
        kernel_flops: those in fused attention kernels, which the compiler's analysis does not see.
        kernel_bytes: bytes that these kernels read and write.
    """

    flops: float
    kernel_flops: float
    kernel_bytes: float


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
        schedule: estimated time of each kernel, without Pallas kernels.
        waits: number of places where a GPU's host waits for a result of the device, to choose a branch or to end a loop.
        collectives: of a call.
        order: for each position in the mesh, row by row, the index of its device in the target.
        seconds: time of tracing and compiling.
    """

    shape: Shape
    arguments: int
    temporaries: int
    fits: bool
    work: Work
    schedule: Schedule
    waits: int
    collectives: tuple[Collective, ...]
    order: tuple[int, ...]
    seconds: float

    @property
    def memory(self) -> int:
        """Bytes on a device."""
        return self.arguments + self.temporaries


def training(experiment: cfg.Experiment, target: Target, vocabularies: tuple[int, int], shape: Shape) -> Compiled:
    """Compile the training step of a batch shape: the function that the trainer jits.

    Args:
        vocabularies: sizes of the source's and the target's.

    Raises:
        UserError: the mesh does not fit the devices or the model, or the compiler fails for another reason than memory.
    """
    mesh = make_mesh(experiment.mesh, target.devices)
    model = build_model(experiment.model, *vocabularies, experiment.task)
    programs = TrainPrograms(model, experiment, mesh)
    batch = batch_struct(shape, experiment.batching.layout == "packed", mesh, experiment.task)
    positions = shape.rows * shape.target // experiment.training.accumulation
    chunks = -(-positions // chunk_tokens(vocabularies[1], mesh))  # of the output layer, at most
    return _compile(programs.step, (programs.abstract, batch), target, mesh, shape, chunks, programs.compiler_options)


def decoding(experiment: cfg.Experiment, target: Target, vocabularies: tuple[int, int]) -> Compiled:
    """Compile the search that validation and `translate` run, on one device, for a full batch of the longest sentences."""
    mesh, settings, source = make_mesh(cfg.Mesh(), target.devices[:1]), experiment.decoding, experiment.data.max_length
    rows = most_rows(bucket(source), settings.batch_size, settings.batch_tokens)
    shape = Shape(rows, source, output_limit(source, settings))
    model = build_model(for_decoding(experiment.model), *vocabularies, experiment.task)
    placed = functools.partial(jax.ShapeDtypeStruct, sharding=replicated(mesh))
    params = jax.tree.map(lambda x: placed(x.shape, x.dtype), model.shapes)
    options = search_options(settings, source)
    batch = {"encoder_input_tokens": placed((shape.rows, shape.source), np.int32)}
    if isinstance(experiment.task, cfg.Captioning):
        batch["encoder_input_vectors"] = placed((shape.rows, *experiment.task.vector_shape), experiment.task.vector_dtype)
    program = jax.jit(functools.partial(search, model, options))
    return _compile(program, (params, batch, placed((shape.rows,), np.int32)), target, mesh, shape, shape.target)


def _compile(
    jitted: Any,
    arguments: tuple,
    target: Target,
    mesh: jax.sharding.Mesh,
    shape: Shape,
    unknown_trips: int,
    options: Mapping[str, Any] | None = None,
) -> Compiled:
    began = time.perf_counter()
    traced = jitted.trace(*arguments)
    lowered = traced.lower()
    arithmetic = work(traced.jaxpr, unknown_trips)
    numbers = {device.id: i for i, device in enumerate(target.devices)}
    order = tuple(numbers[device.id] for device in mesh.devices.flat)
    try:
        compiled = lowered.compile({**target.compiler_options, **(options or {})})
    except jax.errors.JaxRuntimeError as error:
        size, seconds = sum(map(bytes_per_device, jax.tree.leaves(arguments))), time.perf_counter() - began
        return Compiled(shape, size, required(str(error), size), False, arithmetic, Schedule(), 0, (), order, seconds)
    seconds = time.perf_counter() - began
    try:
        program = hlo.parse(compiled.as_text())
    except jax.errors.JaxRuntimeError as error:
        raise UserError(
            "this JAX cannot read the programs of the installed TPU compiler, whose version does not match: "
            f"pip install 'jax[tpu]=={jax.__version__}' ({first_line(error)[:120]})"
        ) from None
    needs = compiled.memory_analysis()
    runs = program.runs(unknown_trips)
    temporaries = needs.temp_size_in_bytes + needs.output_size_in_bytes - needs.alias_size_in_bytes + needs.generated_code_size_in_bytes
    return Compiled(
        shape=shape,
        arguments=needs.argument_size_in_bytes,
        temporaries=temporaries,
        fits=needs.argument_size_in_bytes + temporaries <= (target.chip.memory or math.inf),
        work=arithmetic,
        schedule=schedule(program, target, order, unknown_trips),
        waits=program.waits(),
        collectives=tuple(hlo.collectives(runs, mesh.size)),
        order=order,
        seconds=seconds,
    )


def work(jaxpr: Any, unknown_trips: int) -> Work:
    """Return the work of one call of a traced program; of a `cond`, that of the branch with most.

    Args:
        jaxpr: `jitted.trace(...).jaxpr`.
        unknown_trips: number of iterations of a loop whose length is known only at run time.
    """
    return Work(*_program(jaxpr, unknown_trips).tolist())


def _program(jaxpr: Any, unknown_trips: int) -> np.ndarray:
    """Return the three numbers of `Work`."""
    return sum((_equation(eqn, unknown_trips) for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns), np.zeros(3))


def _equation(eqn: Any, unknown_trips: int) -> np.ndarray:
    inner = [x for x in jax.tree.leaves(eqn.params) if hasattr(x, "eqns") or hasattr(x, "jaxpr")]
    parts = [_program(each, unknown_trips) for each in inner]
    match eqn.primitive.name:
        case "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            products = math.prod(eqn.outvars[0].aval.shape) * math.prod(eqn.invars[0].aval.shape[axis] for axis in contracted)
            return np.array([2.0 * products, 0, 0])  # a multiplication and an addition each
        case "pallas_call":  # its program is that of one grid point
            flops = sum(part[0] for part in parts) * math.prod(eqn.params["grid_mapping"].grid)
            return np.array([flops, flops, sum(x.aval.size * x.aval.dtype.itemsize for x in (*eqn.invars, *eqn.outvars))])
        case "dot_product_attention_fwd_wrapper" | "dot_product_attention_bwd_wrapper" as name:  # cuDNN's
            q, k = (x.aval.shape for x in eqn.invars[:2])
            products = 2 if "fwd" in name else 5  # the backward pass computes the scores again
            flops = products * 2.0 * math.prod(q) * k[1]
            return np.array([flops, flops, sum(x.aval.size * x.aval.dtype.itemsize for x in (*eqn.invars, *eqn.outvars))])
        case "cond":
            return max(parts, key=lambda part: part[0])
        case "scan":
            times = eqn.params["length"]
        case "while":
            times = unknown_trips
        case "shard_map":  # its program is that of one device
            times = eqn.params["mesh"].size
        case _:
            times = 1
    return times * sum(parts, np.zeros(3))


def required(message: str, arguments: int) -> int:
    """Return the bytes that a program needs beyond its arguments, from the compiler's out-of-memory message.

    Raises:
        UserError: the compiler failed for another reason.
    """
    if found := _FULL.search(message):
        return max(int(float(found[1]) * _UNITS[found[2]]) - arguments, 0)
    if found := _FAR_TOO_FULL.search(message):
        return int(float(found[1]) * _UNITS[found[2]])
    raise UserError(f"the compiler rejects the program: {message.splitlines()[0][:300]}") from None


def kernel_saving(experiment: cfg.Experiment, target: Target, shape: Shape) -> tuple[int, int]:
    """Return bytes of temporaries of a decoder layer's self-attention, forward and backward: with the fused kernel, and without.

    Args:
        experiment: its model has the settings `emb_dim`, `num_heads`, `head_dim` and `dtype`.
        shape: of a batch, for the rows and the lengths.
    """
    model: Any = experiment.model
    mesh, rows = make_mesh(experiment.mesh, target.devices), shape.rows // experiment.training.accumulation
    heads_spec, rows_spec = (jax.sharding.NamedSharding(mesh, activation_spec(letters)) for letters in ("BTHK", "BT"))
    size = (rows, shape.target, model.num_heads, model.head_dim or model.emb_dim // model.num_heads)
    heads = jax.ShapeDtypeStruct(size, model.dtype, sharding=heads_spec)
    segments = jax.ShapeDtypeStruct((rows, shape.target), np.int32, sharding=rows_spec)

    class Attention(nn.Module):
        with_kernel: bool

        def __call__(self, q_BTHK, k_BTHK, v_BTHK, segments_BT):
            mask = Mask(segments_BT, segments_BT, causal=True)
            return attend(self, q_BTHK, k_BTHK, v_BTHK, mask if self.with_kernel else mask.dense(), 0.0, None, mesh)

    def temporaries(with_kernel: bool) -> int:
        attention = Attention(with_kernel)
        gradient = jax.grad(lambda *arrays: attention.apply({}, *arrays).astype(jnp.float32).sum(), argnums=(0, 1, 2))
        try:
            return jax.jit(gradient).lower(heads, heads, heads, segments).compile().memory_analysis().temp_size_in_bytes
        except jax.errors.JaxRuntimeError as error:  # plain attention may not fit where the kernel does
            return required(str(error), 0)

    return temporaries(True), temporaries(False)
