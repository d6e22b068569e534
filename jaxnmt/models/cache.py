"""A decoder's keys and values. A beam search moves its hypotheses at each step, and these stay where they were written."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

PLACES = {"k": -1, "v": -2}
"""The axis of the places in keys and in values: the layout of the products with them. XLA would copy any other at each step."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
    """Keys and values of the positions that a decoder has read.

    The W hypotheses of a sentence have one row of N together, and W places for each position. A hypothesis writes into its own place; what
    it reads may be in others, those that it had before the search moved it. So a search moves `places_NWS` alone.

    Attributes:
        layers: {"k": (N, H, K, S * W), "v": (N, H, S * W, K)} of each layer, or of a stack of L layers, with L after N. What place w has
            of position s is at s * W + w.
        places_NWS: int32, the place in which each position of a hypothesis is; None: W is 1.
    """

    layers: Any
    places_NWS: jax.Array | None = None

    @property
    def length(self) -> int:
        """S."""
        if self.places_NWS is not None:
            return self.places_NWS.shape[-1]
        path, x = jax.tree_util.tree_leaves_with_path(self.layers)[0]
        return x.shape[PLACES[path[-1].key]]

    def shared(self, hypotheses: int) -> Cache:
        """Return a cache for this many hypotheses of each row, which begin with the positions of the row."""
        if hypotheses == 1:
            return self
        repeat = lambda path, x: jnp.repeat(x, hypotheses, PLACES[path[-1].key])  # noqa: E731
        places = jnp.zeros((jax.tree.leaves(self.layers)[0].shape[0], hypotheses, self.length), jnp.int32)
        return Cache(jax.tree_util.tree_map_with_path(repeat, self.layers), places)

    def moved(self, parents_NW: jax.Array) -> Cache:
        """Return the shared cache of the hypotheses that continue these ones of their sentences."""
        assert self.places_NWS is not None
        return dataclasses.replace(self, places_NWS=jnp.take_along_axis(self.places_NWS, parents_NW[..., None], 1))

    def written(self, position: jax.Array) -> Cache:
        """Return the cache that says that each hypothesis has this position in its own place."""
        if self.places_NWS is None:
            return self
        N, W, _ = self.places_NWS.shape
        own_NW1 = jnp.broadcast_to(jnp.arange(W, dtype=jnp.int32)[:, None], (N, W, 1))
        places = jax.lax.dynamic_update_slice_in_dim(self.places_NWS, own_NW1, position, 2)
        return dataclasses.replace(self, places_NWS=places)

    def visible(self, position: jax.Array) -> jax.Array:
        """Return which of the keys a hypothesis sees, its own up to this position: booleans (N, W, S * W), or (1, 1, S) if W is 1."""
        read_S = jnp.arange(self.length) <= position
        if self.places_NWS is None:
            return read_S[None, None]
        N, W, _ = self.places_NWS.shape
        return ((self.places_NWS[..., None] == jnp.arange(W)) & read_S[:, None]).reshape(N, W, -1)
