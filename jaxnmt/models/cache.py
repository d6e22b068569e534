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
    """

    layers: Any
    slots_NWS: jax.Array | None = None

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
        return Cache(jax.tree_util.tree_map_with_path(repeat, self.layers), slots)

    def reordered(self, parents_NW: jax.Array) -> Cache:
        """Return the shared cache of the hypotheses that continue these ones of their sentences."""
        return dataclasses.replace(self, slots_NWS=jnp.take_along_axis(self.slots_NWS, parents_NW[..., None], 1))

    def written(self, position: jax.Array) -> Cache:
        """Return the cache whose table says that each hypothesis has this position in its own slot."""
        if self.slots_NWS is None:
            return self
        N, W, _ = self.slots_NWS.shape
        own_NW1 = jnp.broadcast_to(jnp.arange(W, dtype=jnp.int32)[:, None], (N, W, 1))
        slots = jax.lax.dynamic_update_slice_in_dim(self.slots_NWS, own_NW1, position, 2)
        return dataclasses.replace(self, slots_NWS=slots)

    def visible(self, position: jax.Array) -> jax.Array:
        """Return which keys each hypothesis sees, its own up to this position: booleans (N, W, S * W), or (1, 1, S) if W is 1."""
        read_S = jnp.arange(self.length) <= position
        if self.slots_NWS is None:
            return read_S[None, None]
        N, W, _ = self.slots_NWS.shape
        return ((self.slots_NWS[..., None] == jnp.arange(W)) & read_S[:, None]).reshape(N, W, -1)


def with_hypotheses(carry: Any, hypotheses: int, is_beam: bool) -> Any:
    """Return a decoder's carry for this many hypotheses of each sentence, from one with a row for each sentence.

    Args:
        is_beam: whether a search reorders the hypotheses. If not, each has a cache of its own, as have those of a beam above `MAX_SHARED`.
    """
    share = is_beam and hypotheses <= MAX_SHARED
    widen = lambda x: x.shared(hypotheses) if isinstance(x, Cache) else jnp.repeat(x, hypotheses, 0)  # noqa: E731
    return jax.tree.map(widen, carry, is_leaf=lambda x: share and isinstance(x, Cache))


def reordered(carry: Any, parents_BW: jax.Array) -> Any:
    """Return the carry of the hypotheses that continue these ones of their sentences."""
    B, W = parents_BW.shape
    rows_R = (jnp.arange(B)[:, None] * W + parents_BW).reshape(-1)
    reorder = lambda x: x.reordered(parents_BW) if isinstance(x, Cache) else x[rows_R]  # noqa: E731
    return jax.tree.map(reorder, carry, is_leaf=lambda x: isinstance(x, Cache) and x.slots_NWS is not None)
