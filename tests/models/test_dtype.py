"""bfloat16 is a type of the computation: parameters, losses and gradients stay float32 and close to what float32 gives."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.extend.core import jaxprs_in_params

from jaxnmt import config as cfg
from jaxnmt.models.attention import SourceAttention, attend
from jaxnmt.models.layers import rotate
from jaxnmt.training.loss import batch_loss

PAIRS = tiny.random_pairs(6)
PACKED = tiny.batch_of(PAIRS, [[0, 1], [2, 3], [4], [5]], 16, 16, packed=True)
SINGLE = tiny.batch_of(PAIRS, [[i] for i in range(6)], 8, 8)
GRU_AND_LSTM = {"bahdanau": tiny.RECURRENT["bahdanau"], "luong": tiny.RNN}
MODELS = tiny.VARIANTS | {name: cfg.replace(config, bidirectional="none") for name, config in GRU_AND_LSTM.items()}


def loss_of(name, dtype):
    """A model's parameters, float32, and its loss as a function of them."""
    model = tiny.model_of(cfg.replace(MODELS[name], dtype=dtype))
    batch = PACKED if name in tiny.VARIANTS else SINGLE
    return tiny.params_of(model), lambda params: batch_loss(model, params, batch, None, 0.1).loss


@pytest.mark.parametrize("name", [name if name in ("post", "luong") else pytest.param(name, marks=pytest.mark.slow) for name in MODELS])
def test_bfloat16_stays_close_to_float32(name):
    losses = {dtype: loss_of(name, dtype) for dtype in ("float32", "bfloat16")}
    params = losses["float32"][0]
    (exact, exact_gradient), (rough, rough_gradient) = (jax.jit(jax.value_and_grad(loss))(params) for _, loss in losses.values())
    assert exact != rough  # the computation did change
    assert rough.dtype == jnp.float32 and abs(rough - exact) < 0.02 * exact
    flat = [np.concatenate([np.ravel(x) for x in jax.tree.leaves(gradient)]) for gradient in (exact_gradient, rough_gradient)]
    assert flat[1].dtype == np.float32
    assert np.linalg.norm(flat[1] - flat[0]) < 0.1 * np.linalg.norm(flat[0])


def types_of(jaxpr, *names):
    """{operation: types of what it reads}, in a program and all that it calls."""
    found = {name: set() for name in names}
    for equation in jaxpr.eqns:
        if equation.primitive.name in names:
            found[equation.primitive.name] |= {variable.aval.dtype.name for variable in equation.invars}
        for inner in jaxprs_in_params(equation.params):
            for name, types in types_of(inner, *names).items():
                found[name] |= types
    return found


@pytest.mark.parametrize("name", MODELS)
def test_bfloat16_multiplies_matrices_and_float32_takes_the_softmax_and_the_loss(name):
    """What is raised to the power of e is a softmax: that of the attention, and the output layer's with its logarithm, the loss."""
    params, loss = loss_of(name, "bfloat16")
    types = types_of(jax.make_jaxpr(jax.value_and_grad(loss))(params).jaxpr, "dot_general", "exp", "log")
    assert "bfloat16" in types["dot_general"] and types["exp"] == types["log"] == {"float32"}


@pytest.mark.parametrize("config", [MODELS[name] for name in ("pre", "bahdanau", "luong")], ids=["transformer", "gru", "lstm"])
def test_fresh_parameters_are_float32(config):
    model = tiny.model_of(cfg.replace(config, dtype="bfloat16"))
    assert {x.dtype for x in jax.tree.leaves(jax.eval_shape(model.init, jax.random.key(0)))} == {jnp.dtype("float32")}


def operations(jaxpr, name):
    """(types that it reads, types that it gives) of each operation of a name, in a program and all that it calls, in their order."""
    found = []
    for e in jaxpr.eqns:
        if e.primitive.name == name:
            found.append(tuple(tuple(v.aval.dtype.name for v in side) for side in (e.invars, e.outvars)))
        for inner in jaxprs_in_params(e.params):
            found += operations(inner, name)
    return found


QUERY = [[16.0, 1.0]]
SCORES = {  # weights of two source states whose scores are 256 and 257; bfloat16 has no 257
    "dot": {"keys": [[[16.0, 0.0], [16.0, 1.0]]]},
    "additive": {"query": [[0.0, 0.0], [0.0, 0.0]], "keys": [[[99.0, 0.0], [99.0, 99.0]]], "scorer": [256.0, 1.0]},
    "location": {"locations": [[16.0, 16.0], [0.0, 1.0]]},
}


class _Attention(nn.Module):
    def __call__(self, q, k, v):
        return attend(self, q, k, v, jnp.ones((1, 1, 2), bool), 0.0, None)


def softmax_of_256_and_257(score):
    """The weights that each kind of attention gives in bfloat16 to scores of 256 and 257."""
    bf16 = lambda x: jnp.asarray(x, jnp.bfloat16)  # noqa: E731
    if score == "dot_product":  # queries are divided by sqrt(4)
        q, k = bf16([[[[32.0, 2.0, 0.0, 0.0]]]]), bf16([[[[16.0, 0.0, 0.0, 0.0]], [[16.0, 1.0, 0.0, 0.0]]]])
        values = bf16([[[[1.0, 0.0, 0.0, 0.0]], [[0.0, 1.0, 0.0, 0.0]]]])
        return _Attention().apply({}, q, k, values)[0, 0, 0, :2]
    weights = {name: bf16(x) for name, x in SCORES[score].items()}
    weights |= {"values": jnp.zeros((1, 2, 2), jnp.bfloat16), "mask": jnp.ones((1, 2), bool)}
    return SourceAttention(score, 2, 2, 2, 0, 2, jnp.bfloat16).attend(weights, bf16([QUERY]))[1][0, 0]


@pytest.mark.parametrize("score", ["dot_product", *SCORES])
def test_scores_are_not_rounded_to_bfloat16_before_the_softmax(score):
    e = math.e
    np.testing.assert_allclose(np.asarray(softmax_of_256_and_257(score), np.float32), [1 / (1 + e), e / (1 + e)], rtol=1e-2)


def test_the_place_of_local_attention_is_not_rounded_to_bfloat16():
    """Luong et al. 2015, equation 9: of 1000 words, at 1000 * sigmoid(v tanh(W q))."""
    weights = {"keys": jnp.zeros((1, 1000, 2)), "values": jnp.zeros((1, 1000, 2)), "mask": jnp.ones((1, 1000), bool)}
    weights = weights | {
        "place": 99 * jnp.eye(2),
        "place_scorer": jnp.array([1.0, 1 / 128 + 1 / 256]),
    }  # the sum has nine digits, bfloat16 eight
    weights = {name: x if x.dtype == bool else x.astype(jnp.bfloat16) for name, x in weights.items()}
    _, shares = SourceAttention("dot", 2, 2, 2, 3, 2, jnp.bfloat16).attend(weights, jnp.asarray([[[1.0, 1.0]]], jnp.bfloat16))
    place = 1000 / (1 + math.exp(-1 - 1 / 128 - 1 / 256))
    near = np.abs(np.arange(1000) - place) <= 3
    expected = np.where(near, np.exp(-2 * np.square((np.arange(1000) - place) / 3)), 0) / near.sum()
    np.testing.assert_allclose(shares[0, 0], expected, rtol=0.02, atol=1e-3)


def test_rotary_positions_turn_by_angles_in_float32():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 200, 1, 8)), jnp.bfloat16)
    positions = jnp.arange(200)[None]
    exact = rotate(x.astype(jnp.float32), positions)
    np.testing.assert_array_equal(rotate(x, positions), exact.astype(jnp.bfloat16))


def test_the_output_layers_logits_are_float32_before_they_are_rounded():
    model = tiny.model_of(cfg.replace(tiny.BASE, dtype="bfloat16"))
    program = jax.make_jaxpr(lambda params: model.decode(params, model.encode(params, SINGLE), SINGLE))(tiny.params_of(model))
    assert operations(program.jaxpr, "dot_general")[-1] == (("bfloat16", "bfloat16"), ("float32",))


def test_biases_gather_their_gradients_in_float32():
    params, loss = loss_of("pre", "bfloat16")
    sums = operations(jax.make_jaxpr(jax.grad(loss))(params).jaxpr, "reduce_sum")
    assert sums and not any("bfloat16" in read for read, _ in sums)
