"""Low-rank adapters: kernels W + alpha / rank A B, of which A and B are trained (Hu et al. 2021, "LoRA: low-rank adaptation").

An adapter stands in the tree of parameters where its kernel stands in the model's: `{"a": A, "b": B}`. A and B have the kernel's axes, of
size 1 where they do not vary, and the rank as last axis. A varies over the kernel's inputs, B over its outputs, and both over what counts
matrices: the layers of a stack, and query, key and value of one kernel (D, 3, H, K), whose A is (D, 3, 1, 1, rank) and whose B is
(1, 3, H, K, rank).
"""

from __future__ import annotations

import functools
import math
import string
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxnmt.parallel.axes import rows_and_columns
from jaxnmt.parallel.numbers import at_least_float32


def adapter_axes(axes: str) -> dict[str, str]:
    """Return the letters of a kernel's adapter: "D3HK" has "D311N" and "13HKN"."""
    rows, columns = rows_and_columns(axes)
    without = lambda places: "".join("1" if i in places else letter for i, letter in enumerate(axes)) + "N"  # noqa: E731
    return {"a": without(columns), "b": without(rows)}


def initial_adapter(seed: int, paths: Sequence[str], axes: str, shape: Sequence[int], rank: int) -> dict[str, jax.Array]:
    """Return the adapter of a kernel before the first step: A is normal with variance 1 / inputs, B is 0, so that W + A B is W.

    Args:
        seed: `training.seed`.
        paths: the kernel's; of a stack, each layer's, so that a stacked layer begins like a layer on its own.
        axes, shape: the kernel's.
    """
    rows, columns = rows_and_columns(axes)
    inputs = math.prod(shape[i] for i in rows)
    shape_a, shape_b = ([*(1 if i in places else size for i, size in enumerate(shape)), rank] for places in (columns, rows))

    def draw(path: str, shape: Sequence[int]) -> jax.Array:
        key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(path.encode()))
        return jax.random.normal(key, shape, jnp.float32) / math.sqrt(inputs)

    stacked = axes.startswith("L")
    a = jnp.stack([draw(path, shape_a[1:]) for path in paths]) if stacked else draw(paths[0], shape_a)
    return {"a": a, "b": jnp.zeros(shape_b, jnp.float32)}


def adapted(params: Any, adapters: Any, scale: float) -> Any:
    """Return a model's parameters with W + scale A B in place of each adapted kernel W. ShapeDtypeStructs stay as they are.

    Args:
        params: the model's, nested in dicts.
        adapters: those of some of its kernels.
        scale: alpha / rank.
    """
    flat: dict[tuple[str, ...], Any] = flatten_dict(params)
    pairs = {path: adapter for path, adapter in pairs_by_path(adapters).items() if not isinstance(flat[path], jax.ShapeDtypeStruct)}
    return unflatten_dict(flat | _merged({path: flat[path] for path in pairs}, pairs, scale))


def pairs_by_path(adapters: Any) -> dict[tuple[str, ...], Mapping[str, Any]]:
    """Return each adapter by its kernel's path."""
    pairs: dict[tuple[str, ...], dict[str, Any]] = {}
    for (*path, part), x in flatten_dict(adapters).items():
        pairs.setdefault(tuple(path), {})[part] = x
    return pairs  # type: ignore[return-value]  # dict is invariant


def adapted_kernels(params: Any, adapters: Any) -> Any:
    """Return the kernels that have adapters, as they are without them."""
    flat = flatten_dict(params)
    return unflatten_dict({path: flat[path] for path in pairs_by_path(adapters)})


@functools.partial(jax.jit, static_argnames="scale")
def _merged(kernels: Any, adapters: Any, scale: float) -> Any:
    return {path: _merge(kernel, **adapters[path], scale=scale) for path, kernel in kernels.items()}


def _merge(kernel: jax.Array, a: jax.Array, b: jax.Array, scale: float) -> jax.Array:
    letters, rank = string.ascii_lowercase[: kernel.ndim], a.shape[-1]
    used = lambda x: "".join(letter for letter, size in zip(letters, x.shape, strict=False) if size > 1)  # noqa: E731
    flat = lambda x: x.reshape([size for size in x.shape[:-1] if size > 1] + [rank])  # noqa: E731
    product = jnp.einsum(f"{used(a)}Z,{used(b)}Z->{used(kernel)}", flat(a), flat(b), precision=jax.lax.Precision.HIGHEST)
    wide = kernel.astype(at_least_float32(kernel.dtype)) + scale * product.reshape(kernel.shape)
    return wide.astype(kernel.dtype)
