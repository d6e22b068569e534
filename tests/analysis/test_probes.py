"""`jaxnmt probe gradients`, `recall` and `steptime` measure what they say."""

import csv
import functools
import importlib.util
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxnmt import cli
from jaxnmt.analysis.laws.subject import FIRST_WORD
from jaxnmt.analysis.probes import gradients
from jaxnmt.analysis.probes.subjects import Subject, resized, subjects
from jaxnmt.config import Recurrent, Transformer, UserError, replace
from jaxnmt.decoding.search import BOS, EOS
from jaxnmt.models import cells
from jaxnmt.models.recurrent import RecurrentMemory
from jaxnmt.models.seq2seq import build_model
from jaxnmt.training.loss import batch_loss

spec = importlib.util.spec_from_file_location("own", Path(__file__).parents[1] / "laws" / "own.py")
own = sys.modules.setdefault("own", importlib.util.module_from_spec(spec))
spec.loader.exec_module(own)

VOCABULARY, TARGET = 23, 7
SOURCE = np.array([5, 9, 6, 11, 8, EOS], np.int32)  # no word stands there twice
STACKED = replace(tiny.RNN, hidden_dim=6, num_encoder_layers=2, num_decoder_layers=2, bidirectional="none", bridge="copy")
CONFIGS = {
    **{name: tiny.RECURRENT[name] for name in ("bag", "sutskever", "gnmt")},
    "transformer": tiny.VARIANTS["post"],
    "own": own.Average(),
}


def made(config, seed=0):
    model = build_model(config, VOCABULARY, VOCABULARY)
    return model, tiny.params_of(model, seed)


def batch(source=SOURCE):
    return {
        "encoder_input_tokens": source[None],
        "decoder_input_tokens": np.full((1, 1), BOS, np.int32),
        "decoder_target_tokens": np.full((1, 1), TARGET, np.int32),
        "decoder_loss_weights": np.ones((1, 1), np.float32),
    }


def norms(model, params, source=SOURCE):
    return np.asarray(jax.jit(functools.partial(gradients.norms, model))(params, source, np.int32(TARGET)))


# ---- gradients


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_the_gradient_of_a_state_is_the_slope_of_the_loss(cell):
    """Against finite differences, through a loop over the cell's equation that the probe has no part in: two layers, and attention."""
    config = replace(STACKED, cell=cell)
    model, params = made(config)
    found = norms(model, params)

    def memory(module, nudge_SH):
        below = module.embed_source(SOURCE[None], jnp.float32)[0]
        last = []
        for i, layer in enumerate(module.encoder.layer):
            weights, state, states = layer.weights(), layer.zeros(1), []
            for t, x in enumerate(below):
                z = x[None] @ weights["input"] + weights["bias"]
                state = cells.advance(cell, "tanh", weights, z, state)
                state = (state[0] + nudge_SH[t], *state[1:]) if i == 0 else state
                states.append(state[0][0])
            below = jnp.stack(states)
            last.append(state)
        states_BSD = below[None]
        return RecurrentMemory(states_BSD, jnp.ones((1, len(SOURCE)), bool), module.decoder.keys(states_BSD), last[-1][0], tuple(last))

    @jax.jit
    def loss(nudge_SH):
        read = model.module.apply({"params": params}, nudge_SH, method=memory)
        return -jax.nn.log_softmax(model.decode(params, read, batch())[0, 0, :VOCABULARY])[TARGET]

    for t in (0, 3, len(SOURCE) - 1):
        step = 0.02 * np.eye(len(SOURCE) * config.hidden_dim, dtype=np.float32).reshape(-1, len(SOURCE), config.hidden_dim)
        mine = step[t * config.hidden_dim : (t + 1) * config.hidden_dim]
        slopes = [(float(loss(nudge)) - float(loss(-nudge))) / 0.04 for nudge in mine]
        assert found[t] == pytest.approx(np.linalg.norm(slopes), rel=0.01)


@pytest.mark.parametrize("shrink", [0.5, 0.9])
def test_a_linear_network_forgets_by_the_same_factor_each_step(shrink):
    """tanh(x) is x near 0: with a recurrent kernel a·I and no input, the gradient n steps back is a^n times the last one."""
    model, params = made(replace(tiny.RECURRENT["elman"], hidden_dim=16))
    layer = params["encoder"]["layer_0"]
    layer["input"] = jax.tree.map(jnp.zeros_like, layer["input"])
    layer["recurrent"]["kernel"] = shrink * jnp.eye(16)[:, None]
    source = np.append(np.random.default_rng(0).integers(FIRST_WORD, VOCABULARY, 400), EOS).astype(np.int32)
    found = norms(model, params, source)[::-1]
    n = np.arange(120)
    np.testing.assert_allclose(found[:120] / found[0], shrink**n, rtol=1e-4)
    if shrink == 0.9:
        np.testing.assert_allclose(found[400] / found[0], 0.9**400, rtol=1e-3)  # its square is no float32
    else:
        assert found[400] == 0


@pytest.mark.parametrize("name", CONFIGS)
def test_looking_changes_nothing_and_padding_has_no_part(name):
    model, params = made(CONFIGS[name])
    plain = batch_loss(model, params, batch(), None, 0.0).loss
    tap = gradients.Tap(len(SOURCE), {})
    with gradients.nn.intercept_methods(tap):
        batch_loss(model, params, batch(), None, 0.0)
    expected = {"gnmt": {"encoder/layer_0", "encoder/backward_layer_0"}, "sutskever": {"encoder/layer_0"}, "own": {"words"}}
    assert set(tap.widths) == expected.get(name, {"source_embedding" if name == "bag" else "shared_embedding"})
    nudges = {module: jnp.zeros((len(SOURCE), width)) for module, width in tap.widths.items()}
    with gradients.nn.intercept_methods(gradients.Tap(len(SOURCE), nudges)):
        assert float(batch_loss(model, params, batch(), None, 0.0).loss) == pytest.approx(float(plain), rel=1e-6)
    found = norms(model, params)
    assert found.min() > 0
    padded = norms(model, params, np.append(SOURCE, [0, 0, 0]).astype(np.int32))
    np.testing.assert_allclose(padded[: len(SOURCE)], found, rtol=1e-5)


@pytest.mark.parametrize("name", ["learned", "bag", "own"])
def test_without_recurrence_it_is_the_gradient_of_a_words_vector(name):
    model, params = made({**tiny.VARIANTS, **CONFIGS}[name])
    table = {"own": ("words", "embedding")}.get(name, ("source_embedding", "table"))
    gradient = jax.grad(lambda params: batch_loss(model, params, batch(), None, 0.0).loss)(params)[table[0]][table[1]]
    scale = 1 if name == "own" else gradient.shape[1] ** 0.5  # of a vector on its way in
    expected = np.linalg.norm(gradient[SOURCE], axis=-1) / scale
    np.testing.assert_allclose(norms(model, params), expected, rtol=1e-4)


def test_the_classic_picture_at_initialisation():
    """The plain network's gradient is gone after a hundred steps, the LSTM's after a thousand; attention's does not care."""
    kinds = {
        "rnn": Recurrent(cell="rnn", context="fixed", bidirectional="none", dropout=0.0),
        "lstm": Recurrent(cell="lstm", context="fixed", bidirectional="none", dropout=0.0),
        "attention": Recurrent(cell="lstm", context="luong", dropout=0.0),
        "transformer": Transformer(num_encoder_layers=1, num_decoder_layers=1, dropout=0.0),
    }
    found = {kind: gradients.measure(kind, Subject(resized(kind, model, 32)), [1, 100, 1000], 2).mean(0) for kind, model in kinds.items()}
    relative = {kind: each / each[0] for kind, each in found.items()}
    assert relative["rnn"][1] < 1e-12 < relative["lstm"][1] < 1e-3
    assert relative["rnn"][2] == relative["lstm"][2] == 0
    assert relative["attention"][2] > 1e-3 and 0.2 < relative["transformer"][2] < 5


def test_distances_are_spread_over_the_decades():
    assert gradients.distances(1) == [1]
    assert gradients.distances(10, 3) == [1, 2, 5, 10]
    found = gradients.distances(1000)
    assert {1, 10, 100, 1000} <= set(found) and found == sorted(set(found)) and len(found) < 32


def test_the_band_is_in_the_logarithm_and_what_vanished_is_zero():
    line = gradients.line([1, 10], np.array([[1e-2, 0.0], [1e-4, 1e-3]]))
    assert line.y == pytest.approx([1e-3, 0.0])
    assert line.low[0] * line.high[0] == pytest.approx(1e-6) and line.high[0] == pytest.approx(1e-3 * 10**2**0.5)
    assert line.low[1] == line.high[1] == 0.0
    one = gradients.line([1], np.array([[0.5]]))
    assert one.y == one.low == one.high == [0.5]


def test_the_command_draws_every_model_and_writes_its_numbers(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["probe", "gradients", "phrases/rnn_fixed", "quickstart", "--distance", "20", "--samples", "2", "--width", "8"]
    assert cli.main([*words, "--output", "far.svg"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["far.csv", "far.svg"]
    rows = list(csv.DictReader((tmp_path / "far.csv").open()))
    at = gradients.distances(20)
    assert [(row["line"], float(row["x"])) for row in rows] == [(name, n) for name in ("rnn_fixed", "quickstart") for n in at]
    told = capsys.readouterr().out
    assert "rnn_fixed" in told and "quickstart" in told
    drawn = (tmp_path / "far.svg").read_text()
    assert "rnn_fixed" in drawn and "quickstart" in drawn


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["quickstart", "quickstart"], "quickstart is given twice"),
        (["quickstart", "--output", "a.png"], "ends in .svg"),
        (["quickstart", "--output", "nowhere/a.svg"], "no folder nowhere"),
        (["quickstart", "--distance", "0"], "--distance"),
        (["quickstart", "--width", "-1"], "--width"),
        (["quickstart", "--width", "6"], "model.num_heads"),
        (["quickstrat"], "Did you mean quickstart"),
    ],
)
def test_mistakes_are_answered_in_a_sentence(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["probe", "gradients", *words]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_models_are_named_by_their_file_or_in_full(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "m.py").write_text("from jaxnmt.config import *\nconfig = Experiment\n")
    one, two = (str(tmp_path / folder / "m.py") for folder in ("a", "b"))
    assert list(subjects([one, "phrases/lstm_luong"])) == ["m", "lstm_luong"]
    assert list(subjects([one, two])) == [one, two]


def test_a_width_reaches_every_model():
    wide = resized("", Transformer(), 64)
    assert (wide.emb_dim, wide.mlp_dim) == (64, 256)
    wide = resized("", Recurrent(encoder_dim=10), 64)
    assert (wide.emb_dim, wide.hidden_dim, wide.encoder_dim) == (64, 64, 64)
    with pytest.raises(UserError, match="none of the fields"):
        resized("mine", own.Average(), 64)
