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


def reduce_in_parts(
    combine: Callable[..., jax.Array], x: jax.Array, change: Callable[[jax.Array], jax.Array] = lambda part: part
) -> jax.Array:
    """Reduce an array (..., V) to (..., V // PARTS + V % PARTS). The caller reduces the rest.

    Each row is cut into PARTS parts, which are combined element by element. The last V % PARTS columns are appended. On a CPU, XLA's
    reduction of a row takes two to three times as long.

    Args:
        combine: such as `jnp.maximum`.
        change: applied to each part first.
    """
    width = x.shape[-1] // PARTS
    parts = [change(x[..., i * width : (i + 1) * width]) for i in range(PARTS)]
    return jnp.concatenate([functools.reduce(combine, parts), change(x[..., PARTS * width :])], -1)
