"""Compute a checksum of arrays on their devices. Orbax does not notice a bit that flips on disk."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxnmt.models.layers import mix


@jax.jit
def checksum(tree: Any) -> jax.Array:
    """Return a uint32 that changes when any bit of any leaf changes. It is the same on every mesh. Leaves may have any real dtype."""
    total = jnp.uint32(0)
    for number, leaf in enumerate(jax.tree.leaves(tree)):
        place = jnp.uint32(0)  # of each number in its leaf, row by row; the leaf keeps its shape, and so its layout on the devices
        for axis, length in enumerate(leaf.shape):
            place = place * jnp.uint32(length) + jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis)
        factor = mix(place + jnp.uint32(number * 0x9E3779B1 % 2**32)) | jnp.uint32(1)
        for bits in _words(leaf):
            total += (bits * factor).sum(dtype=jnp.uint32)
            factor = mix(factor) | jnp.uint32(1)
    return total


def _words(leaf: jax.Array) -> list[jax.Array]:
    """Return the bits of an array as uint32 arrays of its shape: two if its numbers have 64 bits, else one."""
    if leaf.dtype == jnp.uint32:
        return [leaf]
    size = leaf.dtype.itemsize
    if size == 8:
        halves = jax.lax.bitcast_convert_type(leaf, jnp.uint32)
        return [halves[..., 0], halves[..., 1]]
    if size == 4:
        return [jax.lax.bitcast_convert_type(leaf, jnp.uint32)]
    if jnp.issubdtype(leaf.dtype, jnp.floating):
        leaf = jax.lax.bitcast_convert_type(leaf, jnp.uint16 if size == 2 else jnp.uint8)
    elif jnp.issubdtype(leaf.dtype, jnp.signedinteger):
        return _words(leaf.astype(jnp.int32))
    return [leaf.astype(jnp.uint32)]
