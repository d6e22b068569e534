"""Attention: multi-head scaled dot-product (Vaswani et al. 2017, section 3.2), and that of recurrent decoders.

On TPUs and GPUs the former is one kernel where it fits (`fused_attention`). The latter is additive
(Bahdanau et al. 2015), or multiplicative, concatenated, located and windowed (Luong et al. 2015). It takes Q queries of each sentence: one
in a step of a scan, all at once in teacher forcing without feedback, one for each hypothesis of a beam. The source is never repeated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxnmt.models.cache import write
from jaxnmt.models.fused_attention import Mask, fits, fused_attention
from jaxnmt.models.layers import Dense, DropoutKey, Matrix, Projections, at_least_float32, dropout, rotate
from jaxnmt.parallel.axes import declare
from jaxnmt.parallel.platform import platform_of
from jaxnmt.parallel.sharding import constrain

ROWS = 16
"""Smallest number of rows in one part of a batch (`_num_parts`)."""


def attend(
    module: nn.Module, q_BTHK, k, v, mask: Mask | jax.Array, rate: float, noise: DropoutKey | None, mesh: Mesh | None = None, letters="BSHK"
) -> jax.Array:
    """Return softmax(q k / sqrt(K)) v over the keys that the mask lets a query see: (B, T, H, K).

    Scores and softmax are at least float32. The weights are sown as `attention` (B, H, T, S) into the module's intermediates. On a mesh of
    TPUs or GPUs, a fused kernel computes it for a Mask, if it fits and no weights are dropped or asked for. Outputs for padding queries are
    undefined; the caller must mask them.

    Args:
        k, v: keys and values.
        mask: a Mask, or booleans, broadcastable to (B, T, S).
        letters: the axes of k and v.
    """
    q_BTHK = q_BTHK * (1.0 / math.sqrt(q_BTHK.shape[-1]))
    if isinstance(mask, Mask):
        needs_weights = (noise is not None and rate > 0) or module.is_mutable_collection("intermediates")
        lengths = q_BTHK.shape[1], k.shape[letters.index("S")]
        if mesh is not None and not needs_weights and fits(mesh, *lengths, q_BTHK.shape[-1], q_BTHK.dtype):
            k_BSHK, v_BSHK = (jnp.einsum(f"{letters}->BSHK", x) for x in (k, v))
            return fused_attention(q_BTHK, k_BSHK, v_BSHK, mask, mesh)
        mask = mask.dense()

    def of_rows(q_BTHK, k, v, mask, noise: DropoutKey | None) -> tuple[jax.Array, jax.Array]:
        scores_BHTS = jnp.einsum(f"BTHK,{letters}->BHTS", q_BTHK, k, preferred_element_type=at_least_float32(q_BTHK.dtype))
        scores_BHTS = jnp.where(mask[:, None], scores_BHTS, -1e9)
        weights_BHTS = jax.nn.softmax(scores_BHTS, axis=-1).astype(v.dtype)
        dropped_BHTS = dropout(weights_BHTS, rate, noise and noise.fold_in("attention_weights"))
        return jnp.einsum(f"BHTS,{letters}->BTHK", dropped_BHTS, v), weights_BHTS

    parts = _num_parts(q_BTHK.shape[0], mesh) if noise else 1  # decoding already runs several searches in parallel
    split = lambda x: jnp.split(x, parts) if parts > 1 and len(x) > 1 else [x] * parts  # noqa: E731
    noises = [noise._replace(rows_B=rows_B) for rows_B in split(noise.rows_B)] if noise else [None] * parts
    found = [of_rows(*part) for part in zip(*map(split, (q_BTHK, k, v, mask)), noises, strict=True)]
    y_BTHK, weights_BHTS = (jnp.concatenate(each) if parts > 1 else each[0] for each in zip(*found, strict=True))
    module.sow("intermediates", "attention", weights_BHTS)
    return constrain(y_BTHK, "BTHK", mesh)


def _num_parts(rows: int, mesh: Mesh | None) -> int:
    """Return the number of equal parts into which training splits the rows of a batch, for cores to compute attention in parallel."""
    most = platform_of(mesh).attention_parts
    return next(parts for parts in range(most, 0, -1) if parts == 1 or (rows % parts == 0 and rows // parts >= ROWS))


def of_layer(x: jax.Array, layer: jax.Array) -> jax.Array:
    """Return (B, ...), one layer of an array (B, L, ...)."""
    return jax.lax.dynamic_index_in_dim(x, layer, 1, keepdims=False)


def attend_to_cache(q_R1HK, layer: dict[str, jax.Array], visible: jax.Array) -> jax.Array:
    """Return what `attend` does of one query a row and the keys and values of a layer of a `Cache`: (R, 1, H, K).

    Args:
        visible: what `Cache.visible` returns.
    """
    N, dtype = layer["k"].shape[0], at_least_float32(q_R1HK.dtype)
    q_NWHK = q_R1HK.reshape(N, -1, *q_R1HK.shape[2:]) * (1.0 / math.sqrt(q_R1HK.shape[-1]))
    scores_NHWP = jnp.einsum("NWHK,NHKP->NHWP", q_NWHK, layer["k"], preferred_element_type=dtype)
    weights_NHWP = jax.nn.softmax(jnp.where(visible[:, None], scores_NHWP, -1e9), axis=-1)
    return jnp.einsum("NHWP,NHPK->NHWK", weights_NHWP.astype(q_R1HK.dtype), layer["v"]).swapaxes(1, 2).reshape(q_R1HK.shape)


class _Heads(nn.Module):
    """What both kinds of attention have: heads, and the projection of their joined outputs."""

    num_heads: int
    head_dim: int
    width: int
    dropout: float
    mesh: Mesh | None = None

    def setup(self):
        self.out = Dense((self.width,), inputs=2, axes="HKD", mesh=self.mesh)

    def _constrained(self, projected: Sequence[jax.Array], letters: str) -> tuple[jax.Array, ...]:
        """Lay queries, keys or values out on the mesh."""
        return tuple(constrain(x, letters, self.mesh) for x in projected)


class SelfAttention(_Heads):
    """Attention of a sequence to itself; queries, keys and values share one kernel."""

    rotary: bool = False

    def setup(self):
        super().setup()
        self.qkv = Projections((3, self.num_heads, self.head_dim), axes="D3HK", mesh=self.mesh)

    def __call__(self, x_BTD, mask: Mask | jax.Array, positions_BT, noise: DropoutKey | None, cache=None, layer=None):
        """Return (B, T, D), and the cache.

        Args:
            mask: a Mask, or booleans (B, T, T); with a cache what `Cache.visible` returns.
            cache: of a decoder that reads one position at a time, `positions_BT` (B, 1), or (1, 1) if it is the same for all rows: this
                layer's of `Cache.layers`.
            layer: which of the cache's layers this is, if it has those of a stack.
        """
        q, k, v = self._constrained(self.qkv(x_BTD), "BTHK")
        if self.rotary:
            q, k = rotate(q, positions_BT), rotate(k, positions_BT)
        if cache is not None:
            k_NWHK, v_NWHK = (x.reshape(cache["k"].shape[0], -1, *x.shape[2:]) for x in (k, v))
            cache = write(cache, {"k": k_NWHK.transpose(0, 2, 3, 1), "v": v_NWHK.swapaxes(1, 2)}, positions_BT, layer)
            own = cache if layer is None else {name: of_layer(x, layer) for name, x in cache.items()}
            return self.out(attend_to_cache(q, own, mask)), cache
        return self.out(attend(self, q, k, v, mask, self.dropout, noise, self.mesh)), cache


class CrossAttention(_Heads):
    """Attention of a decoder to the encoder's states."""

    def setup(self):
        super().setup()
        self.q = Dense((self.num_heads, self.head_dim), axes="DHK", mesh=self.mesh)
        self.kv = Projections((2, self.num_heads, self.head_dim), axes="D2HK", mesh=self.mesh)

    def project(self, states_BSD):
        """Return keys and values (B, H, K, S) of the encoder's states, computed once for a sentence.

        The layout is that of the products with them: XLA would copy any other at each step of the decoder.
        """
        return tuple(x.transpose(0, 2, 3, 1) for x in self._constrained(self.kv(states_BSD), "BSHK"))

    def __call__(self, x_BTD, keys_values, mask: Mask | jax.Array, noise: DropoutKey | None):
        """Return (rows, T, D). x may have several rows for each row of the memory (adjacent beams); they share its keys and values."""
        k, v = keys_values
        q = constrain(self.q(x_BTD), "BTHK", self.mesh)
        y = attend(self, q.reshape(k.shape[0], -1, *q.shape[2:]), k, v, mask, self.dropout, noise, self.mesh, "BHKS")
        return self.out(y.reshape(q.shape))


# ---- recurrent decoders


class SourceAttention(nn.Module):
    """One form of a recurrent decoder's attention.

    Attributes:
        score: additive (v·tanh(W q + U h), Bahdanau's and Luong's concat), dot, general or location.
        query, states: widths of a query and of an encoder state.
        width: of the space in which additive scores compare them.
        window: positions to each side of the predicted one that are seen (local-p); 0: all.
        coverage: whether an additive score also reads the coverage: the sum of the attention that a source position has had so far.
    """

    score: str
    query: int
    states: int
    width: int
    window: int
    max_positions: int
    dtype: Any
    coverage: bool = False
    mesh: Mesh | None = None

    def setup(self):
        if self.score == "additive":
            self.query_kernel = Matrix((self.query, self.width), "DA")
            self.keys_dense = Dense((self.width,), axes="DA", mesh=self.mesh)
            self.scorer = self.param("scorer", declare(nn.initializers.normal(self.width**-0.5), "A"), (self.width,))
            if self.coverage:
                self.coverage_scorer = self.param("coverage_scorer", declare(nn.initializers.normal(self.width**-0.5), "A"), (self.width,))
        elif self.score == "general":
            self.keys_dense = Dense((self.query,), use_bias=False, axes="DA", mesh=self.mesh)
        elif self.score == "location":
            self.location_kernel = Matrix((self.query, self.max_positions), "DP")
        if self.window:
            self.place_kernel = Matrix((self.query, self.query), "DA")
            self.place_scorer = self.param("place_scorer", declare(nn.initializers.normal(self.query**-0.5), "A"), (self.query,))

    def keys(self, states_BSD: jax.Array) -> jax.Array:
        """Return what queries are compared with, (B, S, A)."""
        return self.keys_dense(states_BSD) if self.score in ("additive", "general") else states_BSD

    def weights(self, keys_BSA: jax.Array, states_BSD: jax.Array, mask_BS: jax.Array) -> dict[str, jax.Array]:
        """Return the arrays that `scores` and `attend` need, for use inside a scan; the mask is true for words."""
        found = {"keys": keys_BSA, "values": states_BSD, "mask": mask_BS}
        if self.score == "additive":
            found |= {"query": self.query_kernel.kernel.astype(self.dtype), "scorer": self.scorer.astype(self.dtype)}
            if self.coverage:
                found["coverage"] = self.coverage_scorer.astype(self.dtype)
        elif self.score == "location":
            found["locations"] = self.location_kernel.kernel.astype(self.dtype)
        if self.window:
            found |= {"place": self.place_kernel.kernel.astype(self.dtype), "place_scorer": self.place_scorer.astype(self.dtype)}
        return found

    def scores(self, weights: dict[str, jax.Array], query_BQD: jax.Array, coverage_BQS: jax.Array | None = None) -> jax.Array:
        """Return the score of each query with each source state, before padding is masked: (B, Q, S), at least float32."""
        if self.score == "additive":  # Bahdanau et al. 2015, section A.1.2
            compared_BQSA = (query_BQD @ weights["query"])[:, :, None] + weights["keys"][:, None]
            if coverage_BQS is not None:  # See et al. 2017, equation 11
                compared_BQSA += coverage_BQS[..., None].astype(compared_BQSA.dtype) * weights["coverage"]
            return _product(jnp.tanh(compared_BQSA), weights["scorer"])
        if self.score != "location":
            keys_BSA = weights["keys"]
            return jnp.einsum("BQA,BSA->BQS", query_BQD, keys_BSA, preferred_element_type=at_least_float32(query_BQD.dtype))
        located, length = _product(query_BQD, weights["locations"]), weights["mask"].shape[-1]
        places_S, reach = jnp.arange(length), located.shape[-1]  # words beyond max_positions are never seen
        return jnp.where(places_S < reach, located[..., jnp.minimum(places_S, reach - 1)], -1e9)

    def attend(
        self, weights: dict[str, jax.Array], query_BQD: jax.Array, coverage_BQS: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Return the context of each query (B, Q, states) and its attention weights (B, Q, S), float32."""
        scores_BQS = self.scores(weights, query_BQD, coverage_BQS)
        seen_BQS = weights["mask"][:, None]
        if self.window:
            length_B1 = weights["mask"].sum(-1, keepdims=True)
            place_BQ = _product(jnp.tanh(query_BQD @ weights["place"]), weights["place_scorer"])
            place_BQ = length_B1 * jax.nn.sigmoid(place_BQ)  # Luong et al. 2015, equation 9
            distance_BQS = jnp.arange(scores_BQS.shape[-1]) - place_BQ[..., None]
            seen_BQS = seen_BQS & (jnp.abs(distance_BQS) <= self.window)
        weights_BQS = jax.nn.softmax(jnp.where(seen_BQS, scores_BQS, -1e9), -1)
        if self.window:
            weights_BQS = weights_BQS * jnp.exp(-2.0 * jnp.square(distance_BQS / self.window))  # equation 10, sigma = window / 2
        return jnp.einsum("BQS,BSD->BQD", weights_BQS.astype(query_BQD.dtype), weights["values"]), weights_BQS


def _product(x: jax.Array, y: jax.Array) -> jax.Array:
    """Multiply to at least float32, so that scores are not rounded before the softmax."""
    return jnp.matmul(x, y, preferred_element_type=at_least_float32(x.dtype))
