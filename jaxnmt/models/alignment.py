"""How a recurrent decoder looks at the source: additive attention (Bahdanau et al. 2015) and multiplicative, concatenated, located and
windowed attention (Luong et al. 2015).

Written over Q queries of each sentence: the steps of a scan ask one at a time, teacher forcing without feedback all at once, a
beam one for each hypothesis; the source is never repeated. Letters: B sentences, Q queries, S source, D a query's width, A the scorer's.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnmt.models.layers import Dense
from jaxnmt.models.recurrence import Product

SPECS = {
    "query": "bqd,da->bqa",
    "place": "bqd,da->bqa",
    "locations": "bqd,ds->bqs",
    "keys": "bqa,bsa->bqs",
    "values": "bqs,bsd->bqd",
}
"""Products of an attention, for `scan_products`."""


class Matrix(nn.Module):
    """A kernel that others multiply."""

    shape: tuple[int, int]

    @nn.compact
    def __call__(self, dtype) -> jax.Array:
        return self.param("kernel", nn.initializers.glorot_uniform(), self.shape).astype(dtype)


class SourceAttention(nn.Module):
    """The parameters of one form of attention, and what it prepares once for a sentence.

    `score`: additive (v·tanh(W q + U h), Bahdanau's, and Luong's concat), dot, general, or location.
    """

    score: str
    query: int
    states: int
    width: int
    window: int
    max_positions: int
    dtype: Any

    def setup(self):
        if self.score == "additive":
            self.query_kernel = Matrix((self.query, self.width))
            self.keys_dense = Dense((self.width,))
            self.scorer = self.param("scorer", nn.initializers.normal(self.width**-0.5), (self.width,))
        elif self.score == "general":
            self.keys_dense = Dense((self.query,), use_bias=False)
        elif self.score == "location":
            self.location_kernel = Matrix((self.query, self.max_positions))
        if self.window:
            self.place_kernel = Matrix((self.query, self.query))
            self.place_scorer = self.param("place_scorer", nn.initializers.normal(self.query**-0.5), (self.query,))

    def keys(self, states_BSD: jax.Array) -> jax.Array:
        """What queries are compared with, (B, S, A): computed once for a sentence."""
        return self.keys_dense(states_BSD) if self.score in ("additive", "general") else states_BSD

    def factors(self, keys_BSA: jax.Array, states_BSD: jax.Array) -> dict[str, jax.Array]:
        """What `attend` multiplies by, under the names of `SPECS`."""
        found = {"values": states_BSD}
        if self.score == "additive":
            found["query"] = self.query_kernel(self.dtype)
        elif self.score == "location":
            found["locations"] = self.location_kernel(self.dtype)
        else:
            found["keys"] = keys_BSA
        return found | ({"place": self.place_kernel(self.dtype)} if self.window else {})

    def shared(self, keys_BSA: jax.Array, mask_BS: jax.Array) -> dict[str, jax.Array]:
        """The rest of what `attend` needs; the mask is true where a word is."""
        found = {"mask": mask_BS}
        if self.score == "additive":
            found |= {"keys": keys_BSA, "scorer": self.scorer.astype(self.dtype)}
        return found | ({"place_scorer": self.place_scorer.astype(self.dtype)} if self.window else {})


def attend(form: SourceAttention, product: Product, shared: dict[str, jax.Array], query_BQD: jax.Array) -> tuple[jax.Array, jax.Array]:
    """-> the context of each query (B, Q, states), and its weights (B, Q, S), float32; of `form` only the fields are read."""
    scores_BQS = _scores(form, product, shared, query_BQD).astype(jnp.float32)
    seen_BQS = shared["mask"][:, None]
    if form.window:
        length_B1 = shared["mask"].sum(-1, keepdims=True)
        place = jnp.tanh(product("place", query_BQD)) @ shared["place_scorer"]
        place_BQ = length_B1 * jax.nn.sigmoid(place.astype(jnp.float32))  # Luong et al. 2015, equation 9
        distance_BQS = jnp.arange(scores_BQS.shape[-1]) - place_BQ[..., None]
        seen_BQS = seen_BQS & (jnp.abs(distance_BQS) <= form.window)
    weights_BQS = jax.nn.softmax(jnp.where(seen_BQS, scores_BQS, -1e9), -1)
    if form.window:
        weights_BQS = weights_BQS * jnp.exp(-2.0 * jnp.square(distance_BQS / form.window))  # equation 10, sigma = window / 2
    return product("values", weights_BQS.astype(query_BQD.dtype)), weights_BQS


def _scores(form: SourceAttention, product: Product, shared: dict[str, jax.Array], query_BQD: jax.Array) -> jax.Array:
    if form.score == "additive":  # Bahdanau et al. 2015, section A.1.2
        return jnp.tanh(product("query", query_BQD)[:, :, None] + shared["keys"][:, None]) @ shared["scorer"]
    if form.score != "location":
        return product("keys", query_BQD)
    scores, length = product("locations", query_BQD), shared["mask"].shape[-1]
    missing = max(0, length - form.max_positions)  # words too far on are never looked at
    return jnp.pad(scores[..., :length], ((0, 0), (0, 0), (0, missing)), constant_values=-1e9)
