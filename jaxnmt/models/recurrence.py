"""A scan over time whose gradient does each matrix's share of the work once, after the scan, instead of once a step.

The gradient of `h_t @ U` with respect to U is a sum over t. Left to itself, reverse-mode differentiation adds it up step by step,
reading and writing the whole of U's gradient each time; here the steps' inputs and output gradients are kept, and one product of
all of them follows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

Product = Callable[[str, jax.Array], jax.Array]
"""(name of a factor, x) -> x times that factor, as its einsum says."""


def plain_product(specs: Mapping[str, str], factors: Mapping[str, jax.Array]) -> Product:
    """Products for a single step."""
    return lambda name, x: _einsum(specs[name], x, factors[name])


def scan_products(
    step: Callable[[Product, Any, Any, Any], tuple[Any, Any]],
    specs: Mapping[str, str],
    factors: dict[str, jax.Array],
    shared: Any,
    carry: Any,
    xs: Any,
    *,
    reverse: bool = False,
    unroll: int = 1,
) -> tuple[Any, Any]:
    """`jax.lax.scan` of `step(product, shared, carry, x) -> (carry, y)`, the same values and gradients, less work.

    Args:
        step: reads factors through `product(name, x)` alone, each at most once a step.
        specs: for each factor the einsum of its product, x first: `"bi,io->bo"`. No letter `z`.
        factors: what is the same at every step and only multiplied by: recurrent kernels, an attention's keys and values.
        shared: anything else that is the same at every step; its gradient is added up step by step.
        carry, xs, reverse, unroll: as of `jax.lax.scan`; leaves of xs lead with time.
    """
    specs = dict(specs)

    def run(shared, carry, xs, nudges, factors):
        """-> the scan's results, and what was multiplied by each factor at each step."""

        def body(carry, x_and_nudges):
            x, nudges = x_and_nudges
            inputs: dict[str, jax.Array] = {}

            def product(name: str, x: jax.Array) -> jax.Array:
                inputs[name] = x
                return _einsum(specs[name], x, factors[name]) + nudges.get(name, 0)

            carry, y = step(product, shared, carry, x)
            return carry, (y, inputs)

        carry, (ys, inputs) = jax.lax.scan(body, carry, (xs, nudges), reverse=reverse, unroll=unroll)
        return (carry, ys), inputs

    @jax.custom_vjp
    def scan(factors, shared, carry, xs):
        return run(shared, carry, xs, {}, factors)[0]

    def forward(factors, shared, carry, xs):
        shapes = _output_shapes(run, shared, carry, xs, factors, specs)
        nudges = {name: jnp.zeros(x.shape, x.dtype) for name, x in shapes.items()}
        moving = functools.partial(run, factors=factors)
        results, pull_back, inputs = jax.vjp(moving, shared, carry, xs, nudges, has_aux=True)
        return results, (pull_back, inputs, factors)

    def backward(residuals, cotangents):
        pull_back, inputs, factors = residuals
        d_shared, d_carry, d_xs, d_outputs = pull_back(cotangents)
        d_factors = {}
        for name, spec in specs.items():
            x, factor, out = _letters(spec)
            gradient = jnp.einsum(f"z{x},z{out}->{factor}", inputs[name], d_outputs[name], preferred_element_type=jnp.float32)
            d_factors[name] = gradient.astype(factors[name].dtype)
        return d_factors, d_shared, d_carry, d_xs

    scan.defvjp(forward, backward)
    return scan(factors, shared, carry, xs)


def _output_shapes(run, shared, carry, xs, factors, specs) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes (time first) of what the products give: an einsum's output has its letters from its two inputs."""
    inputs = jax.eval_shape(run, shared, carry, xs, {}, factors)[1]
    shapes = {}
    for name, spec in specs.items():
        x, factor, out = _letters(spec)
        sizes = dict(zip("z" + x, inputs[name].shape, strict=True)) | dict(zip(factor, factors[name].shape, strict=True))
        shapes[name] = jax.ShapeDtypeStruct(tuple(sizes[letter] for letter in "z" + out), inputs[name].dtype)
    return shapes


def _letters(spec: str) -> tuple[str, str, str]:
    inputs, out = spec.split("->")
    x, factor = inputs.split(",")
    return x, factor, out


def _einsum(spec: str, x: jax.Array, factor: jax.Array) -> jax.Array:
    return jnp.einsum(spec, x, factor)
