"""Reductions over the vocabulary that a CPU computes in whole vectors (`parallel.numbers.reduce_in_parts`)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxnmt.data.special_tokens import BOS, PAD
from jaxnmt.parallel.numbers import PARTS, reduce_in_parts


def without_special(logits: jax.Array) -> jax.Array:
    """Return logits (..., V) with minus infinity at PAD and BOS, which no translation has."""
    first, last = sorted((PAD, BOS))
    nothing = jnp.full((*logits.shape[:-1], last - first + 1), -jnp.inf, logits.dtype)  # PAD and BOS lie side by side
    return jax.lax.dynamic_update_slice_in_dim(logits, nothing, first, axis=-1)


def log_sum_exp(x: jax.Array) -> jax.Array:
    """Return the logarithm of the sum of exponentials of each row of (R, V), (R, 1)."""
    if x.shape[1] < PARTS:
        return jax.nn.logsumexp(x, -1, keepdims=True)
    largest = reduce_in_parts(jnp.maximum, x).max(-1, keepdims=True)
    return largest + jnp.log(reduce_in_parts(jnp.add, x, lambda part: jnp.exp(part - largest)).sum(-1, keepdims=True))


def top_k(x: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """Return the k largest values of each row of (R, V), in descending order, and their columns.

    They are in the last V % PARTS columns, or among those whose maximum over the parts is one of the k largest. Of equal values at the
    k-th place, which ones are found depends on the row alone, and need not be the first.
    """
    R, V = x.shape
    width = V // PARTS
    if width <= k:
        return jax.lax.top_k(x, k)
    chosen_Rk = jnp.sort(jax.lax.top_k(reduce_in_parts(jnp.maximum, x)[:, :width], k)[1], -1)
    columns = (jnp.arange(PARTS)[:, None] * width + chosen_Rk[:, None]).reshape(R, -1)
    columns = jnp.concatenate([columns, jnp.broadcast_to(jnp.arange(PARTS * width, V), (R, V % PARTS))], 1)
    values, best = jax.lax.top_k(jnp.take_along_axis(x, columns, 1, mode="promise_in_bounds"), k)
    return values, jnp.take_along_axis(columns, best, 1)
