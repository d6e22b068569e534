"""The loss: by hand, against optax, and the fused form against the plain one."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from jaxnmt.parallel import platform
from jaxnmt.training import loss as losses
from jaxnmt.training.loss import batch_loss, cross_entropy, projected_cross_entropy

pytestmark = pytest.mark.as_shipped

random = np.random.default_rng(0)


def test_label_smoothing_by_hand():
    # p = (1/2, 1/4, 1/4), reference 0, smoothing 0.3: the wanted distribution is (0.8, 0.1, 0.1)
    logits = jnp.log(jnp.array([[[0.5, 0.25, 0.25]]]))
    loss, nll, correct = cross_entropy(logits, jnp.array([[0]]), jnp.ones((1, 1)), 0.3)
    assert float(correct) == 1 and float(cross_entropy(logits, jnp.array([[1]]), jnp.ones((1, 1)), 0.3)[2]) == 0
    assert float(loss) == pytest.approx(0.8 * math.log(2) + 0.2 * math.log(4)) and float(nll) == pytest.approx(math.log(2))


def test_plain_loss_is_optax_summed_over_what_has_weight():
    logits = jnp.asarray(random.standard_normal((3, 5, 11)), jnp.float32)
    targets, weights = random.integers(0, 11, (3, 5)), (random.random((3, 5)) < 0.6).astype(np.float32)
    loss, nll, correct = cross_entropy(logits, targets, weights, 0.1)
    assert float(correct) == pytest.approx(((np.asarray(logits).argmax(-1) == targets) * weights).sum())
    wanted = optax.smooth_labels(jax.nn.one_hot(targets, 11), 0.1)
    assert float(loss) == pytest.approx(float((optax.softmax_cross_entropy(logits, wanted) * weights).sum()), rel=1e-5)
    plain = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    assert float(nll) == pytest.approx(float((plain * weights).sum()), rel=1e-5)


@pytest.mark.parametrize("length", [7, 64, 600])
@pytest.mark.parametrize("smoothing, kind", [(0.0, "cpu"), (0.1, "cpu"), (0.1, "nvidia")])
def test_the_fused_loss_is_the_plain_one_and_so_are_its_gradients(length, smoothing, kind, monkeypatch):
    monkeypatch.setattr(losses, "CHUNK_TOKENS", 48)
    monkeypatch.setattr(platform, "kind_of", lambda mesh: kind)
    monkeypatch.setattr(platform, "_ACCELERATOR", platform._ACCELERATOR._replace(logits=100 * 16))
    vocab, size, rows = 13, 16, 3  # three ids of the table are padding
    features = jnp.asarray(random.standard_normal((rows, length, 8)), jnp.float32)
    table = jnp.asarray(random.standard_normal((size, 8)), jnp.float32)
    targets = jnp.asarray(random.integers(0, vocab, (rows, length)))
    weights = jnp.asarray(random.random((rows, length)) < 0.7, jnp.float32)

    def fused(features, table):
        return projected_cross_entropy(features, table, targets, weights, vocab, smoothing)

    def plain(features, table):
        return cross_entropy((features @ table.T)[..., :vocab], targets, weights, smoothing)

    def thrice(sums):
        return lambda *x: (3 * sums(*x)[0], sums(*x))

    arguments = {"argnums": (0, 1), "has_aux": True}
    (loss, found), gradient = jax.jit(jax.value_and_grad(thrice(fused), **arguments))(features, table)
    (expected_loss, expected_sums), expected = jax.jit(jax.value_and_grad(thrice(plain), **arguments))(features, table)
    np.testing.assert_allclose([loss, *found], [expected_loss, *expected_sums], rtol=1e-5)
    tiny.assert_close(gradient, expected, rtol=1e-4, atol=1e-4)
    assert (np.asarray(gradient[1])[vocab:] == 0).all()
    np.testing.assert_allclose(jax.jit(fused)(features, table), found, rtol=1e-5)  # the form without a gradient


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shards", [1, 2])
def test_a_bias_in_chunks_is_the_bias_of_the_logits(dtype, shards, monkeypatch):
    monkeypatch.setattr(losses, "CHUNK_TOKENS", 16)
    monkeypatch.setattr(losses, "num_shards", lambda letter, mesh: shards)
    monkeypatch.setattr(losses, "is_replicated", lambda letter, mesh: shards == 1)
    features, table = (jnp.asarray(random.standard_normal(shape), dtype) for shape in ((4, 30, 8), (16, 8)))
    bias = jnp.asarray(3 * random.standard_normal(16), jnp.float32)
    targets = jnp.asarray(random.integers(0, 13, (4, 30)))
    weights = jnp.asarray(random.random((4, 30)) < 0.7, jnp.float32)

    def fused(features, table, bias):
        return projected_cross_entropy(features, table, targets, weights, 13, 0.1, None, bias)

    def plain(features, table, bias):
        logits = jnp.einsum("BTD,VD->BTV", features, table, preferred_element_type=jnp.float32) + bias
        return cross_entropy(logits[..., :13], targets, weights, 0.1)

    assert losses._split(features, targets, weights, 16, None)[1] > 1

    def gradient(sums):
        return jax.jit(jax.value_and_grad(lambda *x: (3 * sums(*x)[0], sums(*x)), (0, 1, 2), has_aux=True))(features, table, bias)

    found, expected = gradient(fused), gradient(plain)
    np.testing.assert_allclose(found[0][1], expected[0][1], rtol=1e-5)
    tiny.assert_close(found[1][2], expected[1][2], rtol=1e-4, atol=1e-4)
    loose = {"rtol": 1e-4, "atol": 1e-4} if dtype == "float32" else {"rtol": 0.05, "atol": 0.05}
    tiny.assert_close(found[1][:2], expected[1][:2], **loose)
    assert found[1][2].dtype == bias.dtype and (np.asarray(found[1][2])[13:] == 0).all()
    zero = jax.jit(lambda bias: fused(features, table, bias))(jnp.zeros_like(bias))  # a bias of zeros is no bias
    assert [float(x) for x in zero] == [float(x) for x in jax.jit(lambda: fused(features, table, None))()]


@pytest.mark.parametrize(("length", "rounds"), [(127, 3), (48, 1), (96, 2), (7, 1), (600, 13)])
def test_rows_spread_over_devices_are_padded_to_whole_chunks(length, rounds, monkeypatch):
    """A prime length would else take as many rounds as it has positions, or one of all of them."""
    monkeypatch.setattr(losses, "CHUNK_TOKENS", 48)
    monkeypatch.setattr(losses, "is_replicated", lambda letter, mesh: letter != "B")
    monkeypatch.setattr(losses, "num_shards", lambda letter, mesh: 4)
    features = jnp.asarray(random.standard_normal((4, length, 8)), jnp.float32)
    table, targets = jnp.asarray(random.standard_normal((16, 8)), jnp.float32), jnp.asarray(random.integers(0, 13, (4, length)))
    weights = jnp.asarray(random.random((4, length)) < 0.7, jnp.float32)
    assert losses._split(features, targets, weights, 16, None)[1] == rounds
    fused = jax.jit(jax.value_and_grad(lambda *x: projected_cross_entropy(*x, targets, weights, 13, 0.1)[0], (0, 1)))
    plain = jax.jit(jax.value_and_grad(lambda x, y: cross_entropy((x @ y.T)[..., :13], targets, weights, 0.1)[0], (0, 1)))
    tiny.assert_close(fused(features, table), plain(features, table), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["learned", "post"])  # the latter has a bias
def test_a_models_loss_is_that_of_its_logits_and_padding_ids_have_no_chance(name):
    model = tiny.model_of(tiny.VARIANTS[name])
    params = tiny.params_of(model)
    if name == "post":
        params = params | {"output_bias": jnp.asarray(random.standard_normal(128), jnp.float32)}
    assert model.has_features
    batch = tiny.as_arrays(tiny.batch_of(tiny.random_pairs(4), [[0], [1], [2], [3], []], 9, 8))

    @jax.jit
    def both(params):
        logits = model.decode(params, model.encode(params, batch), batch)
        return batch_loss(model, params, batch, None, 0.1), logits

    sums, logits = both(params)
    expected = cross_entropy(logits[..., : tiny.TARGET_VOCAB], batch["decoder_target_tokens"], batch["decoder_loss_weights"], 0.1)
    np.testing.assert_allclose([sums.loss, sums.nll, sums.correct], expected, rtol=1e-5)
    assert float(sums.tokens) == sum(len(target) + 1 for _, target in tiny.random_pairs(4))
    assert logits.shape[-1] == 128 and np.isneginf(np.asarray(logits[..., tiny.TARGET_VOCAB :])).all()
    assert np.isfinite(np.asarray(logits[..., : tiny.TARGET_VOCAB])).all()
