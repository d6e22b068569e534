"""Word alignments: by hand from attention that is written down, and from a model's own."""

import json
import types

import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import jaxnmt
from jaxnmt import cli
from jaxnmt import config as cfg
from jaxnmt.config import replace
from jaxnmt.config.files import save_config
from jaxnmt.data.tokenizer_training import train_tokenizer
from jaxnmt.decoding.alignments import Aligner, Alignment, of_words, teacher_forced_attention
from jaxnmt.decoding.translation import Translation
from jaxnmt.decoding.translator import Translator
from jaxnmt.errors import UserError
from jaxnmt.models.seq2seq import build_model
from jaxnmt.training.loop import train

TOKENIZER = train_tokenizer(cfg.Tokenizer(kind="words", vocab_size=0), [("a b@@ c d", "u@@ v w@@ x y z")])


class Written:
    """A model whose attention is a function of the tokens: of each head and layer, `place(s, t)` of the source and target token there."""

    attention_module = "cross_attention"

    def __init__(self, *places):
        self.places = places

    def attention(self, params, batch):
        source, target = batch["encoder_input_tokens"], batch["decoder_input_tokens"]
        layers = [jnp.stack([head(source[:, None], target[:, :, None]) for head in heads], 1) for heads in self.places]
        self_attention = {"attention": (jnp.full((len(target), 1, target.shape[1], target.shape[1]), 9.0),)}
        return {
            "decoder": {
                f"layer_{i}": {"cross_attention": {"attention": (x,)}, "self_attention": self_attention} for i, x in enumerate(layers)
            }
        }


def aligner(*places):
    return Aligner(types.SimpleNamespace(mesh=None, model=Written(*places), tokenizer=TOKENIZER, params={}))


def translation(*pairs):
    """Of (source text, target text) for each part."""
    parts = tuple((TOKENIZER.encode_source([s])[0], TOKENIZER.encode_target([t])[0]) for s, t in pairs)
    return Translation(" ".join(TOKENIZER.decode_target(ids) for _, ids in parts), -0.5, parts=parts)


def product(s, t):
    return (s * t).astype(jnp.float32)


def test_words_by_hand():
    tokens_TS = np.array([[1, 2, 3], [5, 7, 11], [13, 17, 19]], np.float32)
    found = of_words(tokens_TS, [0, 0, 1], [0, 1, 1], 2, 2)  # sums over source tokens 1 and 2, means over target tokens 0 and 1
    np.testing.assert_array_equal(found, [[3, (5 + 18) / 2], [13, 36]])


@pytest.mark.parametrize(("targets", "sources"), [(0, 1), (1, 0), (0, 0)])
def test_tokens_that_make_no_word_are_aligned_to_nothing(targets, sources):
    assert of_words(np.ones((1, 1), np.float32), [0], [0], targets, sources).shape == (targets, sources)


def test_each_target_word_goes_to_the_source_word_it_looks_at_most():
    alignment = Alignment(["a", "bc"], ["uv", "wx", "y"], np.array([[0.1, 0.2], [0.5, 0.4], [0, 0]], np.float32))
    assert alignment.pharaoh() == "1-0 0-1"  # the last looks at no word at all
    assert Alignment([], [], np.zeros((0, 0))).pharaoh() == ""


def test_pieces_become_words_padding_and_ends_are_left_out_and_rows_are_of_what_is_predicted():
    """The weight of source token s for target token t is s times the token *before* t: what the decoder has read when it predicts t."""
    line, found = "a b@@ c d", translation(("a b@@ c d", "u@@ v w@@ x y"))
    long = translation(("d " * 9, "z " * 20))
    [[alignment], [other]] = aligner([product]).align([line, "d " * 9], [[found], [long]], rows=4)
    assert (alignment.source, alignment.target) == (["a", "bc", "d"], ["uv", "wx", "y"])
    a, b, c, d = found.parts[0][0]
    u, v, w, x, y = found.parts[0][1]
    before = np.array([(1 + u) / 2, (v + w) / 2, x])  # 1 begins
    np.testing.assert_allclose(alignment.weights_TS, np.outer(before, [a, b + c, d]))
    assert other.weights_TS.shape == (20, 9)


def test_a_batch_is_padded_to_a_power_of_four_and_not_to_the_batch_size():
    shapes = []

    class Traced(Written):
        def attention(self, params, batch):
            shapes.append(batch["encoder_input_tokens"].shape)
            return super().attention(params, batch)

    model, found = Traced([product]), [[translation(("a d", "y"))]] * 5
    few = Aligner(types.SimpleNamespace(mesh=None, model=model, tokenizer=TOKENIZER, params={}))
    shapes.clear()
    assert len(few.align(["a d"] * 5, found, rows=20_000)) == 5 and shapes == [(16, 16)]


def test_a_no_break_space_divides_no_words():
    """10 000 with a no-break space is a word, on both sides, though SentencePiece reads two."""
    line, text = "10\u00a0000 men", "10\u00a0000 Mann"
    for options in (cfg.Tokenizer(kind="words", vocab_size=0), cfg.Tokenizer(vocab_size=300)):
        tokenizer = train_tokenizer(options, [(line, text)])
        parts = ((tokenizer.encode_source([line])[0], tokenizer.encode_target([text])[0]),)
        found = Translation(tokenizer.decode_target(parts[0][1]), -0.5, parts=parts)
        model = types.SimpleNamespace(mesh=None, model=Written([product]), tokenizer=tokenizer, params={})
        [[alignment]] = Aligner(model).align([line], [[found]], 1)
        assert alignment.source == ["10\u00a0000", "men"] and alignment.target == found.text.split(" ")
        assert len(alignment.pharaoh().split()) == len(alignment.target)


@pytest.mark.parametrize("kind", ["words", "unigram"])
def test_words_of_a_given_pair_are_those_of_its_text_though_the_vocabulary_lacks_them(kind):
    """An unknown character is a word of its own in SentencePiece's decoded text."""
    tokenizer = train_tokenizer(cfg.Tokenizer(kind=kind, vocab_size=0 if kind == "words" else 300), [("a b@@ c d", "u@@ v w@@ x y z")] * 9)
    texts = [("a b@@ Q d", "u@@ Q Q@@ x y"), ("d", ""), ("d a", "z")]
    pairs = list(zip(tokenizer.encode_source([s for s, _ in texts]), tokenizer.encode_target([t for _, t in texts]), strict=True))
    model = types.SimpleNamespace(mesh=None, model=Written([product]), tokenizer=tokenizer, params={})
    first, empty, last = Aligner(model).align_pairs(texts, pairs, rows=2)
    joined = kind == "words"
    assert first.source == (["a", "bQ", "d"] if joined else texts[0][0].split())
    assert first.target == (["uQ", "Qx", "y"] if joined else texts[0][1].split())
    assert (empty.source, empty.target, empty.pharaoh()) == (["d"], [], "") and last.target == ["z"]
    if joined:
        (a, b, c, d), (u, v, w, x, y) = pairs[0]
        before = np.array([(1 + u) / 2, (v + w) / 2, x])  # 1 begins
        np.testing.assert_allclose(first.weights_TS, np.outer(before, [a, b + c, d]))


@pytest.mark.parametrize(("depth", "chosen"), [(1, 0), (2, 1), (3, 1), (12, 10)])
def test_heads_are_averaged_in_the_layer_that_is_chosen(depth, chosen):
    """Layer 10 comes after layer 9, not after layer 1."""
    places = [[lambda s, t, i=i: (s + 0 * t) * float(i), lambda s, t, i=i: (s + 0 * t) * float(i + 2)] for i in range(depth)]
    found = translation(("a d", "y"))
    [[alignment]] = aligner(*places).align(["a d"], [[found]], 1)
    np.testing.assert_allclose(alignment.weights_TS[0], np.array(found.parts[0][0]) * (chosen + 1))


def test_parts_of_a_line_stand_side_by_side():
    lines = ["a b@@ c d", "", "b@@ c"]
    found = [
        [translation(("a b@@", "u@@ v y"), ("c d", "w@@ x")), translation(("a b@@", "z"), ("c d", "z"))],
        [Translation("", 0.0)],
        [translation(("b@@ c", "z"))],
    ]
    [[first, second], [empty], [last]] = aligner([lambda s, t: jnp.ones_like(s * t, jnp.float32)]).align(lines, found, rows=2)
    assert first.source == second.source == ["a", "bc", "d"] and first.target == ["uv", "y", "wx"] and second.target == ["z", "z"]
    np.testing.assert_array_equal(first.weights_TS, [[1, 1, 0], [1, 1, 0], [0, 1, 1]])
    assert (empty.source, empty.target, empty.pharaoh()) == ([], [], "")
    assert last.source == ["bc"] and last.weights_TS == [[2]]


@pytest.mark.parametrize(
    "config", [tiny.BASE, cfg.Recurrent(emb_dim=8, hidden_dim=8, context="bahdanau")], ids=["transformer", "recurrent"]
)
def test_a_models_rows_sum_to_one_over_the_source_and_its_end(config):
    model = build_model(config, 29, 29)
    batch = {"encoder_input_tokens": np.array([[5, 6, 2, 0]]), "decoder_input_tokens": np.array([[1, 7, 8]])}
    weights = teacher_forced_attention(model, tiny.params_of(model), batch)
    assert weights.shape == (1, 3, 4)
    np.testing.assert_allclose(weights[0, :, :3].sum(-1), 1, atol=1e-6)
    np.testing.assert_allclose(weights[0, :, 3], 0, atol=1e-6)


def test_a_model_without_attention_is_refused_in_a_sentence():
    model = build_model(cfg.Recurrent(emb_dim=8, hidden_dim=8, context="fixed"), 29, 29)
    with pytest.raises(UserError, match="need attention over the source"):
        Aligner(Translator(model, tiny.params_of(model), TOKENIZER, 8))


WORDS = ["a@@ x", "b", "c@@ y", "d", "e", "f@@ x"]


def sentences(count, seed):
    random = np.random.default_rng(seed)
    return [random.choice(WORDS, random.integers(1, 5)).tolist() for _ in range(count)]


@pytest.fixture(scope="module")
def reversing(tmp_path_factory):
    """A run that has learnt to write sentences of words of one and two pieces backwards."""
    folder = tmp_path_factory.mktemp("reversing")
    for suffix, step in (("xx", 1), ("yy", -1)):
        (folder / f"text.{suffix}").write_text("".join(" ".join(line[::step]) + "\n" for line in sentences(1500, 0)))
    data = {"max_length": 12, "held_out": 10, "cache": str(folder / "cache"), "workers": 1}
    experiment = replace(
        cfg.Experiment(
            data=cfg.Data(train=(f"{folder}/text.xx,{folder}/text.yy",), cleaning=cfg.Cleaning(drop_duplicates=False), **data),
            tokenizer=cfg.Tokenizer(kind="words", vocab_size=0),
            batching=cfg.Batching(layout="buckets", tokens=512, max_shapes=1),
            model=cfg.Recurrent(cell="gru", context="bahdanau", emb_dim=32, hidden_dim=32, dropout=0.0),
            schedule=cfg.Schedule(name="constant", learning_rate=0.01, warmup_steps=20),
            training=cfg.Training(steps=300),
        ),
        **{"validation.every": 0, "logging.tensorboard": False, "decoding.batch_size": 8, "decoding.beam_size": 2},
    )
    (folder / "run").mkdir()
    save_config(experiment, folder / "run" / "config.json")
    train(experiment, folder / "run")
    return folder


LINES = [*sentences(30, 1), [], *sentences(1, 2)]
REVERSED = [" ".join(line[::-1]).replace("@@ ", "") for line in LINES]
ANTIDIAGONAL = [" ".join(f"{len(line) - 1 - t}-{t}" for t in range(len(line))) for line in LINES]


def translate(folder, capfd, *words):
    (folder / "in.txt").write_text("".join(" ".join(line) + "\n" for line in LINES))
    capfd.readouterr()
    assert cli.main(["translate", str(folder / "run"), "--input", str(folder / "in.txt"), *words]) == 0
    return capfd.readouterr().out.split("\n")[:-1]


def test_a_learnt_reversal_is_aligned_from_end_to_beginning(reversing, capfd):
    texts, links = zip(*(line.split("\t") for line in translate(reversing, capfd, "--alignments", "hard")), strict=True)
    assert list(texts) == translate(reversing, capfd) and links[30] == ""
    right = [found.split() for found, text, wanted in zip(links, texts, REVERSED, strict=True) if text == wanted]
    wanted = [wanted.split() for wanted, text, reference in zip(ANTIDIAGONAL, texts, REVERSED, strict=True) if text == reference]
    assert len(right) > 27
    assert np.mean([a == b for mine, theirs in zip(right, wanted, strict=True) for a, b in zip(mine, theirs, strict=True)]) > 0.9


def test_soft_alignments_are_json_and_their_strongest_are_the_hard_ones(reversing, capfd):
    hard = [line.split("\t")[1] for line in translate(reversing, capfd, "--alignments", "hard")]
    rows = [json.loads(line) for line in translate(reversing, capfd, "--alignments", "soft")]
    assert [row["sentence"] for row in rows] == list(range(1, 33)) and all(row["score"] <= 0 for row in rows)
    for row, line, links in zip(rows, LINES, hard, strict=True):
        assert row["target"] == row["translation"].split() and row["source"] == " ".join(line).replace("@@ ", "").split()
        weights = np.array(row["weights"]).reshape(len(row["target"]), len(row["source"]))
        assert (weights.sum(-1) <= 1.001).all() and (weights >= 0).all()
        assert " ".join(f"{np.argmax(w)}-{t}" for t, w in enumerate(weights)) == links


def test_each_of_the_n_best_has_its_own(reversing, capfd):
    best = translate(reversing, capfd, "--alignments", "hard")
    rows = [line.split("\t") for line in translate(reversing, capfd, "--alignments", "hard", "--n-best", "2")]
    assert [f"{text}\t{links}" for (number, _, text, links), last in zip(rows, [[""], *rows], strict=False) if number != last[0]] == best
    assert len(rows) == 2 * len(LINES) - 1  # of an empty line there is one
    assert all(len(links.split()) == len(text.split()) for _, _, text, links in rows)


def test_what_is_translated_and_what_is_given_is_aligned_alike(reversing, capfd):
    """Of the translations that the tokenizer spells as the search did, and of the references."""
    (reversing / "out.txt").write_text("".join(" ".join(line[::-1]) + "\n" for line in LINES))
    words = ["score", str(reversing / "run"), str(reversing / "in.txt"), str(reversing / "out.txt")]
    texts, links = zip(*(line.split("\t") for line in translate(reversing, capfd, "--alignments", "hard")), strict=True)

    def score(*more):
        assert cli.main([*words, *more, "--batch-size", "4"]) == 0
        return capfd.readouterr().out.split("\n")[:-1]

    plain, hard = score(), [line.rpartition("\t") for line in score("--alignments", "hard")]
    assert [columns for columns, _, _ in hard] == plain and hard[30][2] == ""
    for (_, _, found), translated, text, wanted in zip(hard, links, texts, REVERSED, strict=True):
        assert found == translated or text != wanted
    assert np.mean([found == wanted for (_, _, found), wanted in zip(hard, ANTIDIAGONAL, strict=True)]) > 0.8
    for row, (_, _, found) in zip(map(json.loads, score("--alignments", "soft")), hard, strict=True):
        weights = np.array(row["weights"]).reshape(len(row["target"]), len(row["source"]))
        assert " ".join(f"{np.argmax(w)}-{t}" for t, w in enumerate(weights)) == found
    assert [json.loads(line)["alignment"] for line in score("--json", "--alignments", "hard")] == [found for _, _, found in hard]
    pair = jaxnmt.load(reversing / "run").score("b a@@ x", "a@@ x b", alignments=True)
    assert pair.alignment.source == ["b", "ax"] and pair.alignment.target == ["ax", "b"] and pair.alignment.pharaoh() == "1-0 0-1"
