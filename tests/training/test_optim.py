"""Update rules and schedules."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxnmt.config import Experiment, Optimizer, Schedule, replace
from jaxnmt.config.checks import validate
from jaxnmt.errors import UserError
from jaxnmt.models.parameters import stack_layers
from jaxnmt.parallel.axes import path_name
from jaxnmt.training.optim import learning_rate, make_optimizer

NAMES = ("adam", "adamw", "adafactor", "lion", "muon")


def rate(step, total=100, **fields):
    return float(learning_rate(Schedule(**fields), total, jnp.int32(step)))


def test_warm_up_and_inverse_square_root_by_hand():
    # the first step is number 1: it is trained on too
    found = [rate(n - 1, name="noam", learning_rate=0.4, warmup_steps=4) for n in (1, 2, 4, 16, 100)]
    np.testing.assert_allclose(found, [0.1, 0.2, 0.4, 0.2, 0.08], rtol=1e-5)


def test_noam_is_equation_3_of_the_paper():
    width, warmup = 512, 4000
    for n in (1, 1000, 4000, 100_000):
        paper = width**-0.5 * min(n**-0.5, n * warmup**-1.5)
        found = rate(n - 1, name="noam", learning_rate=(width * warmup) ** -0.5, warmup_steps=warmup)
        assert found == pytest.approx(paper, rel=1e-5)


def test_cosine_line_and_constant_by_hand():
    fields = {"learning_rate": 0.5, "warmup_steps": 20, "final_ratio": 0.2}
    at = lambda name: [rate(n - 1, name=name, **fields) for n in (10, 20, 40, 60, 100)]  # noqa: E731
    np.testing.assert_allclose(at("linear"), [0.25, 0.5, 0.4, 0.3, 0.1], rtol=1e-5)
    quarter = 0.5 * (0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi / 4)))
    np.testing.assert_allclose(at("cosine"), [0.25, 0.5, quarter, 0.3, 0.1], rtol=1e-5)
    np.testing.assert_allclose(at("constant"), [0.25] + [0.5] * 4, rtol=1e-5)
    np.testing.assert_allclose(at("plateau"), at("constant"))
    assert rate(500, name="cosine", **fields) == pytest.approx(0.1)  # past the end it stays


@pytest.mark.parametrize("name", ["cosine", "linear", "constant", "plateau"])
def test_no_warm_up_begins_at_the_peak(name):
    assert rate(0, 10**6, name=name, learning_rate=0.5, warmup_steps=0) == pytest.approx(0.5, rel=1e-5)


MODELS = {  # both kinds of norm's parameters; vectors that are neither norm nor bias: the scorers of additive and of local attention
    "unrolled": replace(tiny.VARIANTS["rotary"], norm="layernorm"),
    "scanned": replace(tiny.VARIANTS["rotary"], norm="layernorm"),
    "recurrent": replace(tiny.RECURRENT["luong_concat"], copy=False, window=3),
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("name", NAMES)
def test_every_rule_moves_every_parameter_finitely_and_decays_matrices_alone(name, kind):
    params = tiny.params_of(tiny.model_of(MODELS[kind]))
    vectors = {path_name(path) for path, x in jax.tree_util.tree_leaves_with_path(params) if x.ndim < 2}
    assert kind != "recurrent" or {"decoder/cross_attention/scorer", "decoder/cross_attention/place_scorer"} <= vectors
    axes = tiny.model_of(MODELS[kind]).axes
    if kind == "scanned":
        params, vectors = stack_layers(params), {name.replace("layer_0", "layers") for name in vectors}
        axes = tiny.model_of(replace(MODELS[kind], scan_layers=True)).axes
    gradient = jax.tree.map(jnp.cos, params)

    def update(decay):
        rule = make_optimizer(Optimizer(name=name, weight_decay=decay), axes)
        return jax.jit(lambda g: rule.update(g, rule.init(params), params)[0])(gradient)

    plain, decayed = update(0.0), update(0.1)

    def check(path, before, without, with_decay):
        spared = name == "adam" or path_name(path) in vectors or path[-1].key == "bias"
        assert np.isfinite(without).all() and np.abs(without).max() > 0
        np.testing.assert_allclose(
            with_decay - without, 0 * before if spared else -0.1 * before, atol=1e-5, err_msg=jax.tree_util.keystr(path)
        )

    jax.tree_util.tree_map_with_path(check, params, plain, decayed)


def test_decay_is_decoupled_and_proportional():
    params = {"wi": {"kernel": jnp.full((2, 2), 3.0), "bias": jnp.full((2,), 3.0)}}
    rule = make_optimizer(Optimizer(name="adamw", weight_decay=0.1), {"wi": {"kernel": "DF", "bias": "F"}})
    updates, _ = rule.update(jax.tree.map(jnp.zeros_like, params), rule.init(params), params)
    np.testing.assert_allclose(updates["wi"]["kernel"], -0.3, rtol=1e-6)
    assert (updates["wi"]["bias"] == 0).all()


def test_adam_by_hand():
    # the first update is the gradient's sign; after a second gradient g2: m = (b1 (1-b1) g1 + (1-b1) g2) / (1 - b1^2), v likewise
    rule = make_optimizer(Optimizer(name="adam", beta1=0.9, beta2=0.98, epsilon=0.0), {"x": "D"})
    params = {"x": jnp.zeros(1)}
    first, state = rule.update({"x": jnp.array([4.0])}, rule.init(params), params)
    assert float(first["x"][0]) == pytest.approx(-1.0, rel=1e-5)
    second, _ = rule.update({"x": jnp.array([-2.0])}, state, params)
    m = (0.9 * 0.1 * 4 - 0.1 * 2) / (1 - 0.9**2)
    v = (0.98 * 0.02 * 16 + 0.02 * 4) / (1 - 0.98**2)
    assert float(second["x"][0]) == pytest.approx(-m / math.sqrt(v), rel=1e-4)


def test_muon_updates_have_one_scale_in_all_directions():
    """What Muon is: a matrix's update has singular values near one another, whatever the gradient's."""
    model = tiny.model_of(tiny.BASE)
    params = tiny.params_of(model)
    rule = make_optimizer(Optimizer(name="muon"), model.axes)
    updates, _ = jax.jit(lambda g: rule.update(g, rule.init(params), params))(params)
    layer = updates["encoder"]["layer_0"]
    for matrix in (
        layer["mlp"]["wi"]["kernel"],
        layer["self_attention"]["qkv"]["kernel"].reshape(16, 3, 16)[:, 1],
        layer["self_attention"]["out"]["kernel"].reshape(16, 16),
    ):
        values = np.linalg.svd(matrix, compute_uv=False)
        assert values.max() / np.median(values) < 2.5, values


@pytest.mark.parametrize("name", NAMES)
def test_every_field_of_an_optimizer_has_an_effect_or_is_refused(name):
    """A setting that does nothing is a lie. Clipping is the step's: test_step.py."""
    random = np.random.default_rng(0)
    params = {"wi": {"kernel": jnp.asarray(random.standard_normal((4, 4)), jnp.float32), "bias": jnp.ones(4)}}

    def updates_of(config):
        rule = make_optimizer(config, {"wi": {"kernel": "DF", "bias": "F"}})
        state = rule.init(params)
        for scale in (1.0, -0.5, -0.01):
            updates, state = rule.update(jax.tree.map(lambda p, s=scale: s * jnp.sin(p), params), state, params)
        return np.concatenate([np.ravel(x) for x in jax.tree.leaves(updates)])

    values = {"beta1": 0.5, "beta2": 0.5, "epsilon": 0.1, "weight_decay": 0.1}
    assert {field.name for field in dataclasses.fields(Optimizer)} == {"name", "clip_norm", *values}
    for field, value in values.items():
        config = replace(Optimizer(name=name), **{field: value})
        if np.abs(updates_of(config) - updates_of(Optimizer(name=name))).max() > 1e-3:
            validate(Experiment(optimizer=config))
        else:
            with pytest.raises(UserError, match=f"optimizer.{field} {value:g} has no effect with optimizer.name {name}"):
                validate(Experiment(optimizer=config))


@pytest.mark.parametrize("name", ["noam", "cosine", "linear", "constant", "plateau"])
def test_every_field_of_a_schedule_has_an_effect_or_is_refused(name):
    """What the plateau schedule does with its own is the loop's: test_loop.py."""
    values = {"learning_rate": 0.5, "warmup_steps": 7, "final_ratio": 0.5, "plateau_factor": 0.25, "plateau_patience": 9}
    assert {field.name for field in dataclasses.fields(Schedule)} == {"name", *values}
    for field, value in values.items():
        config = replace(Schedule(name=name, warmup_steps=5), **{field: value})
        rates = [
            [float(learning_rate(each, 20, jnp.int32(n))) for n in range(20)] for each in (config, Schedule(name=name, warmup_steps=5))
        ]
        if rates[0] != rates[1] or (name == "plateau" and field.startswith("plateau")):
            validate(Experiment(schedule=config))
        else:
            with pytest.raises(UserError, match=f"schedule.{field} {value:g} has no effect with schedule.name {name}"):
                validate(Experiment(schedule=config))
