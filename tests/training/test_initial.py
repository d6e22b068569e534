"""A run that begins with another's parameters: what is taken, what is refused, and that the other run is needed once."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxnmt import config as cfg
from jaxnmt.config import checks
from jaxnmt.config.files import load_config, save_config
from jaxnmt.data import tokenizer_choice
from jaxnmt.data.tokenizer_training import train_tokenizer
from jaxnmt.errors import UserError
from jaxnmt.parallel.axes import path_name
from jaxnmt.runs import directory
from jaxnmt.training.hooks import Log, Save
from jaxnmt.training.initial import take
from jaxnmt.training.loop import Trainer
from jaxnmt.training.progress import Progress
from jaxnmt.training.saved import CheckpointReader
from jaxnmt.training.step import TrainPrograms
from jaxnmt.training_run import train_folder

MASKED = {"task": cfg.MaskedLanguage(rate=0.5)}
TWO_SIDES = {"tokenizer.joint": False, "model.tie_embeddings": "decoder"}
ROWS = {"batching.layout": "buckets", "batching.max_shapes": 1}


def experiment(folder, **changes):
    made = cfg.replace(tiny.experiment(folder), **changes)
    checks.validate(made)
    return made


def finished(folder, name, **changes):
    """A run with a checkpoint of random parameters, and an EMA that differs from them, if it keeps one."""
    (run := folder / name).mkdir()
    config = experiment(folder, **changes, **{"training.seed": 2})
    save_config(config, run / directory.CONFIG)
    trainer = Trainer(config, run)
    state = trainer.programs.fresh(config.training)
    moved = jax.tree.map(lambda x: x + 1, state.ema)
    with trainer.store as store:
        store.save(dataclasses.replace(state, step=jnp.int32(3), ema=moved), Progress(), None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the runs `masked`, whose embeddings are all one, and `translation`, which has them apart."""
    folder = tmp_path_factory.mktemp("init")
    finished(folder, "masked", **MASKED)
    finished(folder, "translation", **TWO_SIDES, **{"training.ema_decay": 0.0})
    return folder


def by_path(tree):
    return {path_name(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def stored(run):
    """A run's parameters that decoding uses."""
    reader = CheckpointReader(run)
    found = reader.find("best")
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=one), reader.shapes(found))
    return by_path(reader.params(found, like))


def begun(folder, **changes):
    """The trainer of a new run, and what it takes."""
    (run := folder / "new").mkdir(exist_ok=True)
    trainer = Trainer(experiment(folder, **changes), run)
    shutil.rmtree(run)
    like = TrainPrograms(trainer.flat_model, trainer.config, trainer.mesh).abstract.params
    return trainer, take(trainer.config, trainer.flat_model, like, trainer.data.tokenizer, trainer.mesh)


def assert_taken(taken, expected):
    tiny.assert_same({name: np.asarray(x) for name, x in taken.params.items()}, expected)
    assert taken.record["parameters"] == sum(x.size for x in expected.values())


def assert_state(trainer, taken):
    """What is taken is in the first state, all else is random, the EMA begins with it, and the optimizer anew."""
    states = [trainer.programs.fresh(trainer.config.training, params) for params in (taken.params, None)]
    layouts = [jax.tree.map(lambda x: x.sharding, state) for state in (*states, trainer.programs.abstract)]
    assert layouts[0] == layouts[1] == layouts[2]
    state, fresh = map(trainer.unstacked, states)
    tiny.assert_same(by_path(state.params), by_path(fresh.params) | {name: np.asarray(x) for name, x in taken.params.items()})
    assert not np.array_equal(by_path(state.params)[name := next(iter(taken.params))], by_path(fresh.params)[name])
    tiny.assert_same(state.ema, state.params)
    tiny.assert_same((state.opt_state, state.step), (fresh.opt_state, fresh.step))


def encoder_of(params):
    return {name: x for name, x in params.items() if name.startswith("encoder/")}


def test_a_translator_takes_a_masked_encoder_and_has_its_own_target_vocabulary(folder):
    there = stored(folder / "masked")
    trainer, taken = begun(folder, **TWO_SIDES, **{"init.from": str(folder / "masked"), "init.only": "encoder"})
    assert_taken(taken, encoder_of(there) | {"source_embedding/table": there["shared_embedding/table"]})
    assert "from checkpoint 3 of" in taken.line and taken.line.endswith("; new: decoder, target_embedding")
    assert_state(trainer, taken)
    assert taken.record | {"parameters": 0} == {
        "from": str(folder / "masked"),
        "checkpoint": 3,
        "checksum": CheckpointReader(folder / "masked").find(3).checksum,
        "parameters": 0,
    }


@pytest.mark.parametrize("only", ["all", "encoder"])
def test_with_one_vocabulary_the_table_is_shared(folder, only):
    _, taken = begun(folder, **{"init.from": str(folder / "masked"), "init.only": only})
    assert_taken(taken, stored(folder / "masked"))  # it has nothing but an encoder and the table


def test_a_classifier_takes_the_encoder(folder):
    (folder / "topics.tsv").write_text("".join(f"{'a b c d'[: i % 7 + 1]}\t{'xyz'[i % 3]} {i % 2}\n" for i in range(60)))
    changes = {"task": cfg.Classification(), "data.train": (str(folder / "topics.tsv"),), "data.validation": (str(folder / "topics.tsv"),)}
    there = stored(folder / "translation")
    _, taken = begun(folder, **changes, **ROWS, **{"init.from": str(folder / "translation")})
    assert_taken(taken, encoder_of(there) | {"source_embedding/table": there["source_embedding/table"]})


def test_a_translator_takes_all_of_a_translator_or_its_decoder(folder):
    there = stored(folder / "translation")
    init = {"init.from": str(folder / "translation")}
    _, taken = begun(folder, **TWO_SIDES, **init)
    assert_taken(taken, there)
    assert "new:" not in taken.line
    _, taken = begun(folder, **TWO_SIDES, **init, **{"init.only": "decoder"})
    assert_taken(taken, {name: x for name, x in there.items() if name.startswith(("decoder/", "target_embedding"))})


def test_scanned_layers_take_layers_one_by_one_and_further_layers_are_new(folder):
    changes = {"model.scan_layers": True, "model.num_encoder_layers": 3, "init.from": str(folder / "masked"), "init.only": "encoder"}
    trainer, taken = begun(folder, **changes)
    assert_taken(taken, stored(folder / "masked"))
    assert taken.line.endswith("; new: decoder, encoder/layer_1, encoder/layer_2")
    assert_state(trainer, taken)


def test_what_does_not_fit_is_refused_in_a_sentence(folder):
    masked, translation = ({"init.from": str(folder / name)} for name in ("masked", "translation"))
    for changes, sentence in (
        (masked | {"model.emb_dim": 32}, r"encoder/\S+ has the shape .* model.emb_dim is 16 there and 32 here: give both"),
        (
            masked | {"model": cfg.replace(tiny.RNN, hidden_dim=12), "init.only": "decoder", **ROWS},
            r"nothing of it, init.only decoder, has a place in this model: it has",
        ),
        (masked | {"init.checkpoint": 9}, r"masked has no checkpoint 9; it has 3"),
        (masked | {"init.checkpoint": "average"}, r"masked has no average"),
        (masked | {"tokenizer.kind": "unigram", "tokenizer.vocab_size": 300}, r"set it to words and tokenizer.joiner to '@@ '"),
        (masked | TWO_SIDES, r"one vocabulary for both sides, and tokenizer.joint is False: set it to True, or init.only to encoder"),
        (translation, r"a vocabulary for each side, and tokenizer.joint is True: set it to False$"),
    ):
        with pytest.raises(UserError, match=sentence):
            begun(folder, **changes)
    for changes, sentence in (
        ({"init.from": str(folder / "none")}, r"init.from \S+none is not a run: it has no config.json"),
        ({"init.from": str(folder)}, r"init.from \S+init\d* is not a run: it has no config.json"),
    ):
        with pytest.raises(UserError, match=sentence):
            train_folder(folder / "refused", experiment(folder, **changes))
        assert not (folder / "refused" / "config.json").exists()
    for changes in ({"init.only": "encoder"}, masked | {"tokenizer.kind": "unigram", "tokenizer.model": ("a.model",)}):
        with pytest.raises(UserError, match="init.from"):
            experiment(folder, **changes)


def test_the_other_run_is_read_once_and_resuming_is_exact(folder):
    other = folder / "other"
    shutil.copytree(folder / "masked", other)
    changes = {"init.from": str(other), "training.steps": 4, "training.accumulation": 1, "checkpoints.every": 2}

    def session(name, **more):
        config, run = experiment(folder, **changes | more), folder / name
        run.mkdir(exist_ok=True)
        save_config(config, run / directory.CONFIG)
        Trainer(config, run, [Log(), Save()]).run()

    session("whole")
    session("resumed", **{"training.steps": 2})
    shutil.rmtree(other)
    session("resumed")
    tiny.assert_same(stored(folder / "resumed"), stored(folder / "whole"))
    sums = [CheckpointReader(folder / run).find(4).checksum for run in ("whole", "resumed")]
    assert sums[0] == sums[1]
    for run in ("whole", "resumed"):
        records = directory.read_metrics(folder / run)
        assert [(record["kind"], record["step"]) for record in records[:1]] == [("init", 0)]
        assert records[0]["from"] == str(other) and records[0]["checkpoint"] == 3
        init = {"from": str(other), "only": "all", "checkpoint": "best", "vocabulary": "keep", "l2": 0.0}
        assert directory.settings(folder / run)["init"] == init
    with pytest.raises(UserError, match=r"init.from: \S+other → \S+masked"):
        train_folder(folder / "resumed", experiment(folder, **changes | {"init.from": str(folder / "masked"), "training.steps": 6}))


@pytest.mark.slow
def test_on_a_mesh_they_lie_as_fresh_ones_do(folder):
    code = (
        "import pathlib, sys; sys.path[:0] = sys.argv[1:3]; import conftest, test_initial as t\n"
        "folder = pathlib.Path(sys.argv[3])\n"
        "changes = {'mesh.fsdp': 2, 'mesh.tensor': 2, 'init.from': str(folder / 'masked'), 'init.only': 'encoder'}\n"
        "trainer, taken = t.begun(folder, **changes)\n"
        "t.assert_taken(taken, t.stored(folder / 'masked')); t.assert_state(trainer, taken)"
    )
    tests = tiny.__file__.removesuffix("tiny.py")
    tiny.on_eight_devices("-c", code, tests, f"{tests}training", folder)


@pytest.mark.parametrize(
    "made, config, changes, says",
    [
        ("pictures", "transformer_small", {}, "reads pictures .*init.only to decoder"),
        ("pictures", "topics", {}, "reads pictures .*: choose a run that reads texts"),
        ("labels", "transformer_small", {}, "predicts labels .*init.only to encoder"),
        ("labels", "transformer_small", {"tokenizer.joint": False}, "predicts labels .*init.only to encoder"),
        ("labels", "scenes", {}, "predicts labels .*: choose a run that writes texts"),
        ("labels", "mlm_small", {}, "predicts labels .*: choose a run that writes texts"),
    ],
)
def test_a_run_without_the_vocabulary_that_is_needed_is_refused(made, config, changes, says, tmp_path, monkeypatch):
    words = train_tokenizer(cfg.Tokenizer(kind="words", vocab_size=0), [("a b c", "d e f")])
    given = words.with_pictures() if made == "pictures" else words.with_labels(["x", "y"])
    monkeypatch.setattr(tokenizer_choice, "load_tokenizer", lambda folder: given)
    wanted = cfg.replace(load_config(config), init=cfg.Init(from_="runs/other"), **changes)
    with pytest.raises(UserError, match=says):
        tokenizer_choice.choose_tokenizer(wanted, [], tmp_path, print)
