"""Checksums of arrays."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnmt.parallel.numbers import mix

SMALL = 2**26
"""Numbers in a tree below which NumPy computes a checksum sooner than JAX traces and compiles it, which takes half a second."""


def checksum(tree: Any) -> int:
    """Return 32 bits that change when any bit of any leaf changes: Orbax does not notice a bit that flips on disk.

    They are computed where the leaves are and are the same on every mesh. Leaves may have any real dtype.
    """
    leaves = jax.tree.leaves(tree)
    if all(_is_plain(leaf) for leaf in leaves) and sum(leaf.size for leaf in leaves) < SMALL:
        return sum(_host_checksum(np.asarray(leaf), number) for number, leaf in enumerate(leaves)) % 2**32
    return int(_checksum(leaves))


def _is_plain(leaf: Any) -> bool:
    """Return whether a leaf has 32-bit numbers that NumPy can read where they lie."""
    is_here = isinstance(leaf, np.ndarray) or [device.platform for device in leaf.sharding.device_set] == ["cpu"]
    return is_here and leaf.dtype.itemsize == 4


def _host_checksum(leaf: np.ndarray, number: int) -> int:
    """Return a leaf's part of `_checksum`."""
    factor = mix(np.arange(leaf.size, dtype=np.uint32) + np.uint32(_start(number))) | np.uint32(1)
    return int((np.ascontiguousarray(leaf).reshape(-1).view(np.uint32) * factor).sum(dtype=np.uint32))


@jax.jit
def _checksum(leaves: list[jax.Array]) -> jax.Array:
    """Return the sum of each word times a factor of its own, as uint32."""
    total = jnp.uint32(0)
    for number, leaf in enumerate(leaves):
        # The place of each number in its leaf, row by row. The leaf keeps its shape, and so its layout on the devices.
        place = jnp.uint32(0)
        for axis, length in enumerate(leaf.shape):
            place = place * jnp.uint32(length) + jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis)
        factor = mix(place + jnp.uint32(_start(number))) | jnp.uint32(1)
        for bits in _words(leaf):
            total += (bits * factor).sum(dtype=jnp.uint32)
            factor = mix(factor) | jnp.uint32(1)
    return total


def _start(number: int) -> int:
    """Return where the numbering of a leaf's factors starts."""
    return number * 0x9E3779B1 % 2**32


def _words(leaf: jax.Array) -> list[jax.Array]:
    """Return the bits of an array as uint32 arrays of its shape: two if its numbers have 64 bits, else one."""
    size = leaf.dtype.itemsize
    if size < 4 and jnp.issubdtype(leaf.dtype, jnp.floating):
        leaf = jax.lax.bitcast_convert_type(leaf, jnp.uint16 if size == 2 else jnp.uint8)
    if size < 4:
        leaf = leaf.astype(jnp.int32 if jnp.issubdtype(leaf.dtype, jnp.signedinteger) else jnp.uint32)
    words = jax.lax.bitcast_convert_type(leaf, jnp.uint32)
    return [words[..., 0], words[..., 1]] if size == 8 else [words]
