"""Dense layers against NumPy in float64, in the form that each kind of device is fastest with."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxnmt import config as cfg
from jaxnmt.models.layers import Dense, Projections
from jaxnmt.parallel import platform
from jaxnmt.parallel.sharding import make_mesh

HEADS, WIDTH_OF_HEAD, WIDTH = 2, 3, 5
LAYERS = {  # the layer, the shape of what it reads, and x @ kernel
    "of a feed-forward": (Dense((4,), axes="DF"), (WIDTH,), "BTD,DF->BTF"),
    "to heads": (Dense((HEADS, WIDTH_OF_HEAD), axes="DHK"), (WIDTH,), "BTD,DHK->BTHK"),
    "from heads": (Dense((WIDTH,), inputs=2, axes="HKD"), (HEADS, WIDTH_OF_HEAD), "BTHK,HKD->BTD"),
    "without a bias": (Dense((HEADS, WIDTH_OF_HEAD), axes="DHK", use_bias=False), (WIDTH,), "BTD,DHK->BTHK"),
    "keys and values": (Projections((2, HEADS, WIDTH_OF_HEAD), axes="D2HK"), (WIDTH,), "BTD,DNHK->NBTHK"),
    "no biases": (Projections((2, HEADS, WIDTH_OF_HEAD), axes="D2HK", use_bias=False), (WIDTH,), "BTD,DNHK->NBTHK"),
}


@pytest.mark.parametrize("kind", ["cpu", "tpu", "nvidia"])
@pytest.mark.parametrize("name", LAYERS)
def test_results_and_gradients_are_those_of_the_equation(name, kind, monkeypatch):
    monkeypatch.setattr(platform, "kind_of", lambda mesh: kind)
    layer, inputs, equation = LAYERS[name]
    layer = layer.clone(mesh=make_mesh(cfg.Mesh(), jax.devices()[:1]))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, *inputs))
    params = {"kernel": rng.standard_normal((*inputs, *layer.shape))}
    if layer.use_bias:
        params["bias"] = rng.standard_normal(layer.shape)
    read, letters = equation.split(","), equation.split("->")[1]
    weights = rng.standard_normal(np.einsum(equation, x, params["kernel"]).shape)  # of the results, in the sum whose gradient is taken

    def total(params, x):
        found = layer.apply({"params": params}, x)
        found = jnp.stack(found) if isinstance(found, tuple) else found
        return (found * weights.astype(np.float32)).sum(), found

    ours = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), (params, x))
    (_, found), (by_params, by_x) = jax.value_and_grad(total, (0, 1), has_aux=True)(*ours)
    bias = params.get("bias", np.zeros(layer.shape))
    bias = bias[:, None, None] if isinstance(layer, Projections) else bias
    tiny.assert_close(found, np.einsum(equation, x, params["kernel"]) + bias, atol=1e-5)
    kernel, of_x = read[1].split("->")[0], read[0]
    expected = {"kernel": np.einsum(f"{of_x},{letters}->{kernel}", x, weights)}
    if layer.use_bias:
        places = tuple(letters.index(letter) for letter in "BT")
        expected["bias"] = weights.sum(places)
    tiny.assert_close(by_params, expected, atol=1e-5)
    tiny.assert_close(by_x, np.einsum(f"{letters},{kernel}->{of_x}", weights, params["kernel"]), atol=1e-5)


@pytest.mark.parametrize("kind", ["cpu", "tpu", "nvidia"])
@pytest.mark.parametrize("name", ["of a feed-forward", "to heads", "keys and values"])
def test_the_gradient_of_a_bias_is_summed_in_float32(name, kind, monkeypatch):
    monkeypatch.setattr(platform, "kind_of", lambda mesh: kind)
    layer = LAYERS[name][0].clone(mesh=make_mesh(cfg.Mesh(), jax.devices()[:1]))
    x = jnp.zeros((20, 30, WIDTH), jnp.bfloat16)
    params = nn.unbox(layer.init(jax.random.key(0), x))
    weights = jnp.asarray(np.random.default_rng(0).standard_normal((20, 30, 1, 1)), jnp.bfloat16)  # of each position

    def total(params):
        found = jnp.stack(jax.tree.leaves(layer.apply(params, x)))
        return (found.astype(jnp.float32) * weights.astype(jnp.float32).reshape(20, 30, *[1] * (found.ndim - 3))).sum()

    found = jax.grad(total)(params)["params"]["bias"]
    np.testing.assert_allclose(found, np.full(found.shape, np.asarray(weights, np.float64).sum()), rtol=1e-5)


@pytest.mark.parametrize(("kind", "products"), [("cpu", 1), ("tpu", 2), ("nvidia", 1)])
def test_a_tpu_multiplies_each_matrix_alone_and_reshapes_nothing(kind, products, monkeypatch):
    monkeypatch.setattr(platform, "kind_of", lambda mesh: kind)
    layer = LAYERS["keys and values"][0].clone(mesh=make_mesh(cfg.Mesh(), jax.devices()[:1]))
    x = jnp.zeros((2, 3, WIDTH))
    params = layer.init(jax.random.key(0), x)
    program = str(jax.make_jaxpr(layer.apply)(params, x))
    assert program.count(" dot_general[") == products and ("reshape" not in program) == (kind == "tpu")
