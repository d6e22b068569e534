"""The log-probability of a given translation: by hand, as the search has it, and as validation has it."""

import copy
import io
import json
import math
import re

import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import jaxnmt
from jaxnmt import ScoredPair, cli
from jaxnmt import config as cfg
from jaxnmt.cli.verbs import scoring as verb
from jaxnmt.data.loader import evaluation_batches
from jaxnmt.data.special_tokens import BOS, EOS, PAD
from jaxnmt.data.tokenizer_training import train_tokenizer
from jaxnmt.decoding import batches
from jaxnmt.decoding.scoring import Scorer, TokenScorer, Totals, token_log_probs
from jaxnmt.decoding.translator import Translator
from jaxnmt.models.seq2seq import build_model
from jaxnmt.training.loss import batch_loss
from jaxnmt.training.metrics import perplexity

TOKENIZER = train_tokenizer(cfg.Tokenizer(kind="words", vocab_size=0), [("a b c d e f g h", "u v w x y z")])
MODELS = {
    "transformer": tiny.BASE,
    "lstm_luong": cfg.replace(tiny.RNN, cell="lstm", context="luong"),
    "gru_bahdanau": cfg.replace(tiny.RECURRENT["bahdanau"], tie_embeddings="none"),
}


def made(name, seed=2):
    model = build_model(MODELS[name], TOKENIZER.source_vocab_size, TOKENIZER.target_vocab_size)
    return model, tiny.params_of(model, seed)


def ids_of(*pairs):
    sources, targets = zip(*pairs, strict=True)
    return list(zip(TOKENIZER.encode_source(sources), TOKENIZER.encode_target(targets), strict=True))


def some_ids(count, seed=0):
    random = np.random.default_rng(seed)
    sizes = TOKENIZER.source_vocab_size, TOKENIZER.target_vocab_size
    return [tuple(random.integers(EOS + 1, size, random.integers(1, 14)).tolist() for size in sizes) for _ in range(count)]


# ---- the numbers


@pytest.mark.parametrize("name", MODELS)
def test_what_translate_wrote_scores_as_much_as_in_its_search(name):
    """Greedy, and each of the n best of a beam; some end because they reached their limit."""
    model, params = made(name)
    translator = Translator(model, params, TOKENIZER, 32)
    lines = ["a b c", "h", "d e f g a b c d e"]
    settings = ({"beam_size": 1}, {"beam_size": 3, "n_best": 3})
    options = [cfg.Decoding(length_penalty=0.0, max_length_ratio=1.0, max_length_extra=9, **each) for each in settings]
    found = [each for decoding in options for candidates in translator.translate(lines, decoding) for each in candidates]
    assert len(found) == 12
    scores = TokenScorer(model, params)([part for each in found for part in each.parts], 64)
    np.testing.assert_allclose([log_probs.sum() for log_probs in scores], [each.score for each in found], rtol=2e-6, atol=1e-5)
    sources = [*lines, *(line for line in lines for _ in range(3))]
    again = Scorer(translator, options[0]).score(sources, [each.text for each in found], 64)
    np.testing.assert_allclose([pair.log_prob for pair in again], [each.score for each in found], rtol=2e-6, atol=1e-5)


@pytest.mark.parametrize("name", ["transformer", "lstm_luong", pytest.param("gru_bahdanau", marks=pytest.mark.slow)])
def test_a_score_does_not_depend_on_batch_order_or_padding(name, monkeypatch):
    model, params = made(name)
    pairs = some_ids(21)
    score = TokenScorer(model, params)
    expected = score(pairs, 64)

    def same(found, wanted):
        for left, right in zip(found, wanted, strict=True):
            np.testing.assert_allclose(left, right, atol=1e-5)

    same(score(pairs, 4), expected)
    same(score(pairs[::-1], 8), expected[::-1])
    same([score([pair], 64)[0] for pair in pairs[:3]], expected[:3])
    monkeypatch.setattr(batches, "LENGTHS", (40,))
    same(score(pairs, 64), expected)


def test_few_programs_are_compiled():
    score = TokenScorer(*made("transformer"))
    score(some_ids(64, 1), 8)
    before = score._compute._cache_size()
    for seed in range(2, 5):
        score(some_ids(64, seed), 8)
    assert 0 < before <= score._compute._cache_size() <= 9  # 8, 12 or 16 positions on each side


class Unmoved:
    """A model that gives each token a fixed share, whatever it reads."""

    has_features = False

    def encode(self, params, batch):
        return None

    def decode(self, params, memory, batch):
        return jnp.broadcast_to(params, (*batch["decoder_input_tokens"].shape, len(params)))


def test_a_value_by_hand():
    """`u` has 4 parts of 8, `v` has 2, EOS 1, another word 1; PAD and BOS have as many, which do not count."""
    parts = np.full(TOKENIZER.target_vocab_size, 1e-30, np.float32)
    u, v, w = (TOKENIZER.encode_target([word])[0][0] for word in "uvw")
    parts[[u, v, EOS, w, PAD, BOS]] = 4, 2, 1, 1, 8, 8
    translator = Translator(Unmoved(), jnp.log(parts), TOKENIZER, 16)
    [pair, nothing] = Scorer(translator, cfg.Decoding()).score(["a b", "c"], ["u v u", ""], 64)
    assert pair.token_log_probs == pytest.approx(np.log([1 / 2, 1 / 4, 1 / 2, 1 / 8]))
    assert pair.log_prob == pytest.approx(-7 * math.log(2)) and pair.mean == pair.score == pytest.approx(-7 / 4 * math.log(2))
    assert pair.tokens == ("u", "v", "u", *TOKENIZER.target_pieces([EOS]))
    assert nothing.token_log_probs == pytest.approx([math.log(1 / 8)]) and len(nothing.tokens) == 1
    totals = Totals()
    for each in (pair, nothing, ScoredPair(math.nan)):
        totals.add(each)
    assert (totals.pairs, totals.tokens, totals.perplexity) == (2, 5, pytest.approx(4.0))  # 10 bits of 5 tokens


def test_the_output_layer_a_few_positions_at_a_time_is_the_models_own():
    model, params = made("transformer")
    plain = copy.copy(model)
    plain.has_features = False
    pairs = some_ids(5)
    arrays = [[[*s, EOS] for s, _ in pairs], [[BOS, *t] for _, t in pairs], [[*t, EOS] for _, t in pairs]]
    names = ("encoder_input_tokens", "decoder_input_tokens", "decoder_target_tokens")
    batch = {name: batches.pad(rows, 8, EOS) for name, rows in zip(names, arrays, strict=True)}
    np.testing.assert_allclose(*(token_log_probs(each, params, batch)[:5, :1] for each in (model, plain)), atol=1e-5)
    counts = batch["decoder_target_tokens"] != PAD
    np.testing.assert_allclose(*(np.asarray(token_log_probs(each, params, batch))[counts] for each in (model, plain)), atol=1e-5)


@pytest.mark.parametrize("name", ["transformer", pytest.param("lstm_luong", marks=pytest.mark.slow)])
def test_perplexity_is_validations_but_for_pad_and_bos(name):
    """Validation counts the probability of PAD and BOS, which no translation contains; without them both are the same."""
    model, params = made(name)

    class Without:
        has_loss, has_features, target_vocab, mesh = False, False, model.target_vocab, None
        encode = staticmethod(model.encode)

        def with_losses(self, method, params, memory, batch, noise):
            return model.decode(params, memory, batch).at[..., jnp.array([PAD, BOS])].set(-1e9), []  # finite, for the rows' padding

    pairs, totals = some_ids(30), Totals()
    for (_, target), log_probs in zip(pairs, TokenScorer(model, params)(pairs, 16), strict=True):
        totals.add(ScoredPair(float(log_probs.sum()), ("",) * (len(target) + 1)))

    def validated(model):
        sums = [batch_loss(model, params, arrays, None, 0.1) for _, arrays in evaluation_batches(pairs, 64, 16, 1)]
        return perplexity(sum(float(each.nll) for each in sums) / sum(float(each.tokens) for each in sums))

    assert totals.perplexity == pytest.approx(validated(Without()), rel=1e-5) and totals.perplexity < validated(model)


@pytest.mark.parametrize(
    ("forward", "reverse", "exponent"),
    [((-6.0, 3), (-4.0, 4), 1 + 1.5), ((-4.0, 4), (-6.0, 3), 1 + 1.5), ((-3.0, 3), (-5.0, 5), 1.0), ((0.0, 2), (0.0, 1), 0.0)],
)
def test_the_dual_score_by_hand(forward, reverse, exponent):
    pair, other = (ScoredPair(log_prob, ("",) * tokens) for log_prob, tokens in (forward, reverse))
    assert pair._replace(reverse=other).score == pytest.approx(math.exp(-exponent))
    assert math.isnan(pair._replace(reverse=ScoredPair(math.nan)).score)


def test_a_pair_that_is_too_long_or_has_no_source_has_no_score():
    model, params = made("transformer")
    warnings = []
    translator = Translator(model, params, TOKENIZER, 6, warn=warnings.append)
    scorer = Scorer(translator, cfg.Decoding(max_length_ratio=1.0, max_length_extra=2))
    texts = [("a b c d e", "u"), ("a b c d e f", "u"), ("a", "u " * 6), ("a", "u " * 7), ("", "u"), ("  ", ""), ("a", "")]
    found = scorer.score(*zip(*texts, strict=True), 4, 11)
    assert [bool(pair.tokens) for pair in found] == [True, False, True, False, False, False, True]
    assert all(math.isnan(pair.score) != bool(pair.tokens) for pair in found)
    assert [re.findall(r"[0-9]+", line) for line in warnings] == [["12", "6", "5"], ["14", "7", "6"]]
    assert scorer.score([], [], 4) == []


def test_devices_share_the_pairs():
    """Eight devices give the scores of one."""
    code = (
        "import jax, numpy as np; from decoding.test_scoring import *; from jaxnmt.parallel.sharding import make_mesh, replicated\n"
        "model, params = made('lstm_luong'); pairs = some_ids(21); alone = TokenScorer(model, params)(pairs, 8)\n"
        "spread = TokenScorer(model, jax.device_put(params, replicated(make_mesh(cfg.Mesh()))))\n"
        "for a, b in zip(alone, spread(pairs, 8), strict=True): np.testing.assert_allclose(a, b, atol=1e-5)\n"
        "print(spread.mesh.size)"
    )
    setup = f"import sys; sys.path.insert(0, {str(__file__).rsplit('/', 2)[0]!r})\n"
    assert tiny.on_eight_devices("-c", setup + code).stdout.split() == ["8"]


# ---- the command, and Python


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("scoring")


@pytest.fixture(scope="module")
def runs(folder):
    """A run that reverses sentences, and one of the other direction."""
    experiment = tiny.experiment(folder, **{"validation.every": 0, "batching.layout": "buckets"})
    swapped = tuple(re.sub(r"(\S+xx),(\S+yy)", r"\2,\1", source) for source in experiment.data.train)
    other = cfg.replace(experiment, **{"data.train": swapped, "data.validation": (), "data.held_out": 5})
    return jaxnmt.train(experiment, folder=folder / "run"), jaxnmt.train(other, folder=folder / "reverse")


SOURCES = ["a b c", "d e", "", "f", "a b c d e f g h i", "j i h"]
TARGETS = ["c b a", "e d", "f", "", "a", "h i j"]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Work where a.xx, a.yy and pairs.tsv, which has both, are. Windows are of one batch."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.xx").write_text("\n".join(SOURCES) + "\n")
    (tmp_path / "a.yy").write_text("\n".join(TARGETS))
    (tmp_path / "pairs.tsv").write_text("".join(f"{s}\t{t}\tfurther\n" for s, t in zip(SOURCES, TARGETS, strict=True)))
    monkeypatch.setattr(verb, "WINDOW", 1)


def score(capfd, *words):
    capfd.readouterr()
    assert cli.main(["score", *map(str, words), "--batch-size", "4"]) == 0
    out, err = capfd.readouterr()
    return out.splitlines(), err


def test_one_line_for_each_pair_in_order_and_the_perplexity(runs, files, capfd):
    lines, err = score(capfd, runs[0].folder, "a.xx", "a.yy")
    found = runs[0].score(SOURCES, TARGETS)
    assert lines == [f"{pair.log_prob:.4f}\t{pair.mean:.4f}\t{len(pair.tokens)}" for pair in found]
    assert [line.split("\t")[2] for line in lines] == ["4", "3", "0", "1", "0", "4"] and lines[2] == "nan\tnan\t0"
    total = sum(pair.log_prob for pair in found if pair.tokens)
    said = f"12 tokens of 4 pairs: log-probability {total:.4f}, perplexity per token {math.exp(-total / 12):.4f}; 2 pairs have no score"
    assert said in err and "pair 5 is not scored" in err
    assert runs[0].score("d e", "e d") == runs[0].score(["d e"], ["e d"])[0]
    assert runs[0].score("d e", "e d").token_log_probs == pytest.approx(found[1].token_log_probs, abs=1e-5)


def test_two_files_one_file_and_stdin_are_the_same(runs, files, capfd, monkeypatch, tmp_path):
    expected, _ = score(capfd, runs[0].folder, "a.xx", "a.yy")
    assert score(capfd, runs[0].folder, "pairs.tsv")[0] == expected
    for name, words in (("pairs.tsv", ["-"]), ("a.xx", ["-", "a.yy"]), ("a.yy", ["a.xx", "-"])):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO((tmp_path / name).read_bytes())))
        assert score(capfd, runs[0].folder, *words)[0] == expected
    assert score(capfd, runs[0].folder, "a.xx", "a.yy", "--output", "out.txt")[0] == []
    assert (tmp_path / "out.txt").read_text().splitlines() == expected


def test_json_has_the_tokens_on_request(runs, files, capfd):
    plain, _ = score(capfd, runs[0].folder, "a.xx", "a.yy")
    rows = [json.loads(line) for line in score(capfd, runs[0].folder, "a.xx", "a.yy", "--json")[0]]
    assert rows[2] == {"pair": 3, "log_prob": None, "mean": None, "num_tokens": 0}
    detailed = [json.loads(line) for line in score(capfd, runs[0].folder, "a.xx", "a.yy", "--tokens")[0]]
    for row, more, line in zip(rows, detailed, plain, strict=True):
        assert row.items() <= more.items() and len(more["tokens"]) == len(more["token_log_probs"]) == row["num_tokens"]
        if more["tokens"]:
            assert line == f"{row['log_prob']:.4f}\t{row['mean']:.4f}\t{row['num_tokens']}"
            assert sum(more["token_log_probs"]) == pytest.approx(row["log_prob"], abs=1e-5)
    assert detailed[0]["tokens"][:3] == ["c", "b", "a"]


def test_a_filter_keeps_the_pairs_that_reach_the_minimum(runs, files, capfd):
    means = [pair.mean for pair in runs[0].score(SOURCES, TARGETS)]
    least = sorted(mean for mean in means if not math.isnan(mean))[2]
    kept, err = score(capfd, runs[0].folder, "a.xx", "a.yy", "--minimum", repr(least - 1e-6))
    assert kept == [f"{s}\t{t}" for s, t, mean in zip(SOURCES, TARGETS, means, strict=True) if mean >= least] and len(kept) == 2
    assert "kept 2 of 6 pairs" in err
    assert len(score(capfd, runs[0].folder, "a.xx", "a.yy", "--minimum", "-1e9")[0]) == 4  # pairs without a score never


def test_a_reverse_run_adds_its_columns_and_the_dual_score(runs, files, capfd):
    run, other = runs
    forward, back = run.score(SOURCES, TARGETS), other.score(TARGETS, SOURCES)
    lines, err = score(capfd, run.folder, "a.xx", "a.yy", "--reverse", other.folder)
    for line, one, two in zip(lines, forward, back, strict=True):
        dual = math.exp(-(abs(one.mean - two.mean) - (one.mean + two.mean) / 2))
        columns = [one.log_prob, one.mean, len(one.tokens), two.log_prob, two.mean, len(two.tokens), dual]
        assert [float(column) for column in line.split("\t")] == pytest.approx(columns, abs=1e-4, nan_ok=True)
    assert math.isnan(float(lines[3].split("\t")[6])) and err.count("perplexity per token") == 2  # the reverse has no source there
    pairs = run.score(SOURCES, TARGETS, reverse=other)
    assert [pair.reverse.log_prob for pair in pairs] == pytest.approx([pair.log_prob for pair in back], abs=1e-5, nan_ok=True)
    best = max(pair.score for pair in pairs if not math.isnan(pair.score))
    kept, _ = score(capfd, run.folder, "a.xx", "a.yy", "--reverse", other.folder, "--minimum", best - 1e-6)
    assert len(kept) == 1
    row = json.loads(score(capfd, run.folder, "a.xx", "a.yy", "--reverse", other.folder, "--json")[0][0])
    assert row["reverse"]["num_tokens"] == 4 and row["score"] == pytest.approx(pairs[0].score, abs=1e-5)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["a.xx", "short.yy"], "SOURCE a.xx has 6 lines and TARGET short.yy has 4: find where they diverge"),
        (["short.yy", "a.yy"], "SOURCE short.yy has 4 lines and TARGET a.yy has 6"),
        (["short.yy", "-"], "SOURCE short.yy has 4 lines and TARGET - has 5"),
        (["a.xx"], "SOURCE a.xx, line 1 has no tab: give TARGET too"),
        (["-", "-"], "SOURCE and TARGET are both -"),
        (["a.xx", "a.yz"], "TARGET: there is no file a.yz: did you mean a.yy?"),
        (["a.xx", "a.yy", "more"], "unexpected argument more"),
        (["a.xx", "a.yy", "--minimum", "-1", "--json"], "--minimum writes the pairs that are kept"),
        (["a.xx", "a.yy", "--minimum", "-1", "--alignments", "hard"], "leave out --json, --tokens and --alignments"),
        (["a.xx", "a.yy", "--minimum", "nan"], "--minimum is nan"),
        (["a.xx", "a.yy", "--minimum", "low"], "--minimum expects a number"),
        (["a.xx", "a.yy", "--reverse", "nowhere"], "nowhere does not exist"),
        (["a.xx", "a.yy", "--reverse", "RUN"], "translates xx to yy, as"),
    ],
)
def test_a_mistake_is_one_sentence(words, says, runs, files, capfd, monkeypatch, tmp_path):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a\nb\nc\nd\ne\n")))
    (tmp_path / "short.yy").write_text("a\nb\nc\nd\n")
    run = str(runs[0].folder)
    capfd.readouterr()
    assert cli.main(["score", run, *(run if word == "RUN" else word for word in words), "--output", "out.txt"]) == 2
    error = capfd.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and says in error and not (tmp_path / "out.txt").exists()
