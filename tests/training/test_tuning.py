"""Freezing, learning rates by path, L2 to the start, and adapters: what moves, what does not, and that a killed run resumes to the bit."""

import dataclasses
import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax.traverse_util import flatten_dict

import jaxnmt
from jaxnmt import config as cfg
from jaxnmt import training_run
from jaxnmt.config import checks
from jaxnmt.config.files import save_config
from jaxnmt.data.loader import assemble
from jaxnmt.errors import UserError
from jaxnmt.models.parameters import training_flops
from jaxnmt.models.seq2seq import build_model
from jaxnmt.parallel.axes import path_name, rows_and_columns
from jaxnmt.parallel.sharding import to_mesh
from jaxnmt.runs import directory
from jaxnmt.training import lora as lora_module
from jaxnmt.training import tuning
from jaxnmt.training.checkpoints import Checkpoints
from jaxnmt.training.hooks import Log, Save
from jaxnmt.training.loop import Trainer
from jaxnmt.training.progress import Progress
from jaxnmt.training.step import batch_struct

FROZEN = {"training.freeze": ("shared_embedding", "encoder/layer_[0-3]")}
RATES = {"training.rates": ("encoder=0.1", ".*/bias=4", "decoder=0.5")}
PULLED = {"init.l2": 0.05}
LORA = {"training.lora.rank": 2, "training.lora.alpha": 6.0, "training.lora.paths": ("decoder",)}
KINDS = {"freeze": FROZEN, "rates": RATES, "l2": PULLED, "lora": LORA}
TOGETHER = {**FROZEN, **RATES, **PULLED, "optimizer.name": "adamw", "optimizer.weight_decay": 0.1, "optimizer.clip_norm": 100.0}
SHORT = {"training.steps": 4, "checkpoints.every": 2, "batching.layout": "buckets", "batching.max_shapes": 1, "logging.every": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the run `base`, of random parameters."""
    folder = tmp_path_factory.mktemp("tuning")
    (run := folder / "base").mkdir()
    config = tiny.experiment(folder, **SHORT, **{"training.seed": 2})
    save_config(config, run / directory.CONFIG)
    trainer = Trainer(config, run)
    with trainer.store as store:
        state = trainer.programs.fresh(config.training)
        store.save(dataclasses.replace(state, step=jnp.int32(3)), Progress(), None)
    return folder


def begun(folder, name, **changes):
    """The trainer of a run that begins with `base`."""
    config, run = cfg.replace(tiny.experiment(folder), **{"init.from": str(folder / "base")} | SHORT | changes), folder / name
    checks.validate(config)
    run.mkdir(exist_ok=True)
    save_config(config, run / directory.CONFIG)
    return Trainer(config, run, [Log(), Save()])


def session(folder, name, **changes):
    """Train such a run to its last step."""
    trainer = begun(folder, name, **changes)
    trainer.run()
    return trainer


def resumed(folder, name, **changes):
    """Return a trainer that went all the way, whose run another has equalled that stopped halfway; `base` is gone when it resumes."""
    whole = session(folder, f"{name}-whole", **changes)
    session(folder, f"{name}-part", **changes, **{"training.steps": 2})
    shutil.move(folder / "base", folder / "elsewhere")
    try:
        part = session(folder, f"{name}-part", **changes)
    finally:
        shutil.move(folder / "elsewhere", folder / "base")
    tiny.assert_same(part.state, whole.state)
    sums, records = [], []
    for run in (folder / f"{name}-whole", folder / f"{name}-part"):
        progress = json.loads((run / "checkpoints" / "4" / "progress" / "metadata").read_text())
        sums.append({item: value for item, value in progress["checksums"].items() if item != "progress"})
        records.append([record | {"timing": 0} for record in directory.read_metrics(run)])
    assert sums[0] == sums[1] and records[0] == records[1]
    return whole


@pytest.fixture(scope="module")
def together(folder):
    """The trainer of a run with frozen parts, learning rates by path and L2 to the start."""
    return resumed(folder, "together", **TOGETHER)


@pytest.fixture(scope="module")
def lora(folder):
    return resumed(folder, "lora", **LORA, **{"training.accumulation": 1})


def stored(run, which="latest"):
    return by_path(jaxnmt.load(run, which).params)


def by_path(tree):
    return {path_name(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def copied(tree):
    return jax.tree.map(jnp.copy, tree)


def stepped(trainer, state):
    """The state after the first batch, and the metrics."""
    planned = trainer.plan.batch(0)
    arrays = assemble(planned, trainer.data.train, trainer.objective)
    return trainer.programs(copied(state), planned.shape, to_mesh(arrays, trainer.mesh, planned.shape.rows))


# ---- frozen parts, rates, the start


def test_frozen_parameters_are_equal_to_the_bit_and_cost_no_state(together, folder):
    before, after, state = stored(folder / "base"), stored(folder / "together-whole"), together.state
    frozen = {name for name in before if name.startswith(("shared_embedding", "encoder/layer"))}
    assert frozen and {name for name in before if np.array_equal(before[name], after[name])} == frozen
    assert set(by_path(state.frozen)) == frozen and set(by_path(state.params)) == set(by_path(state.ema)) == set(before) - frozen
    trained = sum(x.size for x in jax.tree.leaves(state.params))
    assert sum(x.size for x in jax.tree.leaves(state.opt_state)) - 2 * trained < 8  # counters
    tiny.assert_same(by_path(state.frozen), {name: before[name] for name in frozen})


def test_gradients_of_frozen_parameters_are_not_computed(together):
    """The backward pass ends where the frozen encoder and its embeddings begin."""
    state, shape = together.programs.abstract, together.plan.shapes[0]
    batch = batch_struct(shape, False, together.mesh, together.config.task)
    text = together.programs.step.lower(state, batch).as_text(debug_info=True)
    computed = {found for found in re.findall(r'"transpose\(jvp\([^"]*/((?:en|de)coder/\w+)/', text)}
    assert "decoder/layer_0" in computed and {name for name in computed if name.startswith("encoder")} == {"encoder/final_norm"}


LAYER, KV, UPPER, TABLE = 4 * 16 * 16 + 2 * 16 * 24, 2 * 16 * 16, 6 * 16 * 16 + 2 * 16 * 24, 128 * 16
"""Weights of an encoder layer, of a decoder layer's keys and values, of the rest of that layer, and of the table."""
COUNTED = {  # for each weight and token: two encoder layers, keys and values of two decoder layers, these layers, the table
    "all": ({}, (6, 6), (6, 6), (6, 6), 6),
    "decoder": ({"freeze": ("shared_embedding", "encoder")}, (2, 2), (4, 4), (6, 6), 4),
    "last layer": ({"freeze": ("shared_embedding", "encoder", "decoder/layer_0")}, (2, 2), (2, 4), (2, 6), 4),
    "a norm": ({"freeze": ("shared_embedding", "encoder/layer_.*")}, (2, 2), (6, 6), (6, 6), 4),
    "upper encoder": ({"freeze": ("shared_embedding", "encoder/layer_0", "decoder")}, (2, 6), (4, 4), (4, 4), 4),
    "lora": ({"lora": cfg.Lora(rank=2)}, (6, 6), (6, 6), (6, 6), 4),
    "lora, decoder": ({"lora": cfg.Lora(rank=2, paths=("decoder",))}, (2, 2), (4, 4), (6, 6), 4),
    "lora, upper encoder": ({"lora": cfg.Lora(rank=2, paths=("encoder/layer_1",))}, (2, 6), (4, 4), (4, 4), 4),
}


@pytest.mark.parametrize("kind", COUNTED)
def test_operations_of_backward_passes_that_are_left_out_are_not_counted(kind):
    changes, encoder, kv, decoder, table = COUNTED[kind]
    model = build_model(cfg.replace(tiny.BASE, num_encoder_layers=2, num_decoder_layers=2), 9, 9)
    trained = tuning.trained_paths(cfg.Training(**changes), model)
    expected = 10 * (LAYER * sum(encoder) + KV * sum(kv)) + 7 * (UPPER * sum(decoder) + TABLE * table)
    assert training_flops(model, 10, 7, trained) == expected


@pytest.mark.parametrize(("subject", "last"), [("classifier", "embed_output/table"), ("learned", "output_embedding/table")])
def test_an_output_layer_that_alone_is_trained_needs_no_other_gradient(subject, last):
    config, task = tiny.SUBJECTS[subject]
    model = build_model(config, 9, 9, task)
    whole, alone = training_flops(model, 10, 7), training_flops(model, 10, 7, {last})
    assert whole == 3 * (alone - 2 * 7 * np.prod(flatten_dict(model.shapes, sep="/")[last].shape))  # the forward pass, and twice as much


def test_the_logged_utilisation_counts_what_is_computed(folder, monkeypatch):
    counted = []
    monkeypatch.setattr("jaxnmt.training.hooks.training_flops", lambda *args: counted.append(args[3]) or 1.0)
    session(folder, "counted", **LORA, **{"training.accumulation": 1, "training.steps": 1})
    assert counted[0] and all(name.startswith("decoder/") and name.endswith("/kernel") for name in counted[0])


def test_a_factor_is_of_the_learning_rate(together, folder):
    """Adam's first step moves a number by the learning rate, whatever its gradient is."""
    start = together.programs.fresh(together.config.training, {name: jnp.asarray(x) for name, x in stored(folder / "base").items()})
    state, metrics = stepped(together, start)
    before = by_path(start.params)
    for name, x in by_path(state.params).items():
        factor = 0.1 if name.startswith("encoder") else 4 if name.endswith("bias") else 0.5
        decay = 0 if x.ndim == 1 or name.endswith(("bias", "scale")) else 0.1 * before[name]
        moved = np.abs(x - before[name] + metrics.learning_rate * factor * decay)
        assert moved.max() == pytest.approx(float(metrics.learning_rate) * factor, rel=1e-2), name


def test_the_penalty_pulls_towards_the_start(together):
    """Its gradient is l2 (params - start), beside that of the loss. Adam's first moment is 0.1 of a first gradient."""
    fresh = together.programs.fresh(together.config.training)
    far = dataclasses.replace(fresh, start=jax.tree.map(lambda x: x + 1e-3, fresh.start))
    (near, metrics), (pulled, _) = stepped(together, fresh), stepped(together, far)
    assert metrics.gradient_norm < together.config.optimizer.clip_norm
    moments = [by_path(state.opt_state[0].mu) for state in (near, pulled)]
    for name, moment in moments[1].items():
        np.testing.assert_allclose(moment - moments[0][name], -0.1 * 0.05 * 1e-3, rtol=0, atol=2e-8, err_msg=name)


# ---- adapters


def test_adapters_begin_as_the_base_and_are_merged_for_decoding(lora, folder):
    base, state = stored(folder / "base"), lora.state
    fresh = lora.programs.fresh(lora.config.training, {name: jnp.asarray(x) for name, x in base.items()})
    tiny.assert_same(by_path(fresh.eval_params), base)  # B is 0
    tiny.assert_same(by_path(state.frozen), base)
    adapters = flatten_dict(jax.device_get(state.ema), sep="/")
    kernels = {name.rpartition("/")[0] for name in adapters}
    assert {name for name in base if name.startswith("decoder/") and name.endswith("kernel")} == kernels
    decoded = stored(folder / "lora-whole")
    tiny.assert_same(decoded, by_path(state.eval_params))
    assert {name for name in base if not np.array_equal(base[name], decoded[name])} == kernels
    name = "decoder/layer_0/self_attention/qkv/kernel"
    a, b = (np.asarray(adapters[f"{name}/{part}"], np.float64) for part in "ab")
    assert a.shape == (16, 3, 1, 1, 2) and b.shape == (1, 3, 2, 8, 2)  # D3HK
    product = np.stack([a[:, j, 0, 0] @ b[0, j].reshape(16, 2).T for j in range(3)], 1).reshape(16, 3, 2, 8)
    np.testing.assert_allclose(decoded[name], base[name] + 6 / 2 * product, rtol=1e-6, atol=1e-7)


def test_its_checkpoints_are_those_of_any_run(lora, folder):
    run = jaxnmt.load(folder / "lora-whole", "latest")
    assert run.translate("a b c").text == jaxnmt.load(folder / "lora-part", "latest").translate("a b c").text
    assert Checkpoints(folder / "lora-whole").average(2, run._shapes) == [2, 4]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["freeze", "lora"])
def test_scanned_layers_train_as_layers_one_by_one(kind, folder):
    changes = KINDS[kind] | {"training.accumulation": 1, "training.steps": 2}
    one, scanned = (begun(folder, f"{kind}-{scans}", **changes, **{"model.scan_layers": scans}) for scans in (False, True))
    one.run()
    scanned.run()
    states = one.state, scanned.unstacked(scanned.state)
    assert by_path(states[0].params).keys() == by_path(states[1].params).keys()
    tiny.assert_close(states[1].params, states[0].params, rtol=1e-4, atol=1e-5)
    tiny.assert_same(states[1].frozen, states[0].frozen)


@pytest.mark.parametrize("rung", ["scanned", *(pytest.param(name, marks=pytest.mark.slow) for name in ("rotary", "gnmt", "luong_concat"))])
def test_each_matrix_of_each_kernel_changes_by_a_product_of_its_rank(rung):
    model = build_model(tiny.RUNGS[rung], 9, 9)
    config = cfg.Training(lora=cfg.Lora(rank=2, alpha=4.0))
    made = tuning.tuning_of(config, model)
    adapters, base = tuning.split(tiny.params_of(model), made, model, config)
    assert lora_module.pairs_by_path(adapters).keys() == lora_module.pairs_by_path(made.axes).keys()
    tiny.assert_same(lora_module.adapted(base, adapters, made.scale), base)
    moved = jax.tree.map(lambda x: x + 0.1 + jnp.arange(x.size, dtype=x.dtype).reshape(x.shape) % 7 / 50, adapters)
    change = jax.tree.map(jnp.subtract, lora_module.adapted(base, moved, made.scale), base)
    letters = {path_name(path): axes for path, axes in jax.tree_util.tree_leaves_with_path(model.axes)}
    kernels = {"/".join(path) for path in lora_module.pairs_by_path(adapters)}
    assert any("encoder" in name for name in kernels) and any("decoder" in name for name in kernels)
    for name, x in by_path(change).items():
        if name not in kernels:
            assert not x.any()
            continue
        rows, columns = rows_and_columns(letters[name])
        counted = [i for i in range(x.ndim) if i not in (*rows, *columns)]
        matrices = x.transpose(*counted, *rows, *columns).reshape(
            -1, np.prod([x.shape[i] for i in rows]), np.prod([x.shape[i] for i in columns])
        )
        assert all(np.linalg.matrix_rank(matrix, tol=1e-4) == min(2, *matrix.shape) for matrix in matrices), name


# ---- slowly: each kind, and several devices


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_resumes_to_the_bit(kind, folder):
    assert int(resumed(folder, kind, **KINDS[kind]).state.step) == 4  # it compares state and files with those of a whole run


MESHES = {2: ({},), 8: ({}, {"mesh.fsdp": 2, "mesh.tensor": 2})}


@pytest.mark.slow
@pytest.mark.parametrize("count", MESHES)
def test_on_several_devices_too_and_the_losses_are_those_of_one(count, folder):
    tests = tiny.__file__.removesuffix("tiny.py")
    code = (
        "import pathlib, sys; sys.path[:0] = sys.argv[1:3]; import conftest, jax, test_tuning as t\n"
        "from jaxnmt.parallel import sharding; sharding.MIN_SHARDED_SIZE = 1  # as if these matrices were large\n"
        "assert jax.device_count() == int(sys.argv[4]); t.on_meshes(pathlib.Path(sys.argv[3]), jax.device_count())"
    )
    tiny.on_devices(count, "-c", code, tests, f"{tests}training", folder, count)
    for kind, changes in KINDS.items():
        session(folder, f"one-{kind}", **changes)
        expected = [record["loss"] for record in directory.read_metrics(folder / f"one-{kind}", "train")]
        for index in range(len(MESHES[count])):
            losses = [record["loss"] for record in directory.read_metrics(folder / f"{count}-{index}-{kind}-whole", "train")]
            assert len(losses) == 4
            np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-4)


def on_meshes(folder, count):
    for index, mesh in enumerate(MESHES[count]):
        for kind, changes in KINDS.items():
            resumed(folder, f"{count}-{index}-{kind}", **changes, **mesh)


# ---- what is refused


@pytest.mark.parametrize(
    "changes, says",
    [
        (
            {"training.freeze": ("encoder/layers_0",)},
            r"training.freeze encoder/layers_0 matches no parameter; did you mean encoder/layer_0",
        ),
        (
            {"training.freeze": ("xyz",)},
            r"training.freeze xyz matches no parameter; the largest modules are decoder, encoder, shared_embedd",
        ),
        ({"training.freeze": (".*",)}, r"training.freeze .* freezes all parameters, and nothing is left to train"),
        ({"training.rates": ("encodr=2",)}, r"training.rates encodr matches no parameter; did you mean encoder\?"),
        (LORA | {"training.lora.paths": ("shared_embedding",)}, r"training.lora.paths shared_embedding matches no kernel"),
        ({"training.freeze": ("encoder/layer_0",), "model.scan_layers": True, "model.num_encoder_layers": 2}, "some layers of encoder"),
    ],
)
def test_what_the_model_does_not_have_is_refused_before_anything_is_written(changes, says, folder):
    changes = {"init.from": str(folder / "base")} | SHORT | changes
    with pytest.raises(UserError, match=says):
        jaxnmt.train(tiny.experiment(folder), folder=folder / "nothing", settings=changes)
    assert not (folder / "nothing").exists()


def test_a_run_without_a_checkpoint_names_its_ancestors(folder):
    session(folder, "parent", **{"training.steps": 1})
    begun(folder, "child", **{"init.from": str(folder / "parent"), "init.checkpoint": "latest"})
    lines = directory.show(folder / "child").splitlines()
    assert f"begins with the latest checkpoint of {folder / 'parent'}" in lines
    assert any(line.startswith(f"which began with checkpoint 3 of {folder / 'base'} (") for line in lines)


def test_adapters_of_random_parameters_are_refused(folder):
    with pytest.raises(UserError, match=r"trains adapters alone, not decoder/layer_1, which \S+base does not have"):
        session(folder, "refused", **LORA, **{"model.num_decoder_layers": 2})


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"training.rates": ("encoder",)}, "training.rates has 'encoder'; write a pattern, = and a factor above 0"),
        ({"training.rates": ("encoder=0",)}, "training.rates has 'encoder=0'; write a pattern"),
        ({"training.freeze": ("layer_[0",)}, r"training.freeze has 'layer_\[0', which is not a regular expression"),
        ({"training.lora.alpha": 2.0}, "no effect without training.lora.rank"),
        ({"training.lora.rank": 2}, "adapts the parameters of another run: name it with init.from"),
        ({"training.lora.rank": 2, "training.freeze": ("encoder",)}, "leave out training.freeze"),
        ({"training.lora.rank": 2, "init.l2": 1.0, "init.from": "x"}, "leave out one of the two"),
        ({"init.l2": 1.0}, "init.l2 1.0 has no effect without init.from"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_without_the_model(changes, says):
    with pytest.raises(UserError, match=says):
        checks.validate(cfg.replace(cfg.Experiment(), **changes))


def test_without_these_settings_no_model_is_built_for_the_checks(monkeypatch):
    monkeypatch.setattr(tuning, "build_model", None)
    training_run._check_patterns(cfg.Experiment())
    with pytest.raises(TypeError):
        training_run._check_patterns(cfg.replace(cfg.Experiment(), **FROZEN))
