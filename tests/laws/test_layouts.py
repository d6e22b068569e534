"""Equal mathematics in different layouts, beyond what is asked of every rung: stacked optimizer states, packed rows in parts, remat."""

import functools

import jax
import numpy as np
import pytest
import tiny

from jaxnmt import config as cfg
from jaxnmt.lab.laws import gradients
from jaxnmt.lab.laws.gradients import gradient_of
from jaxnmt.models.parameters import stack_layers, unstack_layers
from jaxnmt.training.optim import make_optimizer
from jaxnmt.training.state import TrainState, initial_state
from jaxnmt.training.step import accumulate_gradient

NOISY = {"dropout": 0.3, "attention_dropout": 0.2, "activation_dropout": 0.2}
PAIRS = tiny.random_pairs(7)


@pytest.mark.parametrize("name", ["adam", "adafactor", "muon", "lion"])
def test_stacking_and_unstacking_are_inverse_for_parameters_and_optimizer_states(name):
    config = cfg.replace(tiny.BASE, num_encoder_layers=12)  # layer_10 comes after layer_9, not after layer_1
    model, scanned = tiny.model_of(config), tiny.model_of(cfg.replace(config, scan_layers=True))
    random = np.random.default_rng(0)
    optimizers = {m: make_optimizer(cfg.Optimizer(name=name), m.axes) for m in (model, scanned)}
    shapes = [jax.eval_shape(lambda m=m: initial_state(m, optimizers[m], cfg.Training(ema_decay=0.9))) for m in (model, scanned)]
    state = jax.tree.map(lambda x: random.integers(0, 99, x.shape).astype(x.dtype), shapes[0])
    stacked = stack_layers(state)
    same_shape = jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), stacked, shapes[1])
    if name != "adafactor":  # which factors a stacked kernel otherwise than a single one
        assert all(jax.tree.leaves(same_shape))
    np.testing.assert_array_equal(
        stacked.params["encoder"]["layers"]["mlp"]["wi"]["bias"][10], state.params["encoder"]["layer_10"]["mlp"]["wi"]["bias"]
    )
    tiny.assert_same(unstack_layers(stacked), state)


def test_a_batch_in_parts_has_the_gradient_of_the_whole():
    model = tiny.model_of(cfg.replace(tiny.BASE, **NOISY))
    batch = tiny.batch_of(PAIRS, [[3, 0], [5], [6, 1], [2, 4]], source=24, target=24, packed=True)
    params = tiny.params_of(model)
    state = TrainState(step=np.int32(2), params=params, opt_state=(), ema=None, lr_scale=np.float32(1), bad_steps=np.int32(0))
    one, four = (
        jax.jit(functools.partial(accumulate_gradient, model, cfg.Training(accumulation=parts)))(state, tiny.as_arrays(batch))
        for parts in (1, 4)
    )
    tiny.assert_close(four[1], one[1])
    tiny.assert_close(four[0], one[0], rtol=1e-4, atol=1e-6)
    tokens = float(one[1].tokens)
    assert tokens == batch["decoder_loss_weights"].sum() and np.isfinite(float(one[1].loss))


@pytest.mark.parametrize("remat", [pytest.param("dots", marks=pytest.mark.slow), "full"])
def test_what_is_computed_again_comes_out_the_same(remat):
    config = cfg.replace(tiny.BASE, **NOISY)
    kept, again = tiny.model_of(config), tiny.model_of(cfg.replace(config, remat=remat))
    params, batch = tiny.params_of(kept), tiny.batch_of(gradients.PAIRS, *gradients.SINGLE)
    tiny.assert_close(gradient_of(again, params, batch, True), gradient_of(kept, params, batch, True), rtol=1e-4, atol=1e-5)
