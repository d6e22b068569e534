"""One optimizer step: clipping, the average, the learning rate's scale, and gradients that are not finite."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from jaxnmt.config import Experiment, Mesh, replace
from jaxnmt.errors import UserError
from jaxnmt.models.layers import DropoutKey
from jaxnmt.parallel import platform
from jaxnmt.parallel.sharding import make_mesh
from jaxnmt.training.loss import batch_loss
from jaxnmt.training.optim import make_optimizer
from jaxnmt.training.state import TrainState, abstract_state, widen
from jaxnmt.training.step import accumulate_gradient, train_step

as_shipped = pytest.mark.as_shipped
MODEL = tiny.model_of(tiny.BASE)
BATCH = tiny.as_arrays(tiny.batch_of(tiny.random_pairs(3), [[0], [1], [2], []], 9, 8))
CONFIG = replace(Experiment(model=tiny.BASE), **{"schedule.name": "constant", "schedule.learning_rate": 0.01, "schedule.warmup_steps": 0})


def state_of(config, **changes):
    params = tiny.params_of(MODEL)
    ema = jax.tree.map(jnp.zeros_like, params) if config.training.ema_decay else None
    made = {
        "step": jnp.int32(0),
        "opt_state": make_optimizer(config.optimizer, MODEL.axes).init(params),
        "ema": ema,
        "lr_scale": jnp.float32(1),
    }
    return TrainState(**({"params": params, "bad_steps": jnp.int32(0)} | made | changes))


@functools.cache
def program(config):
    return jax.jit(functools.partial(train_step, MODEL, make_optimizer(config.optimizer, MODEL.axes), config))


@as_shipped
def test_the_gradient_is_that_of_the_mean_over_tokens_at_this_step_and_seed():
    config, model = replace(CONFIG, **{"training.seed": 5}), tiny.model_of(replace(tiny.BASE, dropout=0.3))
    state = state_of(config, step=jnp.int32(7))
    found, _ = jax.jit(functools.partial(accumulate_gradient, model, config.training))(state, BATCH)

    def mean(params):
        sums = batch_loss(model, params, BATCH, DropoutKey.of(5, jnp.int32(7), jnp.arange(4)), 0.1)
        return sums.loss / sums.tokens

    tiny.assert_close(found, jax.jit(jax.grad(mean))(state.params), rtol=1e-5, atol=1e-6)


@as_shipped
def test_the_update_is_optaxs_at_the_learning_rate():
    state = state_of(CONFIG)
    new, metrics = program(CONFIG)(state, BATCH)
    gradient, sums = jax.jit(functools.partial(accumulate_gradient, MODEL, CONFIG.training))(state, BATCH)
    assert float(metrics.gradient_norm) == pytest.approx(float(optax.tree.norm(gradient)), rel=1e-4)
    rule = make_optimizer(CONFIG.optimizer, MODEL.axes)
    updates, _ = rule.update(gradient, state.opt_state, state.params)
    expected = optax.apply_updates(state.params, jax.tree.map(lambda u: 0.01 * u, updates))
    largest = max(np.abs(g).max() for g in jax.tree.leaves(gradient))
    rounding = jax.tree.map(
        lambda g: (g != 0) & (np.abs(g) < 1e-6 * largest), gradient
    )  # Adam's first update is a sign: of rounding it may be either
    assert np.concatenate([np.ravel(x) for x in jax.tree.leaves(rounding)]).mean() < 0.01
    known = lambda tree: jax.tree.map(lambda x, unknown: np.where(unknown, 0, x), tree, rounding)  # noqa: E731
    tiny.assert_close(known(new.params), known(expected), rtol=0, atol=1e-6)
    assert (int(new.step), int(metrics.source_tokens), float(metrics.sums.tokens)) == (
        1,
        sum(len(source) + 1 for source, _ in tiny.random_pairs(3)),
        sum(len(target) + 1 for _, target in tiny.random_pairs(3)),
    )


def test_clipping_scales_the_gradient_to_the_norm_and_reports_the_whole():
    config = replace(CONFIG, **{"optimizer.clip_norm": 0.25})
    _, plain = program(CONFIG)(state_of(CONFIG), BATCH)
    new, metrics = program(config)(state_of(config), BATCH)
    assert float(metrics.gradient_norm) == pytest.approx(float(plain.gradient_norm), rel=1e-5) and float(plain.gradient_norm) > 0.25
    first_moment = new.opt_state[0].mu  # 0.1 g after one step
    assert float(optax.tree.norm(first_moment)) == pytest.approx(0.1 * 0.25, rel=1e-4)
    loose = replace(CONFIG, **{"optimizer.clip_norm": 1e4})
    assert float(optax.tree.norm(program(loose)(state_of(loose), BATCH)[0].opt_state[0].mu)) == pytest.approx(
        0.1 * float(plain.gradient_norm), rel=1e-4
    )


@pytest.mark.parametrize(("step", "weight"), [(0, 0.9), (9, 1 - 10 / 19), (10_000, 0.05)])
def test_the_average_by_hand(step, weight):
    # the new parameters' share is the larger of 1 - decay and 1 - (1 + n) / (10 + n)
    config = replace(CONFIG, **{"training.ema_decay": 0.95})
    new, _ = program(config)(state_of(config, step=jnp.int32(step)), BATCH)
    tiny.assert_close(new.ema, jax.tree.map(lambda p: weight * p, new.params), rtol=1e-4, atol=1e-6)


def test_what_the_plateau_cut_scales_the_learning_rate():
    new, metrics = program(CONFIG)(state_of(CONFIG, lr_scale=jnp.float32(0.25)), BATCH)
    assert float(metrics.learning_rate) == pytest.approx(0.0025) and float(new.lr_scale) == 0.25


@as_shipped
@pytest.mark.parametrize("kind", ["cpu", "nvidia"])
def test_a_step_that_is_not_finite_changes_nothing_but_counters(kind, monkeypatch, request):
    monkeypatch.setattr(platform, "kind_of", lambda mesh: kind)
    request.addfinalizer(program.cache_clear)
    program.cache_clear()
    config = replace(CONFIG, **{"training.ema_decay": 0.95})
    params = tiny.params_of(MODEL)
    params["encoder"]["final_norm"]["scale"] = params["encoder"]["final_norm"]["scale"].at[0].set(jnp.nan)
    state = state_of(config, params=params, bad_steps=jnp.int32(2))
    new, metrics = program(config)(state, BATCH)
    assert not bool(metrics.finite) and int(metrics.bad_steps) == int(new.bad_steps) == 3 and int(new.step) == 1
    for name in ("params", "opt_state", "ema"):
        tiny.assert_same(getattr(new, name), getattr(state, name))
    good, metrics = program(config)(state_of(config, bad_steps=jnp.int32(3)), BATCH)
    assert bool(metrics.finite) and int(good.bad_steps) == 0


def in_dtype(tree, dtype):
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


def narrow(config, dtype):
    """A state whose parameters have a dtype."""
    params = in_dtype(tiny.params_of(MODEL), dtype)
    opt_state = make_optimizer(config.optimizer, MODEL.axes).init(widen(params))
    return state_of(config, params=params, opt_state=opt_state, ema=widen(params) if config.training.ema_decay else None)


@pytest.mark.parametrize(
    ("rule", "dtype"),
    [
        ("adam", "bfloat16"),
        ("adafactor", "bfloat16"),
        ("lion", "float16"),
        *(pytest.param(rule, "bfloat16", marks=pytest.mark.slow) for rule in ("lion", "muon")),
        *(pytest.param(rule, "float16", marks=pytest.mark.slow) for rule in ("adam", "adamw", "muon", "adafactor")),
    ],
)
def test_parameters_optimizer_state_and_average_keep_their_dtypes(rule, dtype):
    changes = {"optimizer.name": rule, "optimizer.clip_norm": 1.0, "training.ema_decay": 0.9, "training.accumulation": 2}
    config = replace(CONFIG, **changes)
    states = [narrow(config, dtype)]
    for _ in range(2):
        new, metrics = program(config)(states[-1], BATCH)
        states.append(new)
        assert bool(metrics.finite) and metrics.gradient_norm.dtype == jnp.float32
    assert len({str(jax.tree.map(lambda x: (x.shape, x.dtype), state)) for state in states}) == 1
    wide = states[0]
    wide = state_of(config, params=in_dtype(wide.params, "float32"), opt_state=wide.opt_state, ema=in_dtype(wide.ema, "float32"))
    wide = program(config)(wide, BATCH)[0]
    for found, expected in zip(jax.tree.leaves((states[1].params, states[1].ema)), jax.tree.leaves((wide.params, wide.ema)), strict=True):
        assert np.abs(np.asarray(found, np.float32) - expected).mean() < 6e-3  # a step moves a number by about 1e-2


def test_the_average_of_bfloat16_parameters_follows_small_steps():
    """In bfloat16 it would not move: what a step adds is less than half of the last bit."""
    config = replace(CONFIG, **{"training.ema_decay": 0.999})
    state = narrow(config, "bfloat16")
    state = dataclasses.replace(state, step=jnp.int32(100_000), ema=jax.tree.map(lambda x: x + 1, state.ema))
    new, _ = program(config)(state, BATCH)
    moved = jax.tree.map(
        lambda old, new, p: np.abs((old - new) - 0.001 * (old - np.asarray(p, np.float32))).max(), state.ema, new.ema, new.params
    )
    assert max(jax.tree.leaves(moved)) < 1e-6
    assert {x.dtype for x in jax.tree.leaves(new.eval_params)} == {jnp.dtype("bfloat16")}


def test_the_norm_of_a_float16_gradient_does_not_overflow():
    config = replace(CONFIG, **{"optimizer.clip_norm": 1.0})
    loud = BATCH | {"decoder_loss_weights": BATCH["decoder_loss_weights"] * 1e-5}  # of which the mean's divisor is 1 at least
    assert bool(program(config)(narrow(config, "float16"), loud)[1].finite)


def test_a_parameter_that_is_not_a_float_is_refused_by_name():
    class Counting(type(MODEL)):
        def init(self, key):
            return super().init(key) | {"steps": {"seen": jnp.zeros(3, jnp.int32)}}

    model = Counting(MODEL.module, MODEL.target_vocab)
    with pytest.raises(UserError, match="^the model's parameter steps/seen is int32, and only floats can be trained"):
        abstract_state(model, make_optimizer(CONFIG.optimizer, MODEL.axes), CONFIG.training, make_mesh(Mesh()))
