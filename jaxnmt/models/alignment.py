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

from jaxnmt.models.layers import Dense, at_least_float32


class Matrix(nn.Module):
    """A kernel that others multiply by."""

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

    def weights(self, keys_BSA: jax.Array, states_BSD: jax.Array, mask_BS: jax.Array) -> dict[str, jax.Array]:
        """What `attend` works with, as arrays that a scan's step can use; the mask is true where a word is."""
        found = {"keys": keys_BSA, "values": states_BSD, "mask": mask_BS}
        if self.score == "additive":
            found |= {"query": self.query_kernel(self.dtype), "scorer": self.scorer.astype(self.dtype)}
        elif self.score == "location":
            found["locations"] = self.location_kernel(self.dtype)
        if self.window:
            found |= {"place": self.place_kernel(self.dtype), "place_scorer": self.place_scorer.astype(self.dtype)}
        return found


def attend(score: str, window: int, weights: dict[str, jax.Array], query_BQD: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the context of each query (B, Q, states) and its attention weights (B, Q, S), float32."""
    scores_BQS = scores(score, weights, query_BQD)
    seen_BQS = weights["mask"][:, None]
    if window:
        length_B1 = weights["mask"].sum(-1, keepdims=True)
        place_BQ = _product(jnp.tanh(query_BQD @ weights["place"]), weights["place_scorer"])
        place_BQ = length_B1 * jax.nn.sigmoid(place_BQ)  # Luong et al. 2015, equation 9
        distance_BQS = jnp.arange(scores_BQS.shape[-1]) - place_BQ[..., None]
        seen_BQS = seen_BQS & (jnp.abs(distance_BQS) <= window)
    shares_BQS = jax.nn.softmax(jnp.where(seen_BQS, scores_BQS, -1e9), -1)
    if window:
        shares_BQS = shares_BQS * jnp.exp(-2.0 * jnp.square(distance_BQS / window))  # equation 10, sigma = window / 2
    return jnp.einsum("BQS,BSD->BQD", shares_BQS.astype(query_BQD.dtype), weights["values"]), shares_BQS


def scores(score: str, weights: dict[str, jax.Array], query_BQD: jax.Array) -> jax.Array:
    """Return how well each query and each source state go together, before padding is masked: (B, Q, S), float32."""
    if score == "additive":  # Bahdanau et al. 2015, section A.1.2
        return _product(jnp.tanh((query_BQD @ weights["query"])[:, :, None] + weights["keys"][:, None]), weights["scorer"])
    if score != "location":
        keys_BSA = weights["keys"]
        return jnp.einsum("BQA,BSA->BQS", query_BQD, keys_BSA, preferred_element_type=at_least_float32(query_BQD.dtype))
    located, length = _product(query_BQD, weights["locations"]), weights["mask"].shape[-1]
    missing = max(0, length - located.shape[-1])  # words too far on are never looked at
    return jnp.pad(located[..., :length], ((0, 0), (0, 0), (0, missing)), constant_values=-1e9)


def _product(x: jax.Array, y: jax.Array) -> jax.Array:
    """Multiply to at least float32: scores that were rounded to bfloat16 would be rounded before the softmax."""
    return jnp.matmul(x, y, preferred_element_type=at_least_float32(x.dtype))
