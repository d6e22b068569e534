"""Weights in int8: products are exact in integers, a row depends on itself alone, and every model takes them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import mine
import numpy as np
import pytest
import subwords
import tiny

import jaxnmt
from jaxnmt import cli
from jaxnmt.config import Decoding
from jaxnmt.decoding.scoring import token_log_probs
from jaxnmt.errors import UserError
from jaxnmt.models.int8 import Int8, quantised

RNG = np.random.default_rng(0)
MODELS = tiny.VARIANTS | tiny.RECURRENT
QUICK = ("pre", "bahdanau")


def matrix(rows: int = 24, columns: int = 10) -> tuple[np.ndarray, Int8]:
    w = RNG.standard_normal((rows, columns)).astype(np.float32)
    return w, quantised(w, "DF", True)


def vectors(count: int, width: int = 24) -> jax.Array:
    return jnp.asarray(RNG.standard_normal((count, width)), jnp.float32)


def test_a_product_is_that_of_the_rounded_numbers():
    w, rounded = matrix()
    x = vectors(7)
    scale, step = np.abs(w).max(0) / np.float32(127), np.abs(np.asarray(x)).max(1, keepdims=True) / np.float32(127)
    expected = (np.rint(x / step).astype(np.int64) @ np.rint(w / scale).astype(np.int64)) * (step * scale).astype(np.float64)
    np.testing.assert_allclose(x @ rounded, expected, rtol=1e-6)
    assert np.abs(np.asarray(x @ rounded) - x @ w).max() < 24 * (np.abs(x).max() * np.abs(w).max()) / 127


def test_rows_do_not_depend_on_each_other_and_zeros_stay_zeros():
    _, rounded = matrix()
    x = vectors(64).at[3].set(0.0)
    together = np.asarray(x @ rounded)
    for rows in (slice(0, 1), slice(3, 5), slice(8, 40)):
        np.testing.assert_array_equal(x[rows] @ rounded, together[rows])
    assert not together[3].any()
    assert not np.asarray(x @ quantised(np.zeros((24, 2), np.float32), "DF", True)).any()


def test_columns_have_their_own_scales_so_that_small_ones_are_not_lost():
    w, _ = matrix()
    w[:, 0] *= 1e-4
    x = vectors(5)
    error = np.abs(np.asarray(x @ quantised(w, "DF", True)) - x @ w).max(0)
    assert error[0] < 0.05 * np.abs(x @ w)[:, 0].max()


def test_a_table_is_looked_up_and_multiplied_by_with_one_scale_a_token():
    table = RNG.standard_normal((12, 8)).astype(np.float32) * 10.0 ** RNG.integers(-3, 3, (12, 1))
    rounded = quantised(table, "VD", True)
    tokens = np.array([[3, 0], [11, 3]])
    found = rounded[tokens]
    assert found.shape == (2, 2, 8) and found.dtype == np.float32
    assert (np.abs(np.asarray(found) - table[tokens]) <= np.abs(table[tokens]).max(-1, keepdims=True) / 254 * 1.001).all()
    products = np.asarray(found @ rounded.T)
    np.testing.assert_allclose(products[0, 0, 3], np.square(table[3]).sum(), rtol=0.05)
    np.testing.assert_array_equal(found @ Int8(rounded.values, rounded.scale).T, products)  # the copy changes no product
    np.testing.assert_array_equal(found @ rounded.take(np.array([7, 3]), 0).T, products[..., [7, 3]])


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in MODELS])
def test_every_model_predicts_nearly_the_same(name):
    model = tiny.model_of(MODELS[name])
    params = jax.tree.map(lambda x: 0.5 * x, tiny.params_of(model))
    rounded = model.rounded(params, "int8")
    kinds = [type(x) for x in jax.tree.leaves(rounded, is_leaf=lambda x: isinstance(x, Int8))]
    assert Int8 in kinds and len(kinds) == len(jax.tree.leaves(params))
    batch = tiny.as_arrays(tiny.batch_of(tiny.random_pairs(4, 5, 5), [[0], [1], [2], [3]], 8, 8))
    exact, found = (np.asarray(jax.jit(lambda p: token_log_probs(model, p, batch))(p)) for p in (params, rounded))
    is_word = np.asarray(batch["decoder_target_tokens"]) > 0
    spread = np.ptp(exact[is_word])
    assert 0 < np.abs(found[is_word] - exact[is_word]).max() < 0.05 * spread
    memory = model.encode(rounded, batch)
    carry = model.start(rounded, memory, 6)
    for t in range(3):  # the search's way to the same numbers
        tokens = batch["decoder_input_tokens"][:, t]
        logits, carry = model.step(rounded, memory, carry, tokens)
        logits = jnp.asarray(logits)[:, : model.target_vocab].at[:, :2].set(-jnp.inf)
        target = batch["decoder_target_tokens"][:, t]
        stepped = jnp.take_along_axis(jax.nn.log_softmax(logits), target[:, None], 1)[:, 0]
        assert np.abs(np.asarray(stepped) - found[:, t])[is_word[:, t]].max() < 0.02 * spread


def test_translations_do_not_depend_on_the_batch():
    exact = subwords.translator()
    exact.params = exact.model.rounded(exact.params, "int8")
    lines = ["haus am see", "boot", "baumhaus im see am boot", "", "hausboot am see"]
    for decoding in (Decoding(beam_size=1), Decoding(beam_size=3, n_best=3, max_length_extra=3)):
        together = [[each.tokens for each in found] for found in exact.translate(lines, decoding)]
        alone = [[each.tokens for each in exact.translate([line], decoding)[0]] for line in lines]
        assert together == alone


def test_a_run_translates_scores_aligns_and_is_shortlisted_in_int8(tmp_path, capsys):
    changes = {"training.steps": 1, "validation.every": 0, "decoding.beam_size": 1}
    folder = jaxnmt.train(tiny.experiment(tmp_path, **changes), folder=tmp_path / "run").folder
    run, lines = jaxnmt.load(folder, weights="int8"), ["a b c", "d e"]
    made = run.translate(lines)
    assert run.translate(lines, shortlist=100) == made
    assert [score.score for score in run.score(lines, [each.text for each in made])]
    assert run.align(lines)[0].weights_TS.shape[1] == 3
    assert jaxnmt.ensemble(run, jaxnmt.load(folder)).translate(lines)
    (tmp_path / "in").write_text("a b c\nd e\n")
    capsys.readouterr()
    assert cli.main(["translate", str(folder), "--weights", "int8", "--input", str(tmp_path / "in")]) == 0
    assert capsys.readouterr().out.splitlines() == [each.text for each in made]
    brief = jaxnmt.load(folder, weights="bfloat16")
    assert {str(x.dtype) for x in jax.tree.leaves(brief.params)} == {"bfloat16", "float32"} and brief.translate(lines)


def test_a_model_of_ones_own_keeps_its_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXNMT_CACHE", str(tmp_path / "cache"))
    mine.write(tmp_path)
    text = ["--data.train", *tiny.write_text(tmp_path, "text", 120, 1).split(",")]
    assert cli.main(["train", str(tmp_path / "mine.py"), "--run", str(tmp_path / "run"), *text, "--training.steps", "2"]) == 0
    assert jaxnmt.load(tmp_path / "run", weights="int8").translate(["a b"]) == jaxnmt.load(tmp_path / "run").translate(["a b"])
    assert jaxnmt.load(tmp_path / "run").translate(["a b"], shortlist=100)  # `target_size` is what its build is given
    with pytest.raises(UserError, match="dtype"):
        jaxnmt.load(tmp_path / "run", weights="bfloat16")
