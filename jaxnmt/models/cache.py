"""A decoder's key-value cache in a beam search, which reorders hypotheses at each step and moves no keys and values."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

MAX_SHARED = 10
"""The largest number of hypotheses that share a cache. Attention multiplies by the keys of all of them; with 20, copies are faster."""
SLOT_AXIS = {"k": -1, "v": -2}
"""The axis of the slots in keys and in values. It suits the products with them: XLA would copy any other layout at each step."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
    """Keys and values of the positions that a decoder has read.

    The W hypotheses of a sentence share one of N rows, which has W slots for each position. Hypothesis w writes into slot w. When a search
    reorders the hypotheses, the slots of their earlier positions stay: only `slots_NWS` is reordered.

    Attributes:
        layers: {"k": (N, H, K, S * W), "v": (N, H, S * W, K)} of each layer, or of a stack of L layers, with L after N. Slot w of position
            s is at s * W + w.
        slots_NWS: int32, the slot of each position of each hypothesis; None: W is 1.
        aligned: whether all rows are at the same position. If not, each row is written at its own.
    """

    layers: Any
    slots_NWS: jax.Array | None = None
    aligned: bool = dataclasses.field(default=True, metadata={"static": True})

    @property
    def length(self) -> int:
        """S."""
        if self.slots_NWS is not None:
            return self.slots_NWS.shape[-1]
        path, x = jax.tree_util.tree_leaves_with_path(self.layers)[0]
        return x.shape[SLOT_AXIS[path[-1].key]]

    def shared(self, hypotheses: int) -> Cache:
        """Return a cache with this many slots, filled with what the only slot of each position has."""
        if hypotheses == 1:
            return self
        repeat = lambda path, x: jnp.repeat(x, hypotheses, SLOT_AXIS[path[-1].key])  # noqa: E731
        slots = jnp.zeros((jax.tree.leaves(self.layers)[0].shape[0], hypotheses, self.length), jnp.int32)
        return dataclasses.replace(self, layers=jax.tree_util.tree_map_with_path(repeat, self.layers), slots_NWS=slots)

    def reordered(self, parents_NW: jax.Array) -> Cache:
        """Return the shared cache of the hypotheses that continue these ones of their sentences."""
        return dataclasses.replace(self, slots_NWS=jnp.take_along_axis(self.slots_NWS, parents_NW[..., None], 1))

    def written(self, positions_R: jax.Array) -> Cache:
        """Return the cache whose table says that each hypothesis has its position in its own slot."""
        if self.slots_NWS is None:
            return self
        N, W, _ = self.slots_NWS.shape
        own_W1 = jnp.arange(W, dtype=jnp.int32)[:, None]
        if self.aligned:
            own_NW1 = jnp.broadcast_to(own_W1, (N, W, 1))
            slots = jax.lax.dynamic_update_slice_in_dim(self.slots_NWS, own_NW1, positions_R[0], 2)
        else:
            is_new_N1S = jnp.arange(self.length) == positions_R.reshape(N, W)[:, :1, None]
            slots = jnp.where(is_new_N1S, own_W1, self.slots_NWS)
        return dataclasses.replace(self, slots_NWS=slots)

    def visible(self, positions_R: jax.Array) -> jax.Array:
        """Return which keys each hypothesis sees, its own up to its position: booleans (N, W, S * W), or (N or 1, 1, S) if W is 1."""
        W = 1 if self.slots_NWS is None else self.slots_NWS.shape[1]
        last_N1 = positions_R.reshape(-1, W)[: 1 if self.aligned else None, :1]
        read_NS = jnp.arange(self.length) <= last_N1
        if self.slots_NWS is None:
            return read_NS[:, None]
        return ((self.slots_NWS[..., None] == jnp.arange(W)) & read_NS[:, None, :, None]).reshape(*self.slots_NWS.shape[:2], -1)


def write(layers: dict[str, jax.Array], new: dict[str, jax.Array], positions_B1: jax.Array, layer: jax.Array | None = None) -> Any:
    """Return the keys and values of a layer with new ones, {"k": (N, H, K, W), "v": (N, H, W, K)}, at their positions.

    Args:
        positions_B1: of the N * W hypotheses; (1, 1): all have the same.
        layer: which one it is, if `layers` has those of a stack.
    """
    return {name: _write(old, new[name], SLOT_AXIS[name], positions_B1, layer) for name, old in layers.items()}


def _write(old: jax.Array, new: jax.Array, axis: int, positions_B1: jax.Array, layer: jax.Array | None) -> jax.Array:
    new = new if layer is None else new[:, None]

    def put(old: jax.Array, new: jax.Array, row: int | jax.Array, position: jax.Array) -> jax.Array:
        starts = [jnp.zeros_like(position)] * old.ndim
        starts[0], starts[axis] = jnp.asarray(row, position.dtype), position * new.shape[axis]
        if layer is not None:
            starts[1] = layer.astype(position.dtype)
        return jax.lax.dynamic_update_slice(old, new, starts)

    if positions_B1.shape[0] == 1:
        return put(old, new, 0, positions_B1[0, 0])
    positions_N = positions_B1.reshape(old.shape[0], -1)[:, 0]
    put_row = lambda n, x: put(x, jax.lax.dynamic_slice_in_dim(new, n, 1), n, positions_N[n])  # noqa: E731
    return jax.lax.fori_loop(0, old.shape[0], put_row, old)  # on a CPU, a scatter takes twice its time


def with_hypotheses(carry: Any, hypotheses: int, is_beam: bool, aligned: bool = True) -> Any:
    """Return a decoder's carry for this many hypotheses of each sentence, from one with a row for each sentence.

    Args:
        is_beam: whether a search reorders the hypotheses. If not, each has a cache of its own, as have those of a beam above `MAX_SHARED`.
        aligned: see `Cache`.
    """
    share = is_beam and hypotheses <= MAX_SHARED

    def widen(x: Any) -> Any:
        if not isinstance(x, Cache):
            return jnp.repeat(x, hypotheses, 0)
        x = x.shared(hypotheses) if share else jax.tree.map(widen, x)
        return dataclasses.replace(x, aligned=aligned)

    return jax.tree.map(widen, carry, is_leaf=lambda x: isinstance(x, Cache))


def reordered(carry: Any, parents_BW: jax.Array) -> Any:
    """Return the carry of the hypotheses that continue these ones of their sentences."""
    B, W = parents_BW.shape
    rows_R = (jnp.arange(B)[:, None] * W + parents_BW).reshape(-1)
    reorder = lambda x: x.reordered(parents_BW) if isinstance(x, Cache) else x[rows_R]  # noqa: E731
    return jax.tree.map(reorder, carry, is_leaf=lambda x: isinstance(x, Cache) and x.slots_NWS is not None)
