"""Probes of runs: each number by hand, or by the model itself."""

import csv
import statistics

import jax
import numpy as np
import pytest
import tiny

from jaxnmt import cli
from jaxnmt.analysis.probes import gates, length
from jaxnmt.config import UserError
from jaxnmt.decoding.search import EOS
from jaxnmt.evaluation.scores import bleu_metric, bleu_score
from jaxnmt.evaluation.test_sets import TestSet

WORDS = "a man in the red hat sits on his old bench and reads".split()


def sentences(count, seed, longest=12):
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, random.integers(1, longest + 1))) for _ in range(count)]


def damaged(lines, seed):
    random = np.random.default_rng(seed)
    return [" ".join("oh" if random.random() < 0.2 else word for word in line.split()) for line in lines]


def corpus(count=60):
    references = sentences(count, 1)
    return TestSet("test", sentences(count, 2), references, False, ("en", "de"))


# ---- length


def test_bins_by_hand():
    found = length.bins([5, 1, 2, 2, 9, 1, 7, 3], 4)
    assert [(each.members, each.fewest, each.most) for each in found] == [([1, 5], 1, 1), ([2, 3], 2, 2), ([7, 0], 3, 5), ([6, 4], 7, 9)]
    assert [each.mean for each in found] == [1, 2, 4, 8]
    assert [len(each.members) for each in length.bins([3] * 7 + [4], 4)] == [7, 1]  # those of one length stay together
    for count in (1, 3, 8, 50):
        lengths = np.random.default_rng(count).integers(0, 30, 200).tolist()
        found = length.bins(lengths, count)
        assert sorted(number for each in found for number in each.members) == list(range(200)) and len(found) <= count
        assert all(left.most < right.fewest for left, right in zip(found, found[1:], strict=False))


def test_one_bin_is_what_evaluate_says_and_its_band_is_near_sacrebleus_other_bootstrap():
    test = corpus()
    translations = damaged(test.references, 3)
    line = length.curves(test, {"a": [translations]}, length.bins_of(test, 1))["a"]
    theirs = bleu_metric(False, "de").corpus_score(translations, [test.references], n_bootstrap=1000)
    assert line.y == [bleu_score(translations, test.references, False, ("en", "de"))] == [pytest.approx(theirs.score)]
    assert (line.low[0], line.high[0]) == pytest.approx((theirs._mean - theirs._ci, theirs._mean + theirs._ci), abs=0.7)  # drawn otherwise
    assert line.x == [pytest.approx(statistics.fmean(len(source.split()) for source in test.sources))]


def test_several_runs_are_their_mean_and_deviation_bin_by_bin():
    test = corpus()
    runs = [damaged(test.references, seed) for seed in (3, 4, 5)]
    bins = length.bins_of(test, 3)
    line = length.curves(test, {"a": runs}, bins)["a"]
    for place, each in enumerate(bins):
        references = [test.references[i] for i in each.members]
        scores = [bleu_score([run[i] for i in each.members], references, False, ("en", "de")) for run in runs]
        assert line.y[place] == pytest.approx(statistics.fmean(scores))
        assert line.high[place] - line.y[place] == pytest.approx(statistics.stdev(scores)) == pytest.approx(line.y[place] - line.low[place])


def test_which_runs_are_seeds_of_one_variant():
    assert length.variant_of("studies/x/runs/a_b/seed-2/run") == length.variant_of("studies/x/runs/a_b/seed-13/") == "studies/x/runs/a_b"
    assert length.variant_of("runs/seed-2-more") == "runs/seed-2-more"


def test_length_draws_files_and_keeps_the_numbers(tmp_path, capsys):
    test = corpus()
    for name, lines in {
        "s.en": test.sources,
        "r.de": test.references,
        "a.de": damaged(test.references, 3),
        "b.de": test.references,
    }.items():
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
    words = [str(tmp_path / name) for name in ("a.de", "b.de")]
    given = ["--source", str(tmp_path / "s.en"), "--reference", str(tmp_path / "r.de"), "--output", str(tmp_path / "x.svg"), "--bins", "3"]
    assert cli.main(["probe", "length", *words, *given]) == 0
    assert "100.0 (100.0–100.0)" in capsys.readouterr().out
    svg = (tmp_path / "x.svg").read_text()
    assert svg.startswith("<svg") and ">a.de<" in svg and ">b.de<" in svg
    rows = list(csv.DictReader((tmp_path / "x.csv").open()))
    assert sum(int(row["sentences"]) for row in rows if row["line"] == "a.de") == len(test.sources)
    assert all(float(row["bleu"]) == pytest.approx(100) for row in rows if row["line"] == "b.de")


@pytest.mark.parametrize(
    ("words", "says"), [(["--output", "x.png"], ".svg"), (["--output", "no/x.svg"], "no folder"), (["--bins", "0"], "--bins")]
)
def test_mistakes_are_said(words, says, capsys):
    assert cli.main(["probe", "length", "a.de", *words]) == 2
    told = capsys.readouterr().err
    assert says in told and told.count("\n") == 1


# ---- gates


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def norm(x, scale, bias):
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * scale + bias


def by_hand(kind, layer, x_SD):
    """The papers' equations, a step after the other."""
    kernel, recurrent, bias = (
        np.asarray(x, np.float64) for x in (layer["input"]["kernel"], layer["recurrent"]["kernel"], layer["input"]["bias"])
    )
    h = c = np.zeros(recurrent.shape[-1])
    told = []
    for x in x_SD:
        z, r = np.einsum("d,dgh->gh", x, kernel), np.einsum("d,dgh->gh", h, recurrent)
        if kind == "gru":
            z = z + bias
            reset, update = sigmoid(z[0] + r[0]), sigmoid(z[1] + r[1])
            candidate = np.tanh(z[2] + reset * (r[2] + layer["candidate_bias"]))
            h = (1 - update) * candidate + update * h
            told.append({"reset": reset, "update": update, "candidate": candidate, "h": h})
            continue
        if kind == "layernorm_lstm":
            z = norm(z.ravel(), layer["input_norm_scale"], bias.ravel()).reshape(z.shape)
            r = norm(r.ravel(), layer["recurrent_norm_scale"], layer["recurrent_norm_bias"]).reshape(r.shape)
        else:
            z = z + bias
        let_in, forget, candidate, out = sigmoid(z[0] + r[0]), sigmoid(z[1] + r[1]), np.tanh(z[2] + r[2]), sigmoid(z[3] + r[3])
        c = forget * c + let_in * candidate
        seen = np.tanh(norm(c, layer["cell_norm_scale"], layer["cell_norm_bias"]) if kind == "layernorm_lstm" else c)
        h = out * seen
        told.append({"input": let_in, "forget": forget, "candidate": candidate, "output": out, "cell": np.abs(seen), "h": h})
    return {name: np.stack([step[name] for step in told]) for name in told[0]}


SOURCE = [5, 9, 4, 11, 7, 6, EOS]


@pytest.mark.parametrize("name", ["sutskever", "bahdanau", "luong", "luong_concat", "cho", "gnmt"])
def test_gates_are_the_papers_equations(name):
    config = tiny.RECURRENT[name]
    model = tiny.model_of(config)
    params = tiny.params_of(model, 3)
    encoder = jax.tree.map(np.asarray, params["encoder"])
    table = np.asarray(model.module.apply({"params": params}, method=lambda module: module.embed_source.table), np.float64)
    turn = (lambda x: np.concatenate([x[-2::-1], x[-1:]])) if config.reverse_source else (lambda x: x)
    x_SD = turn(table[SOURCE] * np.sqrt(config.emb_dim))
    found = {layer.name: layer.gates for layer in gates.read(config, model, params, SOURCE)}
    expected, states = {}, None
    for i in range(config.num_encoder_layers):
        forth = by_hand(config.cell, encoder[f"layer_{i}"], x_SD)
        expected[f"layer {i + 1}"] = {gate: turn(x) for gate, x in forth.items()}
        states = forth["h"]
        if f"backward_layer_{i}" in encoder:
            back = {gate: x[::-1] for gate, x in by_hand(config.cell, encoder[f"backward_layer_{i}"], x_SD[::-1]).items()}
            expected[f"layer {i + 1}, backwards"] = {gate: turn(x) for gate, x in back.items()}
            states = np.concatenate([forth["h"], back["h"]], -1)
        x_SD = states + x_SD if config.residual and i > 0 else states
    assert list(found) == list(expected)
    tiny.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    memory = model.encode(params, {"encoder_input_tokens": np.array([SOURCE])})
    np.testing.assert_allclose(memory.states_BSD[0], turn(x_SD), atol=1e-5)


def test_gates_are_drawn_with_their_numbers():
    config = tiny.RECURRENT["luong"]
    model = tiny.model_of(config)
    layers = gates.read(config, model, tiny.params_of(model, 3), SOURCE)
    pieces = [f"w{i}" for i in range(len(SOURCE))]
    rows = list(csv.DictReader(gates.numbers(layers, pieces, gates.LSTM).splitlines()))
    assert len(rows) == 4 * 4 * len(SOURCE)
    for row in rows:
        [layer] = [layer for layer in layers if layer.name == row["layer"]]
        assert float(row["mean"]) == pytest.approx(layer.gates[row["gate"]][int(row["position"])].mean()) and row["piece"] in pieces
    svg = gates.drawn(layers, pieces, gates.LSTM)
    assert all(f">{text}<" in svg for text in ("layer 2, backwards", "forget", "w6"))
    state = layers[0].mean("state")
    np.testing.assert_allclose(state, np.abs(layers[0].gates["h"]).mean(-1))


@pytest.mark.parametrize("config", [tiny.BASE, tiny.RECURRENT["bag"], tiny.RECURRENT["elman"]])
def test_a_model_without_gates_is_refused(config):
    with pytest.raises(UserError, match="has no gates"):
        gates.check(config)
