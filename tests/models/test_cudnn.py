"""Recurrent layers on GPUs: the fused LSTM has the scan's parameters, results and gradients (cuDNN is played by JAX's reference of its
interface), and so has a scan that computes its steps again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.experimental import rnn

from jaxnmt.models import cells
from jaxnmt.models.cells import RecurrentLayer
from jaxnmt.models.layers import DropoutKey
from jaxnmt.parallel import platform
from jaxnmt.training.loss import batch_loss


def played(x, h, c, weights, lengths, inputs, width, layers, dropout, bidirectional):
    parts = rnn.unpack_lstm_weights(weights, inputs, width, layers, bidirectional)
    return rnn.lstm_ref(x, h, c, *parts, lengths, inputs, width, layers, dropout, bidirectional)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("context", [0, 3])
def test_the_fused_lstm_is_the_scan(reverse, context, monkeypatch):
    layer = RecurrentLayer("lstm", "tanh", 5, 4, context, jnp.float32)
    random = np.random.default_rng(0)
    x, lengths = random.standard_normal((6, 4, 5)).astype(np.float32), np.array([6, 3, 0, 1])
    mask = (np.arange(6)[:, None] < lengths)[..., None]
    state = tuple(jnp.asarray(random.standard_normal((4, 4)), jnp.float32) for _ in range(2))
    more = jnp.asarray(random.standard_normal((1, 4, context)), jnp.float32) if context else None
    params = layer.init(jax.random.key(0), x, state, mask, reverse, more)
    params = jax.tree.map(lambda p: jnp.asarray(random.standard_normal(p.shape), jnp.float32), params)
    out = jnp.asarray(random.standard_normal((6, 4, 4)), jnp.float32)

    def results(params, x, state):
        h, last = layer.apply(params, x, state, mask, reverse, more)
        return (h * out).sum() + 2 * last[0].sum() + 3 * last[1].sum(), (h, last)

    both = []
    for fused in (False, True):
        monkeypatch.setattr(cells, "fits_cudnn", lambda *_, fused=fused: fused)
        monkeypatch.setattr(rnn, "lstm", played)
        both.append(jax.jit(lambda *a: jax.value_and_grad(results, argnums=(0, 1, 2), has_aux=True)(*a))(params, x, state))
    tiny.assert_close(both[1], both[0], rtol=1e-4, atol=1e-5)
    assert (np.asarray(both[0][0][1][0])[:, 2] == 0).all()  # the empty sentence


@pytest.mark.parametrize(
    "rung", ["luong_concat", *(pytest.param(name, marks=pytest.mark.slow) for name in tiny.RECURRENT if "concat" not in name)]
)
def test_kernels_have_the_same_gradient_after_the_loop(rung, monkeypatch):
    """With dropout, which must be drawn again alike, where a step is computed again in the backward pass."""
    model = tiny.model_of(tiny.RUNGS[rung])
    params, batch = tiny.params_of(model), tiny.as_arrays(tiny.batch_of(tiny.random_pairs(4), [[i] for i in range(4)], 8, 8))

    found = []
    for kind in ("cpu", "nvidia"):
        monkeypatch.setattr(platform, "kind_of", lambda mesh, kind=kind: kind)

        def loss(params):  # a function of its own: nothing traced is kept
            return batch_loss(model, params, batch, DropoutKey.of(1, jnp.int32(2), jnp.arange(4)), 0.1).loss

        assert ("name=run" in str(jax.make_jaxpr(loss)(params))) == (kind == "nvidia")
        found.append(jax.jit(jax.value_and_grad(loss))(params))
    tiny.assert_close(*found, rtol=1e-4, atol=1e-5)
