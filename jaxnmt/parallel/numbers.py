"""A hash of numbers, and the type in which sums are computed. No flax here."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np


def at_least_float32(dtype) -> jnp.dtype:
    """Return the type for sums, softmax and loss of numbers of `dtype`: float32, or `dtype` if that is wider."""
    return jnp.promote_types(dtype, jnp.float32)


def mix(x: Any) -> Any:
    """Hash uint32, NumPy's or JAX's, by a bijection in which every input bit moves every output bit (xor-shift and multiply, twice)."""
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)
