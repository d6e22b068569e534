"""Weights in blocks of columns are the same numbers: so are the products, and the translations of every model."""

import copy

import jax
import jax.numpy as jnp
import mine
import numpy as np
import pytest
import subwords
import tiny

import jaxnmt
from jaxnmt import cli
from jaxnmt import config as cfg
from jaxnmt.config import Decoding
from jaxnmt.decoding.ensemble import EnsembleTranslator
from jaxnmt.decoding.staged_programs import Programs
from jaxnmt.models import blocks
from jaxnmt.models.blocks import Blocks, in_blocks
from jaxnmt.models.deferred import DeferredModel
from jaxnmt.parallel import kept

RNG = np.random.default_rng(0)
LINES = ["haus am see", "boot", "baumhaus im see am boot", "", "hausboot am see"]
MODELS = tiny.VARIANTS | tiny.RECURRENT
QUICK = ("pre", "rotary", "luong", "luong_concat")
SCANNED = cfg.replace(tiny.SCANNED, remat="none")


def is_weight(x) -> bool:
    return isinstance(x, Blocks)


@pytest.fixture(autouse=True)
def always(monkeypatch):
    """Small weights have blocks too."""
    monkeypatch.setattr(blocks, "LEAST_BYTES", 0)


@pytest.fixture
def narrow(monkeypatch):
    """Blocks of two columns, so that tiny models have them."""
    monkeypatch.setattr(blocks, "WIDTH", 2)


@pytest.mark.parametrize("rows", [1, 2, 5, 8, 9, 40])
@pytest.mark.parametrize(("letters", "shape"), [("DF", (24, 640)), ("HKD", (4, 6, 128)), ("D3HK", (24, 3, 2, 64)), ("VD", (1152, 24))])
def test_a_product_is_that_of_the_weight(letters, shape, rows):
    weight = jnp.asarray(RNG.standard_normal(shape), jnp.float32)
    x = jnp.asarray(RNG.standard_normal((rows, 24)), jnp.float32)
    split = in_blocks({"w": weight}, {"w": letters})["w"]
    assert is_weight(split) and split.shape == shape
    assert all(len(group) <= blocks.GROUP and group.shape[1:] == (24, blocks.WIDTH) for group in split.groups)
    matrices = (w.T if letters == "VD" else w.reshape(24, -1) for w in (weight, split))
    expected, found = (x @ matrix for matrix in matrices)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal((x[None] @ split.T if letters == "VD" else x[None] @ split.reshape(24, -1))[0], found)
    np.testing.assert_array_equal(split[jnp.array([3, 0])], weight[jnp.array([3, 0])])
    np.testing.assert_array_equal(split.take(np.array([1, 0]), 0), weight[jnp.array([1, 0])])


def test_a_stack_of_weights_is_one_of_their_blocks():
    weight = jnp.asarray(RNG.standard_normal((3, 24, 1024)), jnp.float32)
    stacked = in_blocks(weight, "LDF")
    for i in range(3):
        tiny.assert_same(jax.tree.map(lambda x, i=i: x[i], stacked), in_blocks(weight[i], "DF"))


def test_few_weights_stay_as_they_are(monkeypatch):
    params, letters = {"a": jnp.ones((24, 640)), "b": jnp.ones((24, 1024)), "c": jnp.ones((24, 1024))}, {"a": "DF", "b": "DF", "c": ""}
    for least, expected in ((24 * 1664 * 4, True), (24 * 1664 * 4 + 1, False)):
        monkeypatch.setattr(blocks, "LEAST_BYTES", least)
        assert is_weight(in_blocks(params, letters)["a"]) == expected


def test_weights_of_other_sizes_and_types_stay():
    kinds = [((24, 100), np.float32), ((24, blocks.WIDTH), np.float32), ((24, 640), jnp.bfloat16)]
    for weight in (jnp.zeros(shape, dtype) for shape, dtype in kinds):
        assert in_blocks(weight, "DF") is weight
    assert in_blocks(jnp.zeros((24, 640)), "").shape == (24, 640)
    brief = in_blocks(jnp.ones((24, 640)), "DF").astype(jnp.bfloat16)
    assert isinstance(brief, jax.Array) and brief.dtype == jnp.bfloat16


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in (*MODELS, "scanned")])
def test_every_model_predicts_the_same(narrow, name):
    model = tiny.model_of({**MODELS, "scanned": SCANNED}[name])
    params = tiny.params_of(model)
    split = in_blocks(params, model.step_weights)
    assert sum(map(is_weight, jax.tree.leaves(split, is_leaf=is_weight))) >= 4
    assert not any(map(is_weight, jax.tree.leaves(split.get("encoder", {}), is_leaf=is_weight)))
    tokens, found = np.array([[3, 4, 5, 2]] * 3, np.int32), []
    for some in (params, split):
        memory = model.encode(some, {"encoder_input_tokens": tokens})
        carry, logits = model.start(some, memory, 4), []
        for t in range(3):
            made, carry = model.step(some, memory, carry, tokens[:, t])
            logits.append(made)
        found.append(logits)
    tiny.assert_close(*found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("decoding", [Decoding(beam_size=3, n_best=3, max_length_extra=3), Decoding(beam_size=2, coverage_penalty=0.2)])
def test_a_sentence_alone_is_translated_as_among_others(narrow, decoding, monkeypatch):
    translator = subwords.translator()
    together = [[each.tokens for each in found] for found in translator.translate(LINES, decoding)]
    read = []
    monkeypatch.setattr(Blocks, "__rmatmul__", lambda self, x, own=Blocks.__rmatmul__: read.append(x.shape) or own(self, x))
    assert [[each.tokens for each in translator.translate([line], decoding)[0]] for line in LINES] == together
    assert (decoding.beam_size,) in {shape[:-1] for shape in read}  # blocks were used


def test_members_of_an_ensemble_have_blocks(narrow):
    pair = EnsembleTranslator([subwords.translator(), subwords.translator()])
    split = in_blocks(pair.params, pair.model.step_weights)
    assert [any(map(is_weight, jax.tree.leaves(params, is_leaf=is_weight))) for params in split.members] == [True, True]
    assert split.weights_M is pair.params.weights_M
    decoding = Decoding(beam_size=3)
    together = [found[0].tokens for found in pair.translate(LINES, decoding)]
    assert [pair.translate([line], decoding)[0][0].tokens for line in LINES] == together


def test_blocks_are_made_once_for_the_parameters_and_kept_as_long(narrow, monkeypatch):
    made = []
    monkeypatch.setattr(blocks, "in_blocks", lambda params, letters: made.append(params) or in_blocks(params, letters))
    few, many = Decoding(beam_size=3), Decoding(beam_size=9)
    translator = subwords.translator()
    first, second = translator.params, jax.tree.map(lambda x: 2 * x, translator.params)
    translator.translate(LINES, few)
    translator.translate(LINES[:1], many)
    assert not made
    for params in (first, second, second, first):
        for one in (copy.copy(translator), translator.with_params(params), translator.with_params(params)):
            one.translate(LINES[:1], few)
    assert [params is first for params in made] == [True, False, True, False, True]
    translator.params = None
    assert translator._blocks._kept == (None, None)


def test_programs_are_warmed_in_the_form_that_is_used(narrow, monkeypatch):
    translator, decoding = subwords.translator(), Decoding(beam_size=5, batch_tokens=32, batch_size=16)
    translator.max_length = 64
    kinds, take = [], Programs.take

    def record(self, state, options, params, batch, *args, **static):
        has_blocks = any(map(is_weight, jax.tree.leaves(params, is_leaf=is_weight)))
        kinds.append((batch["encoder_input_tokens"].shape, has_blocks))
        return take(self, state, options, params, batch, *args, **static)

    monkeypatch.setattr(Programs, "take", record)
    translator.translate([*LINES, " ".join(LINES * 2)], decoding)
    used = {*kinds}
    kinds.clear()
    translator.warm(decoding)
    assert {has_blocks for _, has_blocks in used} == {True, False}
    assert used <= {*kinds}


def test_a_model_of_ones_own_and_one_in_bfloat16_have_none(tmp_path, monkeypatch):
    assert not any(jax.tree.leaves(tiny.model_of(cfg.replace(tiny.BASE, dtype="bfloat16")).step_weights))
    mine.write(tmp_path)
    monkeypatch.setenv("JAXNMT_CACHE", str(tmp_path / "cache"))
    text = ["--data.train", *tiny.write_text(tmp_path, "text", 120, 1).split(",")]
    assert cli.main(["train", str(tmp_path / "mine.py"), "--run", str(tmp_path / "run"), *text, "--training.steps", "1"]) == 0
    assert not any(jax.tree.leaves(jaxnmt.load(tmp_path / "run").model.step_weights))


def test_which_weights_they_are_is_kept_for_later_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "_folder", tmp_path)
    model = tiny.model_of(tiny.BASE)
    first = DeferredModel(lambda: model, ("a model",)).step_weights
    assert first == model.step_weights
    assert DeferredModel(lambda: pytest.fail("the model is built"), ("a model",)).step_weights == first
    with pytest.raises(pytest.fail.Exception):
        _ = DeferredModel(lambda: pytest.fail("the model is built"), ("another model",)).step_weights
