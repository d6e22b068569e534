"""One optimizer step and one evaluation step: pure functions, and the programs that they are compiled to before the first step."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec

from jaxnmt import config as cfg
from jaxnmt.data.packing import Shape
from jaxnmt.models.encoder_decoder import Batch
from jaxnmt.models.layers import DropoutKey
from jaxnmt.models.parameters import is_scanned
from jaxnmt.models.seq2seq import Seq2Seq
from jaxnmt.parallel.platform import platform_of
from jaxnmt.parallel.sharding import batch_sharding, gather_over_data, group, num_replicas, param_shardings, scatter_sums, within_group
from jaxnmt.training.loss import LossSums, batch_loss
from jaxnmt.training.optim import is_elementwise, learning_rate, make_optimizer
from jaxnmt.training.state import TrainState, abstract_state, initial_state, shardings_of, widen
from jaxnmt.training.tuning import rates, tuning_of


class StepMetrics(NamedTuple):
    """Scalars of one step: sums and counts, never means."""

    sums: LossSums
    source_tokens: jax.Array
    gradient_norm: jax.Array
    learning_rate: jax.Array
    finite: jax.Array
    bad_steps: jax.Array


class ShardedUpdate(NamedTuple):
    """Layouts of an update that devices along `data` share: gradients are reduce-scattered, and trained parameters are all-gathered.

    Xu et al. 2020, "Automatic cross-replica sharding of weight update in data-parallel training".

    Attributes:
        model: the model whose parameters these are.
        axes: the letters of the trained parameters' axes.
        compute: shardings of the trained parameters during the forward and backward pass.
        stored: shardings of the trained parameters in the state.
    """

    model: Seq2Seq
    axes: Any
    compute: Any
    stored: Any

    @property
    def mesh(self) -> jax.sharding.Mesh:
        """The mesh."""
        return jax.tree.leaves(self.stored)[0].mesh

    def gradient(self, config: cfg.Training, state: TrainState, batch: Batch) -> tuple[Any, LossSums]:
        """Return what `accumulate_gradient` does, in float32, with the layout of the state's parameters.

        Each `group` of devices computes the gradient of its rows, and the gradients are summed once, after the last of the `accumulation`
        parts. With `fsdp` this is only done where it is as fast (`Platform.groups_alone`); otherwise the compiler decides.
        """
        only_data = self.mesh.shape["data"] == self.mesh.size
        groups = platform_of(self.mesh).groups_alone and self.mesh.shape["tensor"] == 1  # with `tensor`, XLA's partitioner crashes
        if not (self.model.adds_rows and (only_data or groups)):
            gradient, sums = accumulate_gradient(self.model, config, state, batch)
            return self.scatter(gradient), sums
        model, layouts = self.model.on(group(self.mesh)), jax.tree.map(lambda sharding: sharding.spec, self.stored)
        whole, rows = PartitionSpec(), PartitionSpec("data")
        summed = layouts, LossSums(whole, whole, whole, whole)

        def of_group(state: TrainState, weight: jax.Array, batch: Batch, rows_B: jax.Array) -> tuple[Any, LossSums]:
            gradient, sums = accumulate_gradient(model, config, state, batch, rows_B, weight)
            if only_data:
                return scatter_sums((gradient, sums), summed)
            inner = lambda x, sharding: jax.lax.with_sharding_constraint(x, within_group(sharding.spec))  # noqa: E731
            return jax.tree.map(lambda x: x[None], (jax.tree.map(inner, gradient, self.compute), sums))

        over, outs = (set(self.mesh.axis_names), summed) if only_data else ({"data"}, rows)
        arguments = whole, whole, rows, rows
        on_each = jax.shard_map(of_group, mesh=self.mesh, axis_names=over, in_specs=arguments, out_specs=outs, check_vma=False)
        read = dataclasses.replace(state, opt_state=None, ema=None, start=None)
        gradient, sums = on_each(read, loss_weight(batch), batch, jnp.arange(len(batch["decoder_target_tokens"])))
        if not only_data:  # summed outside of `shard_map`: inside, the compiler gathers the gradients over `fsdp` first
            gradient, sums = jax.tree.map(lambda x: x.sum(0), (gradient, sums))
            gradient = self.shard(gradient)
        return widen(gradient), sums

    def gather(self, params: Any) -> Any:
        """Return the state's parameters as the model reads them. Without the barrier, XLA may gather kernels before it casts them.

        Tables are sent in the computation's dtype and then cast back, so that their gradients are summed in float32.
        """
        read = self.model.cast_kernels(params)
        sent = jax.tree.map(jax.lax.optimization_barrier, self.model.cast_tables(read))
        gathered = jax.tree.map(gather_over_data, sent, self.compute, self.axes)
        return jax.tree.map(lambda x, like: x.astype(like.dtype), gathered, read)

    def scatter(self, gradient: Any) -> Any:
        """Return the float32 gradient with the layout of the state's parameters.

        Without the barrier, XLA for TPUs splits products into pieces to send each one early, which is slower by its own estimate.
        """
        gradient = jax.lax.with_sharding_constraint(gradient, self.compute)
        return self.shard(widen(jax.tree.map(jax.lax.optimization_barrier, gradient)))

    def norm(self, gradient: Any) -> jax.Array:
        """Return the norm of a gradient with the layout of the state's parameters, by one all-reduce of a scalar."""
        layouts, mesh = jax.tree.map(lambda sharding: sharding.spec, self.stored), self.mesh

        def of_device(parts: Any) -> jax.Array:
            shares = jax.tree.map(lambda part, layout: jnp.square(part).sum() / num_replicas(layout, mesh), parts, layouts)
            return jnp.sqrt(jax.lax.psum(sum(jax.tree.leaves(shares)), mesh.axis_names))

        return jax.shard_map(of_device, mesh=mesh, in_specs=(layouts,), out_specs=PartitionSpec(), check_vma=False)(gradient)

    def shard(self, tree: Any) -> Any:
        """Return a tree like the trained parameters with the layout of the state's."""
        return jax.lax.with_sharding_constraint(tree, self.stored)


def train_step(
    model: Seq2Seq,
    optimizer: optax.GradientTransformation,
    config: cfg.Experiment,
    state: TrainState,
    batch: Batch,
    sharded: ShardedUpdate | None = None,
    factors: Any = None,
) -> tuple[TrainState, StepMetrics]:
    """Take one optimizer step on a batch's mean token loss; if the gradient is not finite, change only counters.

    Parameters, optimizer state and EMA keep their dtypes.

    Args:
        sharded: the layouts, if devices along `data` share the update; None: each device updates every parameter that it has.
        factors: what the learning rate of each trained parameter is multiplied by (`tuning.rates`); None: by 1.
    """
    if sharded:
        gradient, sums = sharded.gradient(config.training, dataclasses.replace(state, params=sharded.gather(state.params)), batch)
    else:
        gradient, sums = accumulate_gradient(model, config.training, state, batch)
        gradient = widen(gradient)
    if state.start is not None:  # the gradient of l2 / 2 |params - start|^2
        pull = lambda g, p, start: g + config.init.l2 * (p - start)  # noqa: E731
        gradient = jax.tree.map(pull, gradient, widen(state.params), widen(state.start))
    norm = sharded.norm(gradient) if sharded else optax.tree.norm(gradient)
    finite = jnp.isfinite(norm)
    rate = learning_rate(config.schedule, config.training.steps, state.step) * state.lr_scale

    def update():
        clipped = gradient
        if clip_norm := getattr(config.optimizer, "clip_norm", 0.0):  # a user's own optimizer may clip in its transformation
            clipped = jax.tree.map(lambda g: g * jnp.minimum(1.0, clip_norm / (norm + 1e-9)), gradient)
        updates, opt_state = optimizer.update(clipped, state.opt_state, widen(state.params))
        updates = jax.tree.map(jnp.multiply, updates, factors) if factors else updates
        params = optax.apply_updates(state.params, jax.tree.map(lambda u: rate * u, updates))
        ema = state.ema
        if ema is not None:  # it starts as a plain mean, so that the first parameters are soon forgotten
            decay = jnp.minimum(config.training.ema_decay, (1.0 + state.step) / (10.0 + state.step))
            ema = optax.tree.cast_like(jax.tree.map(lambda a, p: a + (1 - decay) * (p - a), ema, params), ema)
        return params, optax.tree.cast_like(opt_state, state.opt_state), ema

    old = state.params, state.opt_state, state.ema
    if platform_of(model.mesh).branches:
        params, opt_state, ema = jax.lax.cond(finite, update, lambda: old)
    else:
        params, opt_state, ema = jax.tree.map(lambda new, kept: jnp.where(finite, new, kept), update(), old)
    params = sharded.shard(params) if sharded else params
    bad_steps = jnp.where(finite, 0, state.bad_steps + 1)
    metrics = StepMetrics(sums, (batch["encoder_input_tokens"] > 0).sum(), norm, rate, finite, bad_steps)
    changed = dataclasses.replace(state, step=state.step + 1, params=params, opt_state=opt_state, ema=ema, bad_steps=bad_steps)
    return changed, metrics


def accumulate_gradient(
    model: Seq2Seq,
    config: cfg.Training,
    state: TrainState,
    batch: Batch,
    rows_B: jax.Array | None = None,
    weight: jax.Array | None = None,
) -> tuple[Any, LossSums]:
    """Return the trained parameters' gradient of the batch's mean token loss, and the loss sums, computed in `accumulation` parts.

    The mean is weighted: the sum of weight x loss over the batch's tokens, divided by the sum of the weights, or by 1 if that is less. A
    pair of weight 2 counts as the same pair twice. (Marian's `--data-weighting` multiplies too, but divides by the number of tokens.)

    Part j holds rows j, j + parts, j + 2 parts, ...: an equal number of each device's rows. A row's dropout depends on its index in the
    whole batch.

    Args:
        rows_B: the indices of the rows, if they are only a part of the batch.
        weight: what the sum of the losses is divided by; None: the `loss_weight` of these rows.
    """
    parts, rows = config.accumulation, batch["decoder_target_tokens"].shape[0]
    rows_B = jnp.arange(rows) if rows_B is None else rows_B
    weight = loss_weight(batch) if weight is None else weight

    def part_loss(params, part, rows_B):
        noise = DropoutKey.of(config.seed, state.step, rows_B)
        sums = batch_loss(model, state.model_params(params), part, noise, config.label_smoothing)
        return sums.loss / weight, sums

    gradient_of = jax.grad(part_loss, has_aux=True)
    if parts == 1:
        return gradient_of(state.params, batch, rows_B)
    split = lambda x: jnp.moveaxis(x.reshape(rows // parts, parts, *x.shape[1:]), 1, 0)  # noqa: E731

    def body(carry, part):
        return jax.tree.map(jnp.add, carry, gradient_of(state.params, *part)), None

    zeros = (jax.tree.map(jnp.zeros_like, widen(state.params)), LossSums(*(jnp.float32(0),) * 4))
    return jax.lax.scan(body, zeros, (jax.tree.map(split, batch), split(rows_B)))[0]


def loss_weight(batch: Batch) -> jax.Array:
    """Return what the sum of a batch's losses is divided by."""
    return jnp.maximum(batch["decoder_loss_weights"].sum(), 1.0)


def evaluation_program(model: Seq2Seq, label_smoothing: float, mesh: jax.sharding.Mesh) -> Callable[..., LossSums]:
    """Return `(params, batch) -> LossSums`, the loss without dropout, compiled for each shape when it first occurs."""

    def evaluation_step(params, batch: Batch) -> LossSums:
        return batch_loss(model.on(mesh), params, batch, None, label_smoothing)

    return jax.jit(evaluation_step)


def batch_struct(shape: Shape, packed: bool, mesh: jax.sharding.Mesh, task: cfg.Task) -> dict[str, jax.ShapeDtypeStruct]:
    """Return names, shapes and types of a batch's arrays, as `loader.assemble` makes them."""

    def struct(length: int, dtype: type) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((shape.rows, length), dtype, sharding=batch_sharding(mesh))

    source, target = struct(shape.source, np.int32), struct(shape.target, np.int32)
    batch = {"encoder_input_tokens": source, "decoder_input_tokens": target, "decoder_target_tokens": target}
    batch["decoder_loss_weights"] = struct(shape.target, np.float32)
    if isinstance(task, cfg.Captioning):
        vectors = (shape.rows, *task.vector_shape)
        batch["encoder_input_vectors"] = jax.ShapeDtypeStruct(vectors, task.vector_dtype, sharding=batch_sharding(mesh))
    if packed:
        batch |= {"encoder_segment_ids": source, "encoder_positions": source}
        batch |= {"decoder_segment_ids": target, "decoder_positions": target}
    return batch


class TrainPrograms:
    """The training step of a model on a mesh, compiled ahead of time for each shape.

    Attributes:
        abstract: shapes, types and layout of the state.
        step: `(state, batch) -> (state, metrics)`, not compiled yet; the state is donated and keeps its layout.
        seconds: that `compile` took.
    """

    def __init__(self, model: Seq2Seq, config: cfg.Experiment, mesh: jax.sharding.Mesh):
        self._keep_start, axes = config.init.l2 > 0, tuning_of(config.training, model).axes  # first: `on` copies the shapes, once computed
        self._model, self._mesh, self._scanned = model.on(mesh), mesh, is_scanned(config.model)
        self._optimizer, shards = make_optimizer(config.optimizer, axes), mesh.shape["data"] > 1 and is_elementwise(config.optimizer)
        self.abstract = abstract_state(model, self._optimizer, config.training, mesh, shards, self._keep_start)
        trained = self.abstract.params
        sharded = ShardedUpdate(self._model, axes, param_shardings(trained, axes, mesh), shardings_of(trained)) if shards else None
        factors = rates(config.training, trained, axes)
        step = functools.partial(train_step, self._model, self._optimizer, config, sharded=sharded, factors=factors)
        self.step = jax.jit(step, donate_argnums=0, out_shardings=(shardings_of(self.abstract), None))

    @property
    def compiler_options(self) -> dict[str, str]:
        """The compiler's options for the step."""
        return dict(platform_of(self._mesh).step_options) if self._mesh.size > 1 else {}

    def fresh(self, config: cfg.Training, taken: Mapping[str, jax.Array] | None = None) -> TrainState:
        """Return the state before the first step, laid out like `abstract`. For `taken` see `initial_state`."""
        make = functools.partial(initial_state, self._model, self._optimizer, config, scanned=self._scanned, keep_start=self._keep_start)
        return jax.jit(make, out_shardings=shardings_of(self.abstract))(taken)

    def compile(self, shapes: Sequence[Shape], packed: bool) -> list[str]:
        """Trace the step for one shape after the other and compile them side by side. Returns a line for people about each shape.

        Ctrl-C does not wait for a compilation.
        """
        start = time.perf_counter()
        lowered = [self.step.lower(self.abstract, batch_struct(shape, packed, self._mesh, self._model.task)) for shape in shapes]
        pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
        try:
            self._compiled = dict(zip(shapes, pool.map(self._compile, lowered), strict=True))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        self.seconds = time.perf_counter() - start
        return [self._describe(shape) for shape in shapes]

    def _compile(self, lowered: jax.stages.Lowered) -> jax.stages.Compiled:
        try:
            return lowered.compile(self.compiler_options)
        except jax.errors.JaxRuntimeError as error:
            if "No such compile option" not in str(error):
                raise
            return lowered.compile()  # another version of the compiler

    def _describe(self, shape: Shape) -> str:
        memory = self._compiled[shape].memory_analysis()
        size = ""
        if memory is not None:  # None: the compiler does not report it
            size = f", {(memory.argument_size_in_bytes + memory.temp_size_in_bytes) / 2**20:,.0f} MiB on a device"
        return f"  {shape.rows} rows x {shape.source} source x {shape.target} target positions{size}"

    def __call__(self, state: TrainState, shape: Shape, batch: dict[str, jax.Array]) -> tuple[TrainState, StepMetrics]:
        """Take a step. A shape that was not compiled is an error, never a compilation."""
        return self._compiled[shape](state, batch)
