"""The state of training that lives on the devices, and checksums of its arrays."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnmt import config as cfg
from jaxnmt import errors
from jaxnmt.models.layers import at_least_float32, mix
from jaxnmt.models.seq2seq import Seq2Seq
from jaxnmt.parallel.axes import path_name
from jaxnmt.parallel.sharding import param_shardings, replicated, state_shardings

SMALL = 2**26
"""Numbers in a tree below which NumPy computes a checksum sooner than JAX traces and compiles it, which takes half a second."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that a training step reads and writes.

    Attributes:
        step: int32, steps taken.
        params: float32 parameters; those of a user's own model may have any float dtype.
        opt_state: optax's, for float32 parameters: squares of gradients would be lost in float16, and small changes in bfloat16.
        ema: exponential moving average of the parameters, or None; at least float32: what a step adds is lost in fewer bits.
        lr_scale: float32, the factor that the plateau schedule has cut the learning rate by.
        bad_steps: int32, steps in a row that were skipped because their gradient was not finite.
    """

    step: jax.Array
    params: Any
    opt_state: Any
    ema: Any
    lr_scale: jax.Array
    bad_steps: jax.Array

    @property
    def eval_params(self):
        """The parameters that validation and decoding use."""
        return self.params if self.ema is None else optax.tree.cast_like(self.ema, self.params)


def initial_state(model: Seq2Seq, optimizer: optax.GradientTransformation, config: cfg.Training) -> TrainState:
    """Return a fresh state; a pure function of the seed.

    Raises:
        UserError: a parameter is not a float.
    """
    params = model.init(jax.random.key(config.seed))
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise errors.UserError(
                f"the model's parameter {path_name(path)} is {leaf.dtype}, and only floats can be trained: "
                "compute it in the module instead, or give it a float dtype"
            )
    opt_state = optimizer.init(widen(params))
    ema = jax.tree.map(jnp.copy, widen(params)) if config.ema_decay else None
    return TrainState(jnp.int32(0), params, opt_state, ema, lr_scale=jnp.float32(1), bad_steps=jnp.int32(0))


def widen(tree: Any) -> Any:
    """Return a tree of floats in which bfloat16, float16 and narrower ones are float32."""
    return jax.tree.map(lambda x: x.astype(at_least_float32(x.dtype)), tree)


def abstract_state(model: Seq2Seq, optimizer: optax.GradientTransformation, config: cfg.Training, mesh: jax.sharding.Mesh) -> TrainState:
    """Return the state's shapes, types and shardings, without computing it."""
    state = jax.eval_shape(lambda: initial_state(model, optimizer, config))
    like_params = param_shardings(state.params, model.axes, mesh)
    shardings = dataclasses.replace(
        jax.tree.map(lambda _: replicated(mesh), state),
        params=like_params,
        opt_state=state_shardings(state.opt_state, state.params, like_params),
        ema=None if state.ema is None else like_params,
    )
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, shardings)


def shardings_of(tree):
    """Return the shardings of a tree of ShapeDtypeStructs."""
    return jax.tree.map(lambda x: x.sharding, tree)


def checksum(tree: Any) -> int:
    """Return 32 bits that change when any bit of any leaf changes: Orbax does not notice a bit that flips on disk.

    They are computed where the leaves are and are the same on every mesh. Leaves may have any real dtype.
    """
    leaves = jax.tree.leaves(tree)
    if all(_is_plain(leaf) for leaf in leaves) and sum(leaf.size for leaf in leaves) < SMALL:
        return sum(_host_checksum(np.asarray(leaf), number) for number, leaf in enumerate(leaves)) % 2**32
    return int(_checksum(leaves))


def _is_plain(leaf: Any) -> bool:
    """Return whether a leaf has 32-bit numbers that NumPy can read where they lie."""
    is_here = isinstance(leaf, np.ndarray) or [device.platform for device in leaf.sharding.device_set] == ["cpu"]
    return is_here and leaf.dtype.itemsize == 4


def _host_checksum(leaf: np.ndarray, number: int) -> int:
    """Return a leaf's part of `_checksum`."""
    factor = mix(np.arange(leaf.size, dtype=np.uint32) + np.uint32(_start(number))) | np.uint32(1)
    return int((np.ascontiguousarray(leaf).reshape(-1).view(np.uint32) * factor).sum(dtype=np.uint32))


@jax.jit
def _checksum(leaves: list[jax.Array]) -> jax.Array:
    """Return the sum of each word times a factor of its own, as uint32."""
    total = jnp.uint32(0)
    for number, leaf in enumerate(leaves):
        # The place of each number in its leaf, row by row. The leaf keeps its shape, and so its layout on the devices.
        place = jnp.uint32(0)
        for axis, length in enumerate(leaf.shape):
            place = place * jnp.uint32(length) + jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis)
        factor = mix(place + jnp.uint32(_start(number))) | jnp.uint32(1)
        for bits in _words(leaf):
            total += (bits * factor).sum(dtype=jnp.uint32)
            factor = mix(factor) | jnp.uint32(1)
    return total


def _start(number: int) -> int:
    """Return where the numbering of a leaf's factors starts."""
    return number * 0x9E3779B1 % 2**32


def _words(leaf: jax.Array) -> list[jax.Array]:
    """Return the bits of an array as uint32 arrays of its shape: two if its numbers have 64 bits, else one."""
    size = leaf.dtype.itemsize
    if size < 4 and jnp.issubdtype(leaf.dtype, jnp.floating):
        leaf = jax.lax.bitcast_convert_type(leaf, jnp.uint16 if size == 2 else jnp.uint8)
    if size < 4:
        leaf = leaf.astype(jnp.int32 if jnp.issubdtype(leaf.dtype, jnp.signedinteger) else jnp.uint32)
    words = jax.lax.bitcast_convert_type(leaf, jnp.uint32)
    return [words[..., 0], words[..., 1]] if size == 8 else [words]
