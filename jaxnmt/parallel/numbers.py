"""A hash of numbers, the type in which sums are computed, and reductions that a CPU computes in whole vectors. No flax here."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

PARTS = 16


def at_least_float32(dtype) -> jnp.dtype:
    """Return the type for sums, softmax and loss of numbers of `dtype`: float32, or `dtype` if that is wider."""
    return jnp.promote_types(dtype, jnp.float32)


def mix(x: Any) -> Any:
    """Hash uint32, NumPy's or JAX's, by a bijection in which every input bit moves every output bit (xor-shift and multiply, twice)."""
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)


def combined(combine: Callable[..., jax.Array], x: jax.Array, change: Callable[[jax.Array], jax.Array] = lambda part: part) -> jax.Array:
    """Reduce the rows of an array (..., V) to (..., V // PARTS + V % PARTS), for another reduction to finish.

    A row is read as PARTS parts, which are changed and combined element by element; the changed columns that are left follow. XLA's own
    reduction of a row takes a CPU two to three times as long.
    """
    width = x.shape[-1] // PARTS
    parts = [change(x[..., i * width : (i + 1) * width]) for i in range(PARTS)]
    return jnp.concatenate([functools.reduce(combine, parts), change(x[..., PARTS * width :])], -1)
