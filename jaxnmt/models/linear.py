"""Matrix products, and biases that are broadcast to all positions, with custom gradients where XLA's own are slow.

The gradient of a kernel contracts all positions, and the gradient of a bias is a sum over them. `Platform` says which form is fastest.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.lax import dynamic_slice_in_dim, dynamic_update_slice_in_dim, fori_loop, optimization_barrier
from jax.sharding import Mesh

from jaxnmt.models.blocks import Weight
from jaxnmt.parallel.numbers import at_least_float32
from jaxnmt.parallel.platform import platform_of

BLOCK = 16
"""Rows that are transposed at a time. 16 float32 numbers fill a cache line."""


def multiply(x: jax.Array, kernel: jax.Array | Weight, mesh: Mesh | None) -> jax.Array:
    """Return x (..., I) @ kernel (I, O) as (..., O)."""
    if isinstance(kernel, Weight) or not platform_of(mesh).transposes_operands:
        return x @ kernel
    return _multiply(x.reshape(-1, x.shape[-1]), kernel).reshape(*x.shape[:-1], kernel.shape[-1])


@jax.custom_vjp
def _multiply(x_NI: jax.Array, kernel_IO: jax.Array) -> jax.Array:
    return x_NI @ kernel_IO


def _gradients(factors: tuple[jax.Array, jax.Array], dy_NO: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the gradients of x and of the kernel. The smaller operand of the kernel's gradient is transposed."""
    x_NI, kernel_IO = factors
    if x_NI.shape[1] <= dy_NO.shape[1]:
        d_kernel_IO = transposed(x_NI) @ dy_NO
    else:
        d_kernel_IO = optimization_barrier(transposed(dy_NO) @ x_NI).T  # else XLA folds this transpose into the product
    return dy_NO @ kernel_IO.T, d_kernel_IO


_multiply.defvjp(lambda x_NI, kernel_IO: (x_NI @ kernel_IO, (x_NI, kernel_IO)), _gradients)


def transposed(x_NM: jax.Array) -> jax.Array:
    """Return a transposed copy (M, N) of x, written in blocks of one cache line.

    XLA's transpose takes two to eight times as long. XLA also fuses it with whatever computes x, which is then computed twice. It does not
    fuse across this loop.
    """
    if x_NM.shape[0] < BLOCK:
        return x_NM.T
    last = x_NM.shape[0] - BLOCK

    def write(i, x_MN):
        start = jnp.minimum(i * BLOCK, last)
        return dynamic_update_slice_in_dim(x_MN, dynamic_slice_in_dim(x_NM, start, BLOCK).T, start, axis=1)

    return fori_loop(0, -(-x_NM.shape[0] // BLOCK), write, jnp.zeros(x_NM.shape[::-1], x_NM.dtype))


def add_bias(y: jax.Array, bias: jax.Array, mesh: Mesh | None) -> jax.Array:
    """Return y + bias in y's type, added in float32: the bias's gradient is a sum over all positions, most of which bfloat16 would lose."""
    if platform_of(mesh).sums_by_products and y.dtype == jnp.bfloat16:
        return _add_bias_by_product(y, bias)
    return (y.astype(at_least_float32(y.dtype)) + broadcast(bias, y.shape, mesh)).astype(y.dtype)


@jax.custom_vjp
def _add_bias_by_product(y: jax.Array, bias: jax.Array) -> jax.Array:
    """Return `add_bias` of bfloat16. The gradient of the bias is a product with ones: its terms are exact, and are added in float32."""
    return (y.astype(jnp.float32) + bias).astype(y.dtype)


def _sum_by_product(bias: jax.Array, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    summed = dy.ndim - bias.ndim
    # Of ones that it knows, or of a single row, the compiler would make a sum.
    ones = optimization_barrier(jnp.ones((8, *dy.shape[:summed]), dy.dtype))
    return dy, jnp.tensordot(ones, dy, summed, preferred_element_type=jnp.float32)[0].astype(bias.dtype)


_add_bias_by_product.defvjp(lambda y, bias: (_add_bias_by_product(y, bias), bias), _sum_by_product)


def broadcast(vector: jax.Array, shape: tuple[int, ...], mesh: Mesh | None, batch_axis: int = 0) -> jax.Array:
    """Broadcast a vector, such as a norm's scale, to `shape`, or return it as it is if the platform needs no custom gradient.

    Args:
        shape: its last axes are those of the vector.
        batch_axis: the axis of `shape` that may be split over devices.
    """
    return _broadcast(vector, shape, batch_axis) if platform_of(mesh).sums_by_axis else vector


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _broadcast(vector: jax.Array, shape: tuple[int, ...], batch_axis: int) -> jax.Array:
    return jnp.broadcast_to(vector, shape)


def _sum_by_axis(shape: tuple[int, ...], batch_axis: int, vector: jax.Array, dy: jax.Array) -> tuple[jax.Array]:
    """Sum over one axis after another, the batch last, so that devices exchange one vector. The barrier keeps XLA from joining the sums."""
    summed = range(dy.ndim - vector.ndim)
    for axis in summed:
        if axis != batch_axis:
            dy = optimization_barrier(dy.sum(axis, keepdims=True))
    return (dy.sum(tuple(summed)),)


_broadcast.defvjp(lambda vector, shape, batch_axis: (jnp.broadcast_to(vector, shape), vector), _sum_by_axis)
