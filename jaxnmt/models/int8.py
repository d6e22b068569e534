"""Weights in int8 for decoding: a quarter of the memory, and faster products where a CPU has instructions for them (AVX512-VNNI, AMX).

Each column of a kernel (each row of the output layer's table) has its own scale. Activations are quantised row by row, when they are
multiplied, and the sums of a product are exact (int32). So a row's result depends on that row alone.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxnmt.parallel.axes import rows_and_columns
from jaxnmt.parallel.numbers import at_least_float32

LARGEST = 127


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Int8:
    """A matrix of float32 numbers, about `values` x `scale`, for what a model does with a weight: `x @ w`, `w[tokens]`, `reshape`, `T`.

    Attributes:
        values: int8, as the weight.
        scale: float32, 1 where the weight has inputs.
        transposed: a copy, `values.T`, if products are `x @ w.T`: they take XLA three times as long with the strides of `values`.
    """

    values: jax.Array
    scale: jax.Array
    transposed: jax.Array | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The weight's shape."""
        return self.values.shape

    @property
    def T(self) -> Int8:  # noqa: N802  as NumPy
        """The transposed matrix."""
        return Int8(self.values.T if self.transposed is None else self.transposed, self.scale.T)

    def reshape(self, *shape: int) -> Int8:
        """Return the weight as a matrix (inputs, outputs)."""
        return Int8(self.values.reshape(*shape), self.scale.reshape(1, -1))

    def astype(self, dtype: Any) -> Int8:
        """Return the weight itself; a product has the type of its other factor."""
        return self

    def take(self, outputs: Any, axis: int) -> Int8:
        """Return the weight of some of its outputs, which are on this axis."""
        of = lambda x, axis: jnp.take(x, outputs, axis, mode="clip")  # noqa: E731
        transposed = None if self.transposed is None else of(self.transposed, 1 - axis)
        return Int8(of(self.values, axis), of(self.scale, axis), transposed)

    def __getitem__(self, rows: jax.Array) -> jax.Array:
        """Return some rows as float32."""
        return self.values[rows].astype(jnp.float32) * self.scale[rows]

    def __rmatmul__(self, x: jax.Array) -> jax.Array:
        """Return x (..., inputs) times the matrix, in x's type."""
        rows = x.astype(at_least_float32(x.dtype))
        row_scale = jnp.maximum(jnp.abs(rows).max(-1, keepdims=True), jnp.finfo(rows.dtype).tiny * LARGEST) / LARGEST
        quantised_rows = jnp.round(rows / row_scale).astype(jnp.int8)
        contracted = ((x.ndim - 1,), (0,)), ((), ())
        sums = jax.lax.dot_general(quantised_rows, self.values, contracted, preferred_element_type=jnp.int32)
        return (sums.astype(rows.dtype) * row_scale * self.scale.reshape(-1)).astype(x.dtype)


def quantised(params: Any, axes: Any, multiplied: Any) -> Any:
    """Return parameters with an `Int8` in the place of each weight that the model only multiplies by.

    Args:
        axes: the letters of each parameter's axes.
        multiplied: whether each parameter is such a weight (`parallel.axes.declare`).
    """

    def quantise(x: jax.Array, letters: str, is_multiplied: bool) -> Any:
        if not is_multiplied:
            return x
        weight = _int8(x, (1,) if letters == "VD" else rows_and_columns(letters)[0])
        return dataclasses.replace(weight, transposed=weight.values.T) if letters == "VD" else weight

    return jax.tree.map(quantise, params, axes, multiplied)


def as_float32(params: Any) -> Any:
    """Return parameters with the numbers that each `Int8` stands for in its place, float32."""
    is_int8 = lambda x: isinstance(x, Int8)  # noqa: E731
    return jax.tree.map(lambda x: x.values.astype(jnp.float32) * x.scale if is_int8(x) else x, params, is_leaf=is_int8)


def _int8(x: jax.Array, inputs: tuple[int, ...]) -> Int8:
    x = x.astype(jnp.float32)
    largest = jnp.abs(x).max(inputs, keepdims=True)
    scale = jnp.where(largest > 0, largest, 1.0) / LARGEST
    return Int8(jnp.round(x / scale).astype(jnp.int8), scale)
