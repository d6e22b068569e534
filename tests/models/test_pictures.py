"""The encoders of pictures against NumPy, what each region sees, and the types of the computation."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxnmt.config import Captioning
from jaxnmt.models.pictures import Regions, doubly_stochastic
from jaxnmt.parallel.axes import declared

WIDTH, PATCH = 8, 4
PICTURES = np.random.default_rng(0).integers(0, 256, (2, 8, 12, 3), dtype=np.uint8)
KINDS = ("patches", "convolution")


def regions(kind, dtype=jnp.float32):
    return Regions(Captioning(regions=kind, patch=PATCH), WIDTH, dtype)


@functools.cache
def filled(kind, dtype=jnp.float32):
    """A module and its parameters, random, so that none can be forgotten without being noticed."""
    module = regions(kind, dtype)
    random = np.random.default_rng(1)
    shapes = nn.unbox(jax.eval_shape(module.init, jax.random.key(0), PICTURES)["params"])
    return jax.jit(module.apply), jax.tree.map(lambda x: 0.5 * random.standard_normal(x.shape).astype(x.dtype), shapes)


def convolution(x, kernel):
    """A 3 x 3 convolution of stride 2 of a picture padded by zeros, from its definition."""
    rows, columns = x.shape[0] // 2, x.shape[1] // 2
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    return np.array([[np.tensordot(padded[2 * i : 2 * i + 3, 2 * j : 2 * j + 3], kernel, 3) for j in range(columns)] for i in range(rows)])


def layer_norm(x, p):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * p["scale"] + p["bias"]


def in_numpy(kind, picture, p):
    """The regions of one picture, in float64."""
    x = picture / 127.5 - 1
    if kind == "convolution":
        for i in range(2):
            x = np.maximum(layer_norm(convolution(x, p[f"convolution_{i}"]["kernel"]), p[f"norm_{i}"]), 0)
        cells = x.reshape(-1, WIDTH)
    else:
        corners = [(i, j) for i in range(0, 8, PATCH) for j in range(0, 12, PATCH)]
        cells = np.array([x[i : i + PATCH, j : j + PATCH].ravel() for i, j in corners])
    return cells @ p["projection"]["kernel"] + p["projection"]["bias"] + p["positions"]["table"]


@pytest.mark.parametrize("kind", KINDS)
def test_regions_are_what_numpy_computes(kind):
    apply, params = filled(kind)
    exact = jax.tree.map(np.float64, params)
    expected = [in_numpy(kind, picture, exact) for picture in np.float64(PICTURES)]
    tiny.assert_close(apply({"params": params}, PICTURES), np.array(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_region_sees(kind):
    """A patch is all that its region sees. With convolutions it sees more, up and left, but no picture sees another."""
    apply, params = filled(kind)
    before = np.asarray(apply({"params": params}, PICTURES))
    changed = PICTURES.copy()
    changed[0, 4:8, 4:8] ^= 255  # the fifth of six patches of the first picture
    moved = (np.asarray(apply({"params": params}, changed)) != before).any(-1)
    assert moved[0, 4] and not moved[1].any()
    assert moved[0].tolist() == [False] * 4 + [True, kind == "convolution"]


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_is_a_type_of_the_computation(kind):
    exact, params = filled(kind)
    rough, same = filled(kind, jnp.bfloat16)
    tiny.assert_same(params, same)
    assert {x.dtype for x in jax.tree.leaves(same)} == {np.dtype("float32")}
    found = rough({"params": params}, PICTURES)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(found), exact({"params": params}, PICTURES), atol=0.1)


def test_parameters_declare_their_axes():
    def letters(kind):
        return declared(jax.eval_shape(regions(kind).init, jax.random.key(0), PICTURES)["params"])

    ends = {"positions": {"table": "PD"}, "projection": {"bias": "D", "kernel": "ND"}}
    norm = {"scale": "D", "bias": "D"}
    assert letters("patches") == ends
    convolutions = {"convolution_0": {"kernel": "33NN"}, "convolution_1": {"kernel": "33NN"}}
    assert letters("convolution") == {**ends, **convolutions, "norm_0": norm, "norm_1": norm}


def test_a_vector_is_one_region():
    module, vectors = (
        Regions(Captioning(source="vectors", size=5), WIDTH),
        np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32),
    )
    params = nn.unbox(module.init(jax.random.key(0), vectors)["params"])
    found = module.apply({"params": params}, vectors)
    assert found.shape == (3, 1, WIDTH)
    tiny.assert_close(found[:, 0], vectors @ params["projection"]["kernel"] + params["projection"]["bias"])


def test_the_doubly_stochastic_term():
    weights = jnp.asarray([[[0.5, 0.5, 0.0], [0.25, 0.25, 0.5], [1.0, 0.0, 0.0]]] * 3)
    mask = jnp.asarray([[True, True, False], [True, True, True], [False, False, False]])
    # Two words: sums of 0.75, 0.75, 0.5. Three words: 1.75, 0.75, 0.5.
    tiny.assert_close(doubly_stochastic(weights, mask), np.array([0.0625 + 0.0625 + 0.25, 0.5625 + 0.0625 + 0.25, 0.0]))
    assert doubly_stochastic(weights.astype(jnp.bfloat16), mask).dtype == jnp.float32
    even = jnp.full((1, 4, 4), 0.25)  # as many words as regions, each looked at once in all
    assert doubly_stochastic(even, jnp.ones((1, 4), bool))[0] == 0
