"""The state of training that lives on the devices."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxnmt import config as cfg
from jaxnmt import errors
from jaxnmt.models.parameters import stack_layers, unstack_layers
from jaxnmt.models.seq2seq import Seq2Seq
from jaxnmt.parallel.axes import path_name
from jaxnmt.parallel.numbers import at_least_float32
from jaxnmt.parallel.sharding import param_shardings, replicated, shard_over_data, state_shardings
from jaxnmt.training.lora import adapted
from jaxnmt.training.tuning import join, split, tuning_of


class Rows(NamedTuple):
    """Some rows of a table of embeddings (V, D), or some numbers of a bias (V,).

    Attributes:
        values: (V, D) or (V,).
        known: bool (V,), which rows have a value.
    """

    values: jax.Array
    known: jax.Array

    @property
    def size(self) -> int:
        """The number of numbers that are known."""
        return int(self.known.sum()) * math.prod(self.values.shape[1:])

    def over(self, table: jax.Array) -> jax.Array:
        """Return a table with these rows instead of its own."""
        return jnp.where(self.known.reshape(-1, *[1] * (table.ndim - 1)), self.values.astype(table.dtype), table)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that a training step reads and writes.

    Attributes:
        step: int32, steps taken.
        params: float32 parameters that are trained; those of a user's own model may have any float dtype.
        opt_state: optax's, for float32 parameters: squares of gradients would be lost in float16, and small changes in bfloat16.
        ema: exponential moving average of the parameters, or None; at least float32: what a step adds is lost in fewer bits.
        lr_scale: float32, the factor that the plateau schedule has cut the learning rate by.
        bad_steps: int32, steps in a row that were skipped because their gradient was not finite.
        frozen: the model's other parameters, which no step changes; None: all are trained. With adapters (`lora.py`): all of the model's.
        start: the trained parameters before the first step, if `init.l2` is above 0; otherwise None.
        scale: what the products of adapters are multiplied by; 0: there are no adapters.
    """

    step: jax.Array
    params: Any
    opt_state: Any
    ema: Any
    lr_scale: jax.Array
    bad_steps: jax.Array
    frozen: Any = None
    start: Any = None
    scale: float = dataclasses.field(default=0.0, metadata={"static": True})

    def model_params(self, trained: Any) -> Any:
        """Return the model's parameters that go with values of the trained ones."""
        if self.frozen is None:
            return trained
        return adapted(self.frozen, trained, self.scale) if self.scale else join(self.frozen, trained)

    @property
    def eval_params(self):
        """The parameters that validation and decoding use, those of the model."""
        return self.model_params(self.params if self.ema is None else optax.tree.cast_like(self.ema, self.params))


def initial_state(
    model: Seq2Seq,
    optimizer: optax.GradientTransformation,
    config: cfg.Training,
    taken: Any = None,
    scanned: bool = False,
    keep_start: bool = False,
) -> TrainState:
    """Return a fresh state; a pure function of the seed and of `taken`.

    Args:
        taken: {path: value, or `Rows` of it} of some parameters, layers one by one; the others are random.
        scanned: whether the model's layers are stacked.
        keep_start: keep the trained parameters as `TrainState.start`, too.

    Raises:
        UserError: a parameter is not a float.
    """
    params = model.init(jax.random.key(config.seed))
    if taken:
        flat = unstack_layers(params) if scanned else params

        def value(path: Any, x: jax.Array) -> jax.Array:
            found = taken.get(path_name(path))
            if found is None:
                return x
            # A copy: donating buffers that came from the checkpoint reader is not safe on CPU.
            return found.over(x) if isinstance(found, Rows) else jnp.copy(found).astype(x.dtype)

        flat = jax.tree_util.tree_map_with_path(value, flat)
        params = stack_layers(flat) if scanned else flat
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise errors.UserError(
                f"the model's parameter {path_name(path)} is {leaf.dtype}, and only floats can be trained: "
                "compute it in the module instead, or give it a float dtype"
            )
    tuning = tuning_of(config, model)
    trained, frozen = split(params, tuning, model, config)
    opt_state = optimizer.init(widen(trained))
    ema = jax.tree.map(jnp.copy, widen(trained)) if config.ema_decay else None
    start = jax.tree.map(jnp.copy, trained) if keep_start else None
    return TrainState(jnp.int32(0), trained, opt_state, ema, jnp.float32(1), jnp.int32(0), frozen, start, tuning.scale)


def widen(tree: Any) -> Any:
    """Return a tree of floats in which bfloat16, float16 and narrower ones are float32."""
    return jax.tree.map(lambda x: x.astype(at_least_float32(x.dtype)), tree)


def abstract_state(
    model: Seq2Seq,
    optimizer: optax.GradientTransformation,
    config: cfg.Training,
    mesh: jax.sharding.Mesh,
    shards_update: bool = False,
    keep_start: bool = False,
) -> TrainState:
    """Return the state's shapes, types and shardings, without computing it.

    Args:
        shards_update: trained parameters, optimizer state and EMA are sharded over `data` too, so that each device updates its shard
            (ZeRO, Rajbhandari et al. 2020). Otherwise they are replicated along `data`, as frozen parameters always are.
        keep_start: as `initial_state` takes it.
    """
    tuning = tuning_of(config, model)
    state = jax.eval_shape(lambda: initial_state(model, optimizer, config, keep_start=keep_start))
    like_params = param_shardings(state.params, tuning.axes, mesh)
    if shards_update:
        over_data = lambda sharding, x, axes: shard_over_data(sharding, x.shape, axes)  # noqa: E731
        like_params = jax.tree.map(over_data, like_params, state.params, tuning.axes)
    shardings = dataclasses.replace(
        jax.tree.map(lambda _: replicated(mesh), state),
        params=like_params,
        opt_state=state_shardings(state.opt_state, state.params, like_params),
        ema=None if state.ema is None else like_params,
        frozen=None if state.frozen is None else param_shardings(state.frozen, tuning.frozen, mesh),
        start=None if state.start is None else like_params,
    )
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, shardings)


def shardings_of(tree):
    """Return the shardings of a tree of ShapeDtypeStructs."""
    return jax.tree.map(lambda x: x.sharding, tree)
