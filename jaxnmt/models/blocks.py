"""Weights in blocks of columns, for products with the few hypotheses of one sentence.

Such a product takes as long as reading the weight. A CPU's matrix product computes some columns at a time. By rows, these lie far apart in
memory; in a block, they lie together, and the CPU fetches them ahead.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnmt.models.int8 import Int8
from jaxnmt.parallel.axes import rows_and_columns

WIDTH = 64
"""Columns of a block: 256 bytes of each row. 32 and 128 are slower."""
GROUP = 8
"""Blocks that are multiplied at once. x is copied for each of them."""
FEW = range(2, 9)
"""Numbers of hypotheses for which blocks are faster. XLA has other code for a single row. With ten, they are as fast as a product by rows;
with more, arithmetic takes longer than reading."""

LEAST_BYTES = 8 * 2**20
"""Fewest bytes of such weights. Fewer stay in a core's caches from one step to the next, and blocks are then 3 to 10 % slower."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Blocks:
    """A matrix of float32 numbers, for what a model does with a weight: `x @ w`, `w[tokens]`, `reshape`, `T`.

    Attributes:
        values: the weight, for all other numbers of rows.
        groups: what x is multiplied by, `GROUP` blocks or fewer each: (blocks, inputs, WIDTH), after the axis of stacked layers.
    """

    values: jax.Array
    groups: tuple[jax.Array, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The weight's shape."""
        return self.values.shape

    @property
    def T(self) -> Blocks:  # noqa: N802  as NumPy
        """The transposed matrix. `groups` stay: products are with one of both only."""
        return Blocks(self.values.T, self.groups)

    def reshape(self, *shape: int) -> Blocks:
        """Return the weight as a matrix (inputs, outputs)."""
        return Blocks(self.values.reshape(*shape), self.groups)

    def astype(self, dtype: Any) -> Blocks | jax.Array:
        """Return the weight in a type, without blocks if that is not float32."""
        return self if dtype == jnp.float32 else self.values.astype(dtype)

    def take(self, outputs: Any, axis: int) -> jax.Array:
        """Return the weight of some of its outputs, which are on this axis, without blocks."""
        return jnp.take(self.values, outputs, axis, mode="clip")

    def __getitem__(self, rows: jax.Array) -> jax.Array:
        """Return some rows."""
        return self.values[rows]

    def __rmatmul__(self, x: jax.Array) -> jax.Array:
        """Return x (..., inputs) times the matrix."""
        rows = x.size // x.shape[-1]
        if rows == 1:  # the first token's: other weights than those of the following steps would have to be read from memory
            return (jnp.broadcast_to(x, (2, *x.shape)) @ self)[0]
        if rows not in FEW:
            return x @ self.values
        x_RI = x.reshape(rows, -1)
        y_NRO = jnp.concatenate([jnp.broadcast_to(x_RI, (len(group), *x_RI.shape)) @ group for group in self.groups])
        return y_NRO.swapaxes(0, 1).reshape(*x.shape[:-1], -1)


Weight = Int8 | Blocks
"""What may be in the place of a weight."""


def in_blocks(params: Any, letters: Any) -> Any:
    """Return parameters with `Blocks` in the place of float32 weights whose outputs are several times `WIDTH`.

    Args:
        letters: the letters of the axes of each parameter that may be one, else "".
    """
    chosen = jax.tree.map(_is_split, letters, params)
    size = sum(jax.tree.leaves(jax.tree.map(lambda chosen, x: x.nbytes if chosen else 0, chosen, params)))
    if size < LEAST_BYTES:
        return params
    return jax.tree.map(lambda chosen, axes, x: _split(axes, x) if chosen else x, chosen, letters, params)


class LatestBlocks:
    """The result of `in_blocks` for the parameters that were used last."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Drop the parameters and their blocks."""
        self._kept: tuple[Any, Any] = None, None

    def of(self, params: Any, letters: Callable[[], Any]) -> Any:
        """Return these parameters in blocks; `letters` returns those that `in_blocks` takes."""
        kept = self._kept
        if kept[0] is not params:
            kept = self._kept = params, in_blocks(params, letters())
        return kept[1]


def _is_split(axes: str, x: Any) -> bool:
    if not axes or isinstance(x, Int8) or x.dtype != np.float32:
        return False
    outputs = x.shape[0] if axes == "VD" else x.size // math.prod(x.shape[: rows_and_columns(axes)[0][-1] + 1])
    return outputs > WIDTH and outputs % WIDTH == 0


def _split(axes: str, x: Any) -> Blocks:
    matrix = _matrix(np.asarray(x), axes)  # NumPy compiles nothing
    blocks = matrix.reshape(*matrix.shape[:-1], -1, WIDTH).swapaxes(-2, -3)
    groups = np.split(blocks, range(GROUP, blocks.shape[-3], GROUP), -3)
    return Blocks(x, tuple(jax.device_put(np.ascontiguousarray(group)) for group in groups))


def _matrix(x: np.ndarray, axes: str) -> np.ndarray:
    """Return a weight as (inputs, outputs), or (L, inputs, outputs)."""
    if axes == "VD":
        return x.T
    inputs, _ = rows_and_columns(axes)
    return x.reshape(*x.shape[: inputs[0]], math.prod(x.shape[i] for i in inputs), -1)
