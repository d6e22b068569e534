"""Attention of a recurrent decoder to the source: additive (Bahdanau et al. 2015), and multiplicative, concatenated, located and windowed
(Luong et al. 2015).

All functions take Q queries of each sentence: one in a step of a scan, all at once in teacher forcing without feedback, one for each
hypothesis of a beam. The source is never repeated.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnmt.models.layers import Dense, at_least_float32
from jaxnmt.parallel.axes import declare


class Matrix(nn.Module):
    """A kernel for others to multiply by."""

    shape: tuple[int, int]
    axes: str

    @nn.compact
    def __call__(self, dtype) -> jax.Array:
        return self.param("kernel", declare(nn.initializers.glorot_uniform(), self.axes), self.shape).astype(dtype)


class SourceAttention(nn.Module):
    """The parameters of one form of attention, and what it computes once for a sentence.

    Attributes:
        score: additive (v·tanh(W q + U h), Bahdanau's and Luong's concat), dot, general or location.
        query, states: widths of a query and of an encoder state.
        width: of the space in which additive scores compare them.
        window: positions to each side of the predicted one that are seen (local-p); 0: all.
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
            self.query_kernel = Matrix((self.query, self.width), "DA")
            self.keys_dense = Dense((self.width,), axes="DA")
            self.scorer = self.param("scorer", declare(nn.initializers.normal(self.width**-0.5), "A"), (self.width,))
        elif self.score == "general":
            self.keys_dense = Dense((self.query,), use_bias=False, axes="DA")
        elif self.score == "location":
            self.location_kernel = Matrix((self.query, self.max_positions), "DP")
        if self.window:
            self.place_kernel = Matrix((self.query, self.query), "DA")
            self.place_scorer = self.param("place_scorer", declare(nn.initializers.normal(self.query**-0.5), "A"), (self.query,))

    def keys(self, states_BSD: jax.Array) -> jax.Array:
        """Return what queries are compared with, (B, S, A)."""
        return self.keys_dense(states_BSD) if self.score in ("additive", "general") else states_BSD

    def weights(self, keys_BSA: jax.Array, states_BSD: jax.Array, mask_BS: jax.Array) -> dict[str, jax.Array]:
        """Return the arrays that `attend` needs, for use inside a scan; the mask is true for words."""
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
    weights_BQS = jax.nn.softmax(jnp.where(seen_BQS, scores_BQS, -1e9), -1)
    if window:
        weights_BQS = weights_BQS * jnp.exp(-2.0 * jnp.square(distance_BQS / window))  # equation 10, sigma = window / 2
    return jnp.einsum("BQS,BSD->BQD", weights_BQS.astype(query_BQD.dtype), weights["values"]), weights_BQS


def scores(score: str, weights: dict[str, jax.Array], query_BQD: jax.Array) -> jax.Array:
    """Return the score of each query with each source state, before padding is masked: (B, Q, S), at least float32."""
    if score == "additive":  # Bahdanau et al. 2015, section A.1.2
        return _product(jnp.tanh((query_BQD @ weights["query"])[:, :, None] + weights["keys"][:, None]), weights["scorer"])
    if score != "location":
        keys_BSA = weights["keys"]
        return jnp.einsum("BQA,BSA->BQS", query_BQD, keys_BSA, preferred_element_type=at_least_float32(query_BQD.dtype))
    located, length = _product(query_BQD, weights["locations"]), weights["mask"].shape[-1]
    missing = max(0, length - located.shape[-1])  # words beyond max_positions are never seen
    return jnp.pad(located[..., :length], ((0, 0), (0, 0), (0, missing)), constant_values=-1e9)


def _product(x: jax.Array, y: jax.Array) -> jax.Array:
    """Multiply to at least float32, so that scores are not rounded before the softmax."""
    return jnp.matmul(x, y, preferred_element_type=at_least_float32(x.dtype))
