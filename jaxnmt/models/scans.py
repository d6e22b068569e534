"""Scans of recurrent layers, with the backward pass that is fastest on the platform.

A plain scan stores everything that a step computes, and adds to the gradient of each weight matrix W in every step. On a GPU, each stored
array is a kernel launch, and each addition reads and writes a whole matrix. There, the scan stores only the states and recomputes the steps
in the backward pass. The gradient of W in y_t = x_t W is one product after the loop, the sum over t of x_t^T dy_t.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxnmt.models.int8 import Int8
from jaxnmt.parallel.numbers import at_least_float32
from jaxnmt.parallel.platform import platform_of

KERNELS = ("recurrent", "input", "context", "combine", "query", "place")
"""The weights that a step multiplies by, once, as `x @ weight`."""

Step = Callable[[Any, Any, Any], tuple[Any, Any]]
"""`(weights, carry, x) -> (carry, y)`."""


def scan(step: Step, weights: Any, carry: Any, x_T: Any, mesh: Mesh | None, reverse: bool = False) -> tuple[Any, Any]:
    """Scan a step with these weights; returns what `jax.lax.scan` returns.

    Args:
        step: arrays that it closes over get no gradient.
        mesh: that it computes on; None: one device.
    """
    if not platform_of(mesh).recurrent_remat:
        return jax.lax.scan(functools.partial(step, weights), carry, x_T, reverse=reverse)
    leaves, structure = jax.tree_util.tree_flatten_with_path(weights, is_leaf=lambda x: isinstance(x, Int8))
    kernels = {i: x for i, (path, x) in enumerate(leaves) if path[-1].key in KERNELS and not isinstance(x, Int8)}
    others = {i: x for i, (_, x) in enumerate(leaves) if i not in kernels}

    def joined(parts: dict[int, Any]) -> Any:
        return structure.unflatten([parts[i] for i in range(len(leaves))])

    return _scan(lambda parts, carry, x: step(joined(parts), carry, x), kernels, others, carry, x_T, reverse)


class _TracedKernel:
    """A kernel in one step that records its input. It adds a probe of zeros to the product: the probe's gradient is the product's."""

    def __init__(self, kernel: jax.Array, probe: jax.Array | None) -> None:
        self.kernel, self.probe, self.read, self.product = kernel, probe, None, None

    def __rmatmul__(self, x: jax.Array) -> jax.Array:
        self.read, self.product = x, x @ self.kernel
        return self.product if self.probe is None else self.product + self.probe


class _Probed(NamedTuple):
    """The results of a step, and by kernel its input and product."""

    carry: Any
    y: Any
    read: dict[int, Any]
    products: dict[int, Any]


def _scan(step: Step, kernels: dict[int, Any], others: dict[int, Any], carry: Any, x_T: Any, reverse: bool) -> tuple[Any, Any]:
    def probed(kernels, others, probes, carry, x) -> _Probed:
        factors = {i: _TracedKernel(kernel, probes.get(i)) for i, kernel in kernels.items()}
        carry, y = step(factors | others, carry, x)
        used = {i: factor for i, factor in factors.items() if factor.read is not None}
        return _Probed(carry, y, {i: f.read for i, f in used.items()}, {i: f.product for i, f in used.items()})

    x_shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), x_T)
    products = jax.eval_shape(probed, kernels, others, {}, carry, x_shapes).products
    steps = len(jax.tree.leaves(x_T)[0])

    @jax.custom_vjp
    def run(kernels, others, carry, x_T):
        return jax.lax.scan(lambda carry, x: step(kernels | others, carry, x), carry, x_T, reverse=reverse)

    def forward(kernels, others, carry, x_T):
        def whole(others, probes_T, carry, x_T):
            @functools.partial(jax.checkpoint, prevent_cse=False)
            def recomputed_step(carry, x):
                made = probed(kernels, others, x[1], carry, x[0])
                return made.carry, (made.y, made.read)

            carry, (y_T, read_T) = jax.lax.scan(recomputed_step, carry, (x_T, probes_T), reverse=reverse)
            return (carry, y_T), read_T

        probes_T = {i: jnp.zeros((steps, *like.shape), like.dtype) for i, like in products.items()}
        made, backward, read_T = jax.vjp(whole, others, probes_T, carry, x_T, has_aux=True)
        return made, (backward, read_T, kernels)

    def backward(kept, cotangent):
        of_rest, read_T, kernels = kept
        others, products_T, carry, x_T = of_rest(cotangent)
        return {i: _gradient(kernel, read_T.get(i), products_T.get(i)) for i, kernel in kernels.items()}, others, carry, x_T

    run.defvjp(forward, backward)
    return run(kernels, others, carry, x_T)


def _gradient(kernel: jax.Array, read: jax.Array | None, product: jax.Array | None) -> jax.Array:
    """Return the gradient of a kernel (N, M) from its inputs (T, ..., N) and the gradients of its products (T, ..., M)."""
    if read is None or product is None:
        return jnp.zeros_like(kernel)
    dtype = at_least_float32(kernel.dtype)
    return jnp.einsum("...N,...M->NM", read, product, preferred_element_type=dtype).astype(kernel.dtype)
