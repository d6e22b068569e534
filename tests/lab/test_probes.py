"""`jaxnmt probe gradients`, `recall` and `steptime` measure what they say."""

import csv
import dataclasses
import functools
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from laws import own

from jaxnmt import cli
from jaxnmt.config import Recurrent, Transformer, replace
from jaxnmt.data.special_tokens import BOS, EOS
from jaxnmt.errors import UserError
from jaxnmt.lab import figures
from jaxnmt.lab.laws.subject import FIRST_WORD
from jaxnmt.lab.options import Recall, Subject, resized, subjects
from jaxnmt.lab.probes import gradients, recall, steptime
from jaxnmt.models import cells
from jaxnmt.models.recurrent import RecurrentMemory, reverse_sequence
from jaxnmt.models.seq2seq import build_model
from jaxnmt.training.loss import batch_loss

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
                state, _ = cells.advance(cell, "tanh", weights, z, state)
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


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in ("sutskever", "gnmt") else name for name in CONFIGS]
)
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


@pytest.mark.slow
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


def test_a_run_is_measured_with_its_own_parameters(monkeypatch):
    model, params = made(STACKED)
    params["output_embedding"] = jax.tree.map(jnp.zeros_like, params["output_embedding"])  # every word is as likely: no gradient
    vocabulary = types.SimpleNamespace(source_vocab_size=VOCABULARY, target_vocab_size=VOCABULARY)
    run = types.SimpleNamespace(model=model, params=params, tokenizer=vocabulary)
    monkeypatch.setattr(gradients, "Run", lambda path: run)
    np.testing.assert_array_equal(gradients.measure("run", Subject(STACKED, Path("run")), [1, 4], 3), np.zeros((3, 2)))
    fresh = gradients.measure("fresh", Subject(STACKED), [1, 4], 3)
    assert fresh.min() > 0 and len(np.unique(fresh)) == 6


def test_dollar_signs_are_no_formula():
    price = "$5, not $6 %"
    line = figures.Line([1, 10], [1.0, 2.0], [1.0, 2.0], [1.0, 2.0])
    drawn = figures.chart({price: line}, price, "x", "y", log_y=True)
    assert drawn.count(">$5, not $6 %<") == 2 and ">$\\mathdefault" not in drawn
    drawn = figures.heat_maps({price: figures.Grid([[0.5]], [price], [price])}, price, "x", "y", 0, 1)
    assert drawn.count(">$5, not $6 %<") == 4


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
        (["quickstrat"], "did you mean quickstart"),
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


# ---- recall

BAG = replace(tiny.RECURRENT["bag"], emb_dim=16)
BUDGET = Recall(steps=3, batch_size=8, learning_rate=1e-2)


def recalled(models, path, **changes):
    """Measure configs by label; the CSV is at `path`."""
    subjects = {label: Subject(config) for label, config in models.items()}
    return recall.measure(subjects, dataclasses.replace(BUDGET, output=str(path.with_suffix(".svg")), **changes))


@pytest.mark.parametrize("distance", [1, 2, 9])
@pytest.mark.parametrize("name", ["elman", "gnmt", "sutskever", "transformer", "bag"])
def test_the_key_was_read_so_many_steps_ago_whichever_way_the_model_reads(name, distance):
    config = {**tiny.RECURRENT, **CONFIGS}[name]
    arrays = recall.sentences(recall.around(config, distance), 64, np.random.default_rng(0))
    source, key = arrays["encoder_input_tokens"], arrays["decoder_target_tokens"]
    is_key = (source >= FIRST_WORD) & (source < FIRST_WORD + recall.KEYS)
    assert (is_key.sum(1) == 1).all() and (source[is_key] == key[:, 0]).all() and (source[:, -1] == EOS).all()
    assert len(set(key[:, 0])) > recall.KEYS / 2 and source.max() < recall.VOCABULARY and source.min() == EOS
    read = np.asarray(reverse_sequence(source.T, source.T > 0)).T if getattr(config, "reverse_source", False) else source
    ways = [read] if name != "gnmt" else [read, read[:, ::-1]]  # read backwards, the end token comes first: n - 1 words are left
    for way, steps in zip(ways, (distance, distance - 1), strict=False):
        assert (way.shape[1] - 1 - np.argmax(np.isin(way, key), axis=1) == steps).all()


def test_recall_trains_without_dropout():
    tasks = [recall.Task("bag", replace(BAG, dropout=rate), (2,), BUDGET) for rate in (0.0, 0.5)]
    losses = [task.train(1)[1] for task in tasks]
    assert losses[0] == losses[1]


def test_what_can_be_recalled_is_learnt_and_what_was_not_taught_is_guessed():
    taught = recall.Task("bag", BAG, (1, 4), Recall(steps=150, batch_size=16, learning_rate=1e-2))
    assert min(taught.accuracies(1).values()) > 0.9
    untaught = recall.Task("bag", BAG, (1, 4), Recall(steps=1, batch_size=16, learning_rate=1e-6))
    assert max(untaught.accuracies(1).values()) < 0.3


@pytest.mark.parametrize("together", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_killed_in_the_middle_it_goes_on_and_ends_the_same(together, tmp_path, monkeypatch):
    models = {"bag": BAG, "wide": replace(BAG, hidden_dim=24)}
    measure = functools.partial(recalled, models, distances=(3, 1, 3), apart=not together, seeds=2)
    whole = measure(tmp_path / "whole.csv")
    assert len(whole) == len(set(whole)) == 2 * 2 * 2
    assert {(cell.model, cell.seed, cell.distance) for cell in whole} == {(m, s, n) for m in models for s in (1, 2) for n in (1, 3)}
    trained, plain = [], recall.Task.accuracies

    def killed(task, seed):
        if len(trained) == 3:
            raise KeyboardInterrupt
        trained.append(seed)
        return plain(task, seed)

    monkeypatch.setattr(recall.Task, "accuracies", killed)
    with pytest.raises(KeyboardInterrupt):
        measure(tmp_path / "cut.csv")
    assert len(recall.read(tmp_path / "cut.csv")) == (6 if together else 3)
    if not together:
        trained.clear()
        with pytest.raises(KeyboardInterrupt):
            measure(tmp_path / "cut.csv")
    trained.clear()
    assert measure(tmp_path / "cut.csv") == whole and len(trained) == (1 if together else 2)
    assert (tmp_path / "cut.csv").read_text() == (tmp_path / "whole.csv").read_text()


def test_a_chart_has_one_budget_and_takes_more_models(tmp_path, monkeypatch):
    monkeypatch.setattr(recall.Task, "accuracies", lambda task, seed: dict.fromkeys(task.distances, 0.5 * seed))
    path = tmp_path / "a.csv"
    recalled({"bag": BAG}, path, distances=(1, 3), seeds=2)
    cells = recalled({"other": tiny.BASE}, path, distances=(1, 3), seeds=1)
    drawn = recall.lines(cells)
    assert list(drawn) == ["bag", "other", "guessing"]
    assert drawn["bag"].x == [1, 3] and drawn["bag"].y == [0.75, 0.75] and drawn["bag"].high[0] == pytest.approx(0.75 + 0.125**0.5)
    assert drawn["guessing"].y == [1 / recall.KEYS] * 2
    assert ["bag", "75", "±", "35", "75", "±", "35"] in [row.split() for row in str(recall.report(cells)[1]).splitlines()]
    assert "one model for all n" in recall.report(cells)[0][".svg"]
    apart = tmp_path / "apart.csv"
    recalled({"bag": BAG}, apart, distances=(1, 3), apart=True, seeds=1)
    cells = recalled({"other": tiny.BASE}, apart, distances=(3, 5), apart=True, seeds=1)
    assert [row[1:] for row in recall.report(cells)[1].rows] == [("50 ± 0", "50 ± 0", "–"), ("–", "50 ± 0", "50 ± 0"), ("6 ± 0",) * 3]
    different = {
        "steps 3, not 4": ({"bag": BAG}, {"distances": (1, 3), "steps": 4}),
        "trained on 1 3, not 1": ({"bag": BAG}, {"distances": (1, 3), "apart": True}),
        "trained on 1 3, not 1 3 5": ({"new": BAG}, {"distances": (1, 3, 5)}),
        "parameters": ({"bag": replace(BAG, hidden_dim=24)}, {"distances": (1, 3)}),
    }
    for said, (models, changes) in different.items():
        with pytest.raises(UserError, match=said):
            recalled(models, path, seeds=1, **changes)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="not a table of this probe"):
        recall.read(path)


def test_the_command_trains_and_draws(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["probe", "recall", "phrases/rnn_fixed", "--width", "8", "--distances", "2", "1", "--steps", "2", "--seeds", "1"]
    assert cli.main([*words, "--apart"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recall.csv", "recall.svg"]
    assert [(cell.model, cell.distance, cell.trained_on) for cell in recall.read(tmp_path / "recall.csv")] == [
        ("rnn_fixed", 1, "1"),
        ("rnn_fixed", 2, "2"),
    ]
    assert "a model for each n" in (tmp_path / "recall.svg").read_text()
    assert cli.main([*words, "--apart", "--learning-rate", "0.5"]) == 2
    assert "learning rate 0.003, not 0.5" in capsys.readouterr().err
    (tmp_path / "run").mkdir()
    assert cli.main(["probe", "recall", "run"]) == 2
    assert "give a config" in capsys.readouterr().err


# ---- steptime


def test_a_row_for_each_model_and_length_at_equal_tokens(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--width", "8", "--lengths", "4", "16", "--tokens", "64", "--run-time", "0"]
    assert cli.main(["probe", "steptime", "phrases/rnn_fixed", "phrases/bag", *words]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["steptime-utilisation.svg", "steptime.csv", "steptime.svg"]
    rows = list(csv.DictReader((tmp_path / "steptime.csv").open()))
    assert [(row["model"], row["length"], row["rows"]) for row in rows] == [
        (name, length, count) for name in ("rnn_fixed", "bag") for length, count in (("4", "16"), ("16", "4"))
    ]
    for row in rows:
        assert int(row["steps"]) == steptime.LEAST
        assert 0 < float(row["low_s"]) <= float(row["step_s"]) <= float(row["high_s"])
        assert float(row["target_tokens_per_s"]) * float(row["step_s"]) == pytest.approx(64)
        assert float(row["utilisation"]) > 0
    flops = [float(row["utilisation"]) * float(row["step_s"]) for row in rows]  # the same work at either length
    assert flops[0] == pytest.approx(flops[1]) and flops[2] == pytest.approx(flops[3])
    assert "rnn_fixed, 16" in capsys.readouterr().out


def test_a_band_is_from_quartile_to_quartile(monkeypatch):
    timing = steptime.Timing("a", 16, 4, step_s=2.0, low_s=1.0, high_s=4.0, target_tokens_per_s=32.0, utilisation=0.4, steps=3)
    drawn = []
    monkeypatch.setattr(figures, "chart", lambda lines, *titles, **axes: drawn.append(lines))
    steptime.report([timing])
    assert drawn == [{"a": ([16], [2.0], [1.0], [4.0])}, {"a": ([16], [0.4], [0.2], [0.8])}]


def test_too_few_tokens_for_a_row_are_refused(capsys):
    assert cli.main(["probe", "steptime", "quickstart", "--lengths", "16", "512", "--tokens", "256"]) == 2
    said = capsys.readouterr().err
    assert "--tokens is 256" in said and "512" in said


@pytest.mark.parametrize("words, shown", [(("--lengths", "16", "0"), "(16, 0)"), (("--lengths",), "()"), (("--tokens", "0"), "0")])
def test_numbers_that_cannot_be_are_refused(words, shown, capsys):
    assert cli.main(["probe", "steptime", "quickstart", *words]) == 2
    said = capsys.readouterr().err
    assert f"{words[0]} is {shown}" in said and "above 0" in said
