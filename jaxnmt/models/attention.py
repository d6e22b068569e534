"""Multi-head scaled dot-product attention (Vaswani et al. 2017, section 3.2)."""

from __future__ import annotations

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxnmt.models import fused
from jaxnmt.models.layers import Dense, DropoutKey, at_least_float32, dropout, rotate
from jaxnmt.parallel.sharding import constrain


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mask:
    """Which keys a query sees: as a boolean array, and as the rule that made it, which is all that a fused kernel needs.

    Attributes:
        dense_BTS: boolean, broadcastable.
        query_segments_BT, key_segments_BS: int32; a query sees only the keys of its own segment.
        causal: whether a query sees no key after its own position.
    """

    dense_BTS: jax.Array
    query_segments_BT: jax.Array
    key_segments_BS: jax.Array
    causal: bool = dataclasses.field(default=False, metadata={"static": True})


def attend(
    module: nn.Module, q_BTHK, k_BSHK, v_BSHK, mask: Mask | jax.Array, rate: float, noise: DropoutKey | None, mesh: Mesh | None = None
) -> jax.Array:
    """Return `dot_product_attention`; on TPUs by a fused kernel, unless weights are dropped or asked for, which the kernel never holds."""
    if isinstance(mask, Mask):
        needs_weights = (noise is not None and rate > 0) or module.is_mutable_collection("intermediates")
        if not needs_weights and fused.fits(q_BTHK, k_BSHK, mesh):
            return fused.attend(q_BTHK, k_BSHK, v_BSHK, mask.query_segments_BT, mask.key_segments_BS, mask.causal, mesh)
        mask = mask.dense_BTS
    return dot_product_attention(module, q_BTHK, k_BSHK, v_BSHK, mask, rate, noise, mesh)


def dot_product_attention(
    module: nn.Module, q_BTHK, k_BSHK, v_BSHK, mask_BTS, rate: float, noise: DropoutKey | None, mesh: Mesh | None = None
) -> jax.Array:
    """Return softmax(q k / sqrt(K)) v over the keys for which the mask (boolean, broadcastable) is true: (B, T, H, K).

    Scores and softmax are at least float32. The weights are sown as `attention` (B, H, T, S) into the module's intermediates.
    """
    q_BTHK = q_BTHK * (1.0 / math.sqrt(q_BTHK.shape[-1]))
    scores_BHTS = jnp.einsum("BTHK,BSHK->BHTS", q_BTHK, k_BSHK, preferred_element_type=at_least_float32(q_BTHK.dtype))
    scores_BHTS = jnp.where(mask_BTS[:, None], scores_BHTS, -1e9)
    weights_BHTS = jax.nn.softmax(scores_BHTS, axis=-1).astype(v_BSHK.dtype)
    module.sow("intermediates", "attention", weights_BHTS)
    weights_BHTS = dropout(weights_BHTS, rate, noise and noise.fold_in("attention_weights"))
    return constrain(jnp.einsum("BHTS,BSHK->BTHK", weights_BHTS, v_BSHK), "BTHK", mesh)


class SelfAttention(nn.Module):
    """Attention of a sequence to itself; queries, keys and values are one matrix product."""

    num_heads: int
    head_dim: int
    width: int
    dropout: float
    rotary: bool
    mesh: Mesh | None = None

    def setup(self):
        self.qkv = Dense((3, self.num_heads, self.head_dim), axes="D3HK", mesh=self.mesh)
        self.out = Dense((self.width,), inputs=2, axes="HKD", mesh=self.mesh)

    def _project(self, x_BTD, positions_BT):
        q, k, v = (constrain(y.squeeze(-3), "BTHK", self.mesh) for y in jnp.split(self.qkv(x_BTD), 3, -3))
        return (rotate(q, positions_BT), rotate(k, positions_BT), v) if self.rotary else (q, k, v)

    def __call__(self, x_BTD, mask: Mask | jax.Array, positions_BT, noise: DropoutKey | None):
        """Return (B, T, D); `mask` is a Mask, or booleans (B, T, T)."""
        q, k, v = self._project(x_BTD, positions_BT)
        return self.out(attend(self, q, k, v, mask, self.dropout, noise, self.mesh))

    def step(self, x_BD, cache, position):
        """Attend from one position of a decoder to it and those before it.

        Args:
            cache: {"k", "v"}, (B, T, H, K) each, filled before `position`.
            position: int32 scalar.

        Returns:
            (B, D), and the cache with this position's keys and values.
        """
        x_B1D = x_BD[:, None]
        q, k, v = self._project(x_B1D, jnp.full((x_BD.shape[0], 1), position, jnp.int32))
        cache = {name: jax.lax.dynamic_update_slice_in_dim(cache[name], y, position, axis=1) for name, y in (("k", k), ("v", v))}
        seen_11T = (jnp.arange(cache["k"].shape[1]) <= position)[None, None]
        return self.out(dot_product_attention(self, q, cache["k"], cache["v"], seen_11T, 0.0, None, self.mesh))[:, 0], cache


class CrossAttention(nn.Module):
    """Attention of a decoder to the encoder's states."""

    num_heads: int
    head_dim: int
    width: int
    dropout: float
    mesh: Mesh | None = None

    def setup(self):
        self.q = Dense((self.num_heads, self.head_dim), axes="DHK", mesh=self.mesh)
        self.kv = Dense((2, self.num_heads, self.head_dim), axes="D2HK", mesh=self.mesh)
        self.out = Dense((self.width,), inputs=2, axes="HKD", mesh=self.mesh)

    def project(self, states_BSD):
        """Return keys and values (B, S, H, K) of the encoder's states, computed once for a sentence."""
        k, v = (constrain(y.squeeze(-3), "BSHK", self.mesh) for y in jnp.split(self.kv(states_BSD), 2, -3))
        return k, v

    def __call__(self, x_BTD, keys_values, mask: Mask | jax.Array, noise: DropoutKey | None):
        """Return (rows, T, D). x may have several rows for each row of the memory (adjacent beams); they share its keys and values."""
        k, v = keys_values
        rows, beams = k.shape[0], x_BTD.shape[0] // k.shape[0]
        q = constrain(self.q(x_BTD), "BTHK", self.mesh)
        if beams == 1:
            return self.out(attend(self, q, k, v, mask, self.dropout, noise, self.mesh))
        q = q.reshape(rows, beams * q.shape[1], *q.shape[2:])
        dense = mask.dense_BTS if isinstance(mask, Mask) else mask
        y = dot_product_attention(self, q, k, v, dense, self.dropout, noise, self.mesh)
        return self.out(y.reshape(rows * beams, -1, *y.shape[2:]))
