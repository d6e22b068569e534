"""Probes of runs: each number by hand, or by the model itself."""

import csv
import statistics

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxnmt import cli
from jaxnmt import config as cfg
from jaxnmt.config.files import save_config
from jaxnmt.data.special_tokens import EOS
from jaxnmt.data.tokenizer_training import train_tokenizer
from jaxnmt.errors import UserError
from jaxnmt.evaluation.scores import bleu, metric
from jaxnmt.evaluation.test_sets import TestSet
from jaxnmt.lab.options import Contrast
from jaxnmt.lab.probes import contrast, embeddings, gates, length
from jaxnmt.models.layers import sinusoids
from jaxnmt.run import Run
from jaxnmt.training.loop import train

WORDS = "a man in the red hat sits on his old bench and reads".split()


def sentences(count, seed, longest=12):
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, random.integers(1, longest + 1))) for _ in range(count)]


def damaged(lines, seed):
    random = np.random.default_rng(seed)
    return [" ".join("oh" if random.random() < 0.2 else word for word in line.split()) for line in lines]


def corpus(count=60):
    references = sentences(count, 1)
    return TestSet("test", sentences(count, 2), [references], ("en", "de")).with_tokenizers()


def bins_of(test, count):
    return length.bins([len(source.split()) for source in test.sources], count)


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
    translations = damaged(test.references[0], 3)
    line = length.curves(test, {"a": [translations]}, bins_of(test, 1))["a"]
    theirs = metric("bleu", "13a").corpus_score(translations, test.references, n_bootstrap=1000)
    assert line.y == [bleu(translations, test.references, "13a").value] == [pytest.approx(theirs.score)]
    assert (line.low[0], line.high[0]) == pytest.approx((theirs._mean - theirs._ci, theirs._mean + theirs._ci), abs=0.7)  # drawn otherwise
    assert line.x == [pytest.approx(statistics.fmean(len(source.split()) for source in test.sources))]


def test_several_runs_are_their_mean_and_deviation_bin_by_bin():
    test = corpus()
    runs = [damaged(test.references[0], seed) for seed in (3, 4, 5)]
    bins = bins_of(test, 3)
    line = length.curves(test, {"a": runs}, bins)["a"]
    for place, each in enumerate(bins):
        references = [[test.references[0][i] for i in each.members]]
        scores = [bleu([run[i] for i in each.members], references, "13a").value for run in runs]
        assert line.y[place] == pytest.approx(statistics.fmean(scores))
        assert line.high[place] - line.y[place] == pytest.approx(statistics.stdev(scores)) == pytest.approx(line.y[place] - line.low[place])


def test_which_runs_are_seeds_of_one_variant():
    assert length.variant_of("studies/x/runs/a_b/seed-2/run") == length.variant_of("studies/x/runs/a_b/seed-13/") == "studies/x/runs/a_b"
    assert length.variant_of("runs/seed-2-more") == "runs/seed-2-more"


def test_length_draws_files_and_keeps_the_numbers(tmp_path, capsys):
    test = corpus()
    for name, lines in {
        "s.en": test.sources,
        "r.de": test.references[0],
        "a.de": damaged(test.references[0], 3),
        "b.de": test.references[0],
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


@pytest.mark.parametrize(
    "name", ["sutskever", "bahdanau", "luong_concat", "gnmt", *(pytest.param(name, marks=pytest.mark.slow) for name in ("luong", "cho"))]
)
def test_gates_are_the_papers_equations(name):
    config = tiny.RECURRENT[name]
    model = tiny.model_of(config)
    params = tiny.params_of(model, 3)
    encoder = jax.tree.map(np.asarray, params["encoder"])
    table = np.asarray(model.module.apply({"params": params}, method=lambda module: module.embed_source.table), np.float64)
    turn = (lambda x: np.concatenate([x[-2::-1], x[-1:]])) if config.reverse_source else (lambda x: x)
    x_SD = turn(table[SOURCE] * np.sqrt(config.emb_dim))
    found = gates.read(config, model, params, SOURCE)
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
    files, _ = gates.report(layers, pieces, gates.LSTM)
    rows = list(csv.DictReader(files[".csv"].splitlines()))
    assert len(rows) == 4 * 4 * len(SOURCE)
    for row in rows:
        layer = layers[row["layer"]]
        assert float(row["mean"]) == pytest.approx(layer[row["gate"]][int(row["position"])].mean()) and row["piece"] in pieces
    assert all(f">{text}<" in files[".svg"] for text in ("layer 2, backwards", "forget", "w6"))
    files, _ = gates.report(layers, pieces, ["state"])
    state = [float(row["mean"]) for row in csv.DictReader(files[".csv"].splitlines()) if row["layer"] == "layer 1"]
    np.testing.assert_allclose(state, np.abs(layers["layer 1"]["h"]).mean(-1), rtol=1e-6)


@pytest.mark.parametrize("config", [tiny.BASE, tiny.RECURRENT["bag"], tiny.RECURRENT["elman"]])
def test_a_model_without_gates_is_refused(config):
    with pytest.raises(UserError, match="has no gates"):
        gates.check(config)


# ---- contrast

AGREE = """
[[rules]]
name = "owner"
[[rules.agree]]
antecedents = ["mann", "Junge"]
swaps = { seine = "ihre", seinen = "ihren" }
[[rules.agree]]
antecedents = ["frau"]
swaps = { ihre = "seine" }
[[rules]]
name = "who"
after = [","]
[[rules.agree]]
antecedents = ["mann"]
swaps = { der = "die" }
[[rules.agree]]
antecedents = ["leute"]
"""


def rules_of(tmp_path, only=()):
    (tmp_path / "rules.toml").write_text(AGREE)
    return contrast.load_rules(str(tmp_path / "rules.toml"), only)


@pytest.mark.parametrize(
    ("target", "wrong"),
    [
        ("Der Mann hebt seine Hand.", [("Der Mann hebt ihre Hand.", 1)]),
        ("der mann hebt im roten , alten hut seine hand .", [("der mann hebt im roten , alten hut ihre hand .", 5)]),  # a comma is no word
        ("Eine junge Frau, Ihre Hand", [("Eine junge Frau, Seine Hand", 0)]),  # an adjective before the noun; a capital stays
        ("Ein Mann und eine Frau heben seine Hand", []),  # two antecedents
        ("Seine Hand hebt der Mann", []),  # none before it
        ("Mann, der seine Hand und seinen Fuß", [("Mann, der ihre Hand und seinen Fuß", 1), ("Mann, die seine Hand und seinen Fuß", 0)]),
        ("Ein Mann der läuft", []),  # no comma before it
        ("Leute sehen den Mann, der läuft", []),  # those without swaps are in the way too
        ("Ein Mann hebt ihre Hand", []),
    ],
)
def test_pairs_by_hand(tmp_path, target, wrong):
    made = contrast.make(rules_of(tmp_path), ["source"], [target])
    assert made == [contrast.Pair("source", target, *each) for each in wrong]


def test_split_words_are_words(tmp_path):
    [pair] = contrast.make(rules_of(tmp_path), ["s"], ["ein m@@ ann mit lang@@ em haar hebt sei@@ ne hand"], "@@ ")
    assert pair.wrong == "ein m@@ ann mit lang@@ em haar hebt ihre hand" and pair.distance == 4
    assert contrast.make(rules_of(tmp_path), ["s"], ["ein frau@@ chen hebt ihre hand"], "@@ ") == []
    [pair] = contrast.make(rules_of(tmp_path), ["s"], ["▁Ein ▁m ann ▁mit ▁lang em ▁haar , ▁hebt ▁sei ne ▁hand ."], "▁")
    assert pair.wrong == "▁Ein ▁m ann ▁mit ▁lang em ▁haar , ▁hebt ▁ihre ▁hand ." and pair.distance == 4
    [pair] = contrast.make(rules_of(tmp_path), ["s"], ["Ein m￭ ann mit lang ￭em haar ￭, hebt sei ￭ ne hand ￭."], "￭")
    assert pair.wrong == "Ein m￭ ann mit lang ￭em haar ￭, hebt ihre hand ￭." and pair.distance == 4


def test_pairs_are_made_of_test_and_validation_sentences(tmp_path):
    rules_of(tmp_path)
    for name, line in (("t.en", "s"), ("t.de", "Der Mann hebt seine Hand"), ("v.en", "s"), ("v.de", "Ein Mann hebt seine Hand")):
        (tmp_path / name).write_text(f"{line}\n")
    data = {f"data.{split}": (f"{tmp_path}/{n}.en", f"{tmp_path}/{n}.de") for split, n in (("test", "t"), ("validation", "v"))}
    (tmp_path / "run").mkdir()
    save_config(cfg.replace(cfg.Experiment(), **data), tmp_path / "run" / "config.json")
    pairs = contrast.of_runs([Run(tmp_path / "run")], Contrast(rules=str(tmp_path / "rules.toml")))
    assert [pair.right.split()[0] for pair in pairs] == ["Der", "Ein"]


def test_rules_that_are_wanted_shipped_or_wrong(tmp_path):
    assert [rule.name for rule in rules_of(tmp_path, ["who"])] == ["who"]
    for file in contrast.RULES.glob("*.toml"):
        for rule in contrast.load_rules(file.stem):
            assert all(wrong not in swaps for swaps in rule.swaps.values() for wrong in swaps.values())
    (tmp_path / "bad.toml").write_text("[[rules]]\nname = 'x'\n")
    for name, only, says in (
        (str(tmp_path / "bad.toml"), [], "agree"),
        ("xx", [], "shipped rules for: de"),
        ("de", ["whose"], "possessive, relative"),
    ):
        with pytest.raises(UserError, match=says):
            contrast.load_rules(name, only)


def test_pairs_are_read_as_they_were_written(tmp_path):
    pairs = [contrast.Pair("a b", "c", "d", 3), contrast.Pair("é", "f g", "f h", 0)]
    file = tmp_path / "pairs.tsv"
    file.write_text(contrast.as_text(pairs))
    assert contrast.read(str(file)) == pairs
    file.write_text("a\tb\tc\t1\na\tb\tc\n")
    with pytest.raises(UserError, match="line 2"):
        contrast.read(str(file))


def test_wilson_by_the_book():
    assert contrast.wilson(0, 10) == pytest.approx((0, 0.2775), abs=1e-4)
    assert contrast.wilson(10, 10) == pytest.approx((0.7225, 1), abs=1e-4)
    assert contrast.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998, table I


def test_shares_by_distance():
    distances, right = [0, 1, 2, 3, 3, 9, 4], [True, True, False, True, True, False, False]
    found = contrast.by_distance([contrast.Pair("", "", "", d) for d in distances], right)
    assert [(s.nearest, s.furthest, s.pairs, s.right) for s in found] == [
        (0, 0, 1, 1),
        (1, 1, 1, 1),
        (2, 3, 3, 2),
        (4, 4, 1, 0),
        (9, 9, 1, 0),
    ]
    assert found[2].mean == pytest.approx(8 / 3) and (found[2].low, found[2].high) == contrast.wilson(2, 3)


TOKENIZER = train_tokenizer(cfg.Tokenizer(kind="words", vocab_size=0), [("a b c d e f g h", "u v w x y z")])


class Unmoved:
    """A model that gives each token a fixed share, whatever it reads: `u` twice as much as `v`, and so on."""

    has_features = False

    def encode(self, params, batch):
        return None

    def decode(self, params, memory, batch):
        shape = *batch["decoder_input_tokens"].shape, len(params)
        return jnp.broadcast_to(params, shape)


def test_a_model_whose_preference_is_known():
    likes = np.full(TOKENIZER.target_vocab_size, -9.0, np.float32)
    for power, word in enumerate("uvwxyz"):
        likes[TOKENIZER.encode_target([word])[0]] = -power * np.log(2)
    texts = [("u v", "u w"), ("x", "w"), ("u z", "u z"), ("u u y v", "u u x v"), ("v", "v v")]
    pairs = [contrast.Pair("a b c", right, wrong, 1) for right, wrong in texts]
    assert contrast.preferred(Unmoved(), jnp.asarray(likes), TOKENIZER, pairs) == [True, False, False, False, True]


def test_pairs_that_a_run_cannot_score_are_left_out():
    pairs = [contrast.Pair("a b", "u v", wrong, 1) for wrong in ("u w", "u nowhere", "u " * 9)]
    assert contrast.usable(pairs, TOKENIZER, 8) == pairs[:1]
    assert contrast.usable([pairs[1]._replace(right="nowhere v")], TOKENIZER, 8) != []


# ---- embeddings


class Planted(embeddings.Words):
    """A vocabulary of four special tokens and `names`, with vectors of our own."""

    def __init__(self, names, table_ND):
        self.names = ["", "", "", "", *names]
        self.table_VD = np.concatenate([np.full((4, table_ND.shape[1]), 5.0), table_ND])
        self._encode = lambda texts: [
            [self.names.index(piece) if piece in self.names else 3 for piece in text.split("-")] for text in texts
        ]
        self._pieces = lambda ids: [self.names[index] for index in ids]


def test_neighbours_of_a_planted_table():
    angles = {"a": 0, "b": 10, "c": 25, "d": 90, "e": 180, "f": 271}
    table = np.stack([length * np.array([np.cos(np.radians(x)), np.sin(np.radians(x))]) for length, x in enumerate(angles.values(), 1)])
    words = Planted(list(angles), table)
    assert [each.piece for each in words.neighbours("a", 4)] == ["b", "c", "f", "d"]
    assert [each.cosine for each in words.neighbours("a", 2)] == pytest.approx([np.cos(np.radians(10)), np.cos(np.radians(25))])
    assert len(words.neighbours("a", 99)) == 5 and words.names[words.neighbours("d", 1)[0].token] == "c"
    np.testing.assert_allclose(words.vector("a-d"), (table[0] + table[3]) / 2)  # of several pieces
    assert not {"a", "d"} & {each.piece for each in words.neighbours("a-d", 99)} and words.split("a-d") == ["a", "d"]
    with pytest.raises(UserError, match="vocabulary .*'x'"):
        words.vector("x")
    assert embeddings.frequent(
        ["eee aaa eee b", "aaa ccc eee 1999 aaa a ccc xxx xxx"], Planted(["aaa", "ccc", "eee", "a"], np.eye(4)), 2
    ) == ["eee", "aaa"]


def test_a_plane_keeps_what_lies_in_it():
    random = np.random.default_rng(0)
    flat = random.normal(size=(30, 2)) * [5, 2]
    turned = flat @ np.linalg.qr(random.normal(size=(7, 7)))[0][:2] + random.normal(size=7)
    xy, shares = embeddings.plane(turned)
    distance = lambda x: np.linalg.norm(x[:, None] - x[None], axis=-1)  # noqa: E731
    np.testing.assert_allclose(distance(xy), distance(flat), atol=1e-9)
    assert shares.sum() == pytest.approx(1) and shares[0] == pytest.approx(xy[:, 0].var() / (xy[:, 0].var() + xy[:, 1].var()))
    np.testing.assert_allclose(embeddings.plane(-turned + 3)[0], xy, atol=1e-9)  # whatever sign the factorisation chose


LIKE_OTHERS = {"sutskever", "cho", "luong_dot", "luong_location"}  # whose encoders have no part that others have not


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name in LIKE_OTHERS else name for name in ("pre", "post", "rotary", *tiny.RECURRENT)],
)
def test_layer_by_layer_is_the_encoder(name):
    """The first is the embedding, the last what the decoder gets; between them, what a shallower encoder with the same parameters gives."""
    config = {**tiny.VARIANTS, **tiny.RECURRENT}[name]
    if name in tiny.VARIANTS:
        config = cfg.replace(config, num_encoder_layers=3)
    model = tiny.model_of(config)
    params, batch = tiny.params_of(model, 5), {"encoder_input_tokens": np.array([SOURCE])}
    found = embeddings.layers(config, model, params, SOURCE)
    assert len(found) == config.num_encoder_layers + 1 and all(len(x) == len(SOURCE) for x in found)
    np.testing.assert_allclose(found[-1], model.encode(params, batch).states_BSD[0], atol=1e-6)
    table = model.module.apply({"params": params}, method=lambda module: module.embed_source.table)
    first = table[np.array(SOURCE)] * np.sqrt(config.emb_dim)
    if name == "pre":
        first = first + sinusoids(len(SOURCE), config.emb_dim)
    np.testing.assert_allclose(found[0], first, atol=1e-5)
    if getattr(config, "norm_order", "") == "pre":  # a norm follows the last layer
        return
    for depth in range(1, config.num_encoder_layers):
        shallow = tiny.model_of(cfg.replace(config, num_encoder_layers=depth))
        states = shallow.module.apply({"params": params}, batch, method="encode").states_BSD[0]
        np.testing.assert_allclose(found[depth], states, atol=1e-5)


def test_the_same_word_in_the_same_sentence_is_the_same_vector():
    model = tiny.model_of(tiny.BASE)
    found = embeddings.layers(tiny.BASE, model, tiny.params_of(model, 5), SOURCE)
    assert embeddings.likeness(found, [2], found, [2]) == pytest.approx([1, 1])
    assert embeddings.likeness(found, [1, 2], found, [3])[0] == pytest.approx(
        np.dot(found[0][1:3].mean(0), found[0][3]) / np.linalg.norm(found[0][1:3].mean(0)) / np.linalg.norm(found[0][3]), abs=1e-6
    )


def test_where_a_word_stands():
    tokenizer = train_tokenizer(cfg.Tokenizer(kind="words", vocab_size=0), [("a b@@ c , d", "u")])
    sentence = "A a b@@ c , d b@@ c"
    source = [*tokenizer.encode_source([sentence])[0], EOS]
    assert embeddings.occurrence(tokenizer, sentence, source, "BC") == [2, 3] and embeddings.occurrence(
        tokenizer, sentence, source, "a"
    ) == [0]
    with pytest.raises(UserError, match="'A a .* b@@ c' does not have the word 'b'"):
        embeddings.occurrence(tokenizer, sentence, source, "b")


def test_position_vectors():
    sine = embeddings.position_vectors(tiny.BASE, {}, 9)["sinusoidal"]
    assert sine[3, 1] == pytest.approx(np.sin(3 / 10000 ** (1 / 8))) and sine[3, 8] == pytest.approx(np.cos(3)) and sine.shape == (9, 16)
    config = tiny.VARIANTS["learned"]
    params = tiny.params_of(tiny.model_of(config), 1)
    learned = embeddings.position_vectors(config, params, 9)
    np.testing.assert_array_equal(learned["learned, decoder"], params["decoder_positions"]["table"][:9])
    assert len(learned) == 2 and not embeddings.position_vectors(tiny.VARIANTS["rotary"], {}, 9) | embeddings.position_vectors(
        tiny.RNN, {}, 9
    )


# ---- the commands


def test_the_commands_on_a_run(tmp_path, capsys, monkeypatch):
    """Each draws, keeps its numbers, and answers what cannot be."""
    changes = {"training.steps": 1, "validation.every": 0, "training.accumulation": 1}
    model = cfg.replace(tiny.RECURRENT["luong"], num_encoder_layers=1, num_decoder_layers=1)
    experiment = tiny.experiment(tmp_path, model=model, batching=cfg.Batching(layout="buckets", tokens=256, max_shapes=1), **changes)
    (tmp_path / "run").mkdir()
    save_config(experiment, tmp_path / "run" / "config.json")
    train(experiment, tmp_path / "run")
    (tmp_path / "rules.toml").write_text(
        "[[rules]]\nname = 'x'\n[[rules.agree]]\nantecedents = ['a', 'b', 'c']\nswaps = { d = 'e', f = 'g' }\n"
    )
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()

    assert cli.main(["probe", "length", "run", "--beam-size", "1", "--bins", "2"]) == 0
    assert cli.main(["probe", "contrast", "run", "--rules", "rules.toml"]) == 0
    first = capsys.readouterr().out
    assert cli.main(["probe", "contrast", "run", "--pairs", "contrast.tsv"]) == 0  # what was made, given back
    assert capsys.readouterr().out == first[first.index("The right translation") :]
    rows = list(csv.DictReader(open("contrast.csv")))
    assert sum(int(row["pairs"]) for row in rows) == len(open("contrast.tsv").readlines()) > 0
    assert cli.main(["probe", "gates", "run", "a b c"]) == 0
    assert len(list(csv.DictReader(open("gates.csv")))) == 2 * 4 * 4
    assert cli.main(["probe", "embeddings", "run", "--words", "a", "b", "c", "--word", "a", "--sentences", "a b", "c a", "b c a"]) == 0
    assert len(list(csv.DictReader(open("embeddings/layers.csv")))) == 2 * 2
    assert {row["word"] for row in csv.DictReader(open("embeddings/neighbours.csv"))} == {"a", "b", "c"}
    names = ["length.svg", "contrast.svg", "gates.svg", "embeddings/map.svg", "embeddings/layers.svg"]
    assert all((tmp_path / name).read_text().startswith("<svg") for name in names)
    capsys.readouterr()
    for words, says in (
        (["contrast", "run"], "--rules"),  # no language has such text
        (["embeddings", "run", "--word", "a"], "go together"),
        (["embeddings", "run", "--words", "nothing"], "vocabulary does not have 'nothing'"),
        (["gates", "run", " "], "no word"),
        (["gates", "nowhere", "a"], "does not exist"),
    ):
        assert cli.main(["probe", *words]) == 2
        assert says in capsys.readouterr().err.splitlines()[-1]
