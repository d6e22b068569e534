"""Products, and vectors at each position: results are x @ kernel and x + vector, gradients those of the equations in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxnmt.models.attention import ROWS, SelfAttention
from jaxnmt.models.layers import DropoutKey, Norm
from jaxnmt.models.linear import BLOCK, broadcast, multiply, transposed
from jaxnmt.parallel import platform

ROW_COUNTS = [1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK - 3, 4 * BLOCK]  # fewer than a block, and whole blocks or not


def normal(*shape, seed=0):
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("rows", ROW_COUNTS)
def test_a_transposed_copy(rows):
    x = normal(rows, 7)
    np.testing.assert_array_equal(jax.jit(transposed)(x), x.T)


@pytest.mark.parametrize("kind", ["cpu", "nvidia"])
@pytest.mark.parametrize("rows", ROW_COUNTS)
@pytest.mark.parametrize(("inputs", "outputs"), [(3, 8), (8, 3), (5, 5)])
def test_a_product_and_its_gradients(inputs, outputs, rows, kind, monkeypatch):
    monkeypatch.setattr(platform, "kind_of", lambda mesh: kind)
    x, kernel, weights = normal(2, rows, inputs), normal(inputs, outputs), normal(2, rows, outputs, seed=1)

    @jax.jit
    def both(x, kernel):
        y, gradients = jax.vjp(lambda x, kernel: multiply(x, kernel, None), x, kernel)
        return y, gradients(weights)

    y, gradients = both(x, kernel)
    exact = [np.float64(a) for a in (x, kernel, weights)]
    tiny.assert_close(y, exact[0] @ exact[1], atol=1e-5)
    tiny.assert_close(gradients, (exact[2] @ exact[1].T, np.einsum("abi,abo->io", exact[0], exact[2])), atol=1e-4)


@pytest.mark.parametrize("kind", ["cpu", "nvidia"])
@pytest.mark.parametrize("batch_axis", [0, 1])
@pytest.mark.parametrize("leading", [(), (6,), (5, 7), (3, 5, 7)])
def test_the_gradient_of_a_vector_is_the_sum_over_positions(leading, batch_axis, kind, monkeypatch):
    monkeypatch.setattr(platform, "kind_of", lambda mesh: kind)
    vector, weights = normal(2, 4), normal(*leading, 2, 4, seed=1)
    found = jax.jit(jax.grad(lambda v: (broadcast(v, weights.shape, None, batch_axis) * weights).sum()))(vector)
    tiny.assert_close(found, np.float64(weights).reshape(-1, 2, 4).sum(0), atol=1e-5)


@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm"])
def test_a_norms_gradients_are_the_same_on_every_platform(norm, monkeypatch):
    x, weights = normal(3, 5, 8), normal(3, 5, 8, seed=1)
    params = {"scale": normal(8, seed=2)} | ({"bias": normal(8, seed=3)} if norm == "layernorm" else {})
    found = {}
    for kind in ("cpu", "nvidia"):
        monkeypatch.setattr(platform, "kind_of", lambda mesh, kind=kind: kind)
        found[kind] = jax.grad(lambda p, x: (Norm(norm).apply({"params": p}, x) * weights).sum(), (0, 1))(params, x)
    tiny.assert_close(found["cpu"], found["nvidia"], atol=1e-5)


@pytest.mark.parametrize(
    ("most", "rows", "parts"), [(1, 64, 1), (2, 64, 2), (4, 64, 4), (4, 50, 2), (4, 51, 3), (4, 53, 1), (2, 2 * ROWS - 2, 1)]
)
def test_attention_in_parts_is_that_to_all_rows_to_the_bit(most, rows, parts, monkeypatch):
    """Dropout included: a mask depends on the row."""
    module = SelfAttention(2, 4, 8, 0.3)
    x = jnp.asarray(normal(rows, 5, 8))
    mask = jnp.tril(jnp.ones((5, 5), bool))[None]
    places, noise = jnp.arange(5)[None], DropoutKey.of(0, jnp.int32(3), jnp.arange(rows))
    params = module.init(jax.random.key(0), x, mask, places, None)

    def run(limit):
        monkeypatch.setattr(platform, "_CPU", platform._CPU._replace(attention_parts=limit))

        def total(params, x):
            (y, _), kept = module.apply(params, x, mask, places, noise, mutable="intermediates")
            return (y**2).sum(), (y, kept)

        program = str(jax.make_jaxpr(total)(params, x))
        return program.count("exp "), jax.jit(jax.value_and_grad(total, 1, has_aux=True))(params, x)

    (softmaxes, found), (alone, expected) = run(most), run(1)
    assert (softmaxes, alone) == (parts, 1)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
