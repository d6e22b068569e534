"""Shortlists: the lexicon is Model 1's, and narrowing the vocabulary is the same as excluding all other tokens."""

from __future__ import annotations

import collections
import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import jaxnmt
from jaxnmt.config import Decoding, Tokenizer
from jaxnmt.data.corpus import in_memory
from jaxnmt.data.special_tokens import EOS, PAD
from jaxnmt.data.tokenizer_training import train_tokenizer
from jaxnmt.decoding import lexicon, shortlist
from jaxnmt.decoding.ensemble import EnsembleTranslator
from jaxnmt.decoding.lexicon import Lexicon
from jaxnmt.decoding.rules import Rules
from jaxnmt.decoding.translator import Translator
from jaxnmt.errors import UserError
from jaxnmt.models.seq2seq import build_model, padded

WORDS = [f"w{i}" for i in range(300)]
MODELS = {"pre": tiny.BASE, "learned": tiny.VARIANTS["learned"], "bahdanau": tiny.RECURRENT["bahdanau"], "luong": tiny.RECURRENT["luong"]}
LINES = ["w1 w2 w3", "w250", "w9 w8 w7 w6 w5 w4", "w120 w121", "w0 w0 w299", "w77 w78 w79 w80 w81"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(Tokenizer(kind="words", vocab_size=0), [(word, word) for word in WORDS])


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """A vocabulary of 384 numbers narrows to 128, or stays whole."""
    monkeypatch.setattr(shortlist, "WIDTH", 128)


def translator(config, tokenizer, candidates: int = 12, seed: int = 0) -> Translator:
    model = build_model(config, tokenizer.source_vocab_size, tokenizer.target_vocab_size)
    random, size = np.random.default_rng(seed), tokenizer.target_vocab_size
    likely = random.integers(4, size, (tokenizer.source_vocab_size, candidates), np.int32)
    made = Lexicon(np.arange(tokenizer.source_vocab_size, dtype=np.int32), likely, np.array([7, 5, 6], np.int32))
    return Translator(model, tiny.params_of(model, seed), tokenizer, 12, make_lexicon=lambda: made)


class Only:
    """A model that says some tokens alone: its parameters are a model's, and booleans (V,)."""

    def __init__(self, model):
        self._model, self.target_vocab, self.can_refill = model, model.target_vocab, model.can_refill
        self.step_weights = model.step_weights, ""

    def encode(self, params, batch, noise=None):
        return self._model.encode(params[0], batch)

    def start(self, params, memory, max_length):
        return self._model.start(params[0], memory, max_length)

    def step(self, params, memory, carry, token_B):
        logits_BV, carry = self._model.step(params[0], memory, carry, token_B)
        return jnp.where(params[1], logits_BV, -jnp.inf), carry


def flat(results):
    return [[(each.text, each.tokens) for each in found] for found in results], [each.score for found in results for each in found]


QUICK = [("pre", 3), ("luong", 1)]
OTHERS = [(name, beam) for name in MODELS for beam in (1, 3) if (name, beam) not in QUICK]


@pytest.mark.parametrize(("name", "beam"), [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in OTHERS)])
def test_a_shortlist_is_the_search_in_which_all_other_tokens_are_impossible(name, beam, tokenizer):
    narrowed, decoding = translator(MODELS[name], tokenizer), Decoding(beam_size=beam, n_best=beam, shortlist=9, max_length_extra=4)
    texts, scores = flat(narrowed.translate(LINES, decoding))
    expected_texts, expected_scores = [], []
    only = Translator(Only(narrowed.model), narrowed.params, tokenizer, 12)
    for line, ids in zip(LINES, tokenizer.encode_source(LINES), strict=True):
        allowed = np.isin(np.arange(padded(tokenizer.target_vocab_size)), narrowed.lexicon.candidates(ids, 9))
        only.params = narrowed.params, jnp.asarray(allowed)
        (text,), score = flat(only.translate([line], dataclasses.replace(decoding, shortlist=0)))
        expected_texts.append(text)
        expected_scores += score
    assert texts == expected_texts
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-4)


def test_a_translation_does_not_depend_on_its_batch_nor_on_the_width(tokenizer):
    """Many sentences together have more candidates than a width of 128 holds; a sentence alone has fewer."""
    narrowed, decoding = translator(tiny.BASE, tokenizer), Decoding(beam_size=2, n_best=2, shortlist=12, batch_size=64)
    lines = [" ".join(np.random.default_rng(i).choice(WORDS, 6)) for i in range(24)]
    together = narrowed.translate(lines, decoding)
    alone = [narrowed.translate([line], decoding)[0] for line in lines]
    assert flat(together)[0] == flat(alone)[0]
    np.testing.assert_allclose(flat(together)[1], flat(alone)[1], rtol=1e-4)


def test_a_shortlist_of_all_tokens_changes_nothing():
    small = train_tokenizer(Tokenizer(kind="words", vocab_size=0), [(word, word) for word in WORDS[:60]])
    everything = np.arange(small.target_vocab_size, dtype=np.int32)
    listed, lines = translator(tiny.BASE, small), ["w1 w2 w3", "w50", "w9 w8"]
    listed.make_lexicon = lambda: Lexicon(everything, np.zeros((small.source_vocab_size, 1), np.int32), everything)
    decoding = Decoding(beam_size=2, n_best=2)
    assert listed.translate(lines, dataclasses.replace(decoding, shortlist=100)) == listed.translate(lines, decoding)


def test_rules_belong_to_the_shortlist(tokenizer):
    """Words that no source word has for candidates: a prefix, a required phrase, and one of a forbidden phrase of which one is likely."""
    narrowed, decoding = translator(tiny.BASE, tokenizer), Decoding(beam_size=4, shortlist=2, max_length_extra=6)
    free = narrowed.translate(LINES, decoding)
    rules = [Rules(prefix="w201 w202", constraints=("w203 w204",), forbidden=(free[i][0].tokens[0], "w205")) for i in range(len(LINES))]
    for (found, *_), rule in zip(narrowed.translate(LINES, decoding, rules=rules), rules, strict=True):
        assert found.text.startswith("w201 w202") and "w203 w204" in found.text
        assert not set(rule.forbidden) & set(found.tokens)


def test_a_stream_is_the_translation(tokenizer):
    narrowed, greedy = translator(tiny.BASE, tokenizer), Decoding(beam_size=1, shortlist=3)
    for line in LINES[:3]:
        assert "".join(narrowed.stream(line, greedy)) == narrowed.translate([line], greedy)[0][0].text


@pytest.mark.parametrize("space", [pytest.param("probability", marks=pytest.mark.slow), "log"])
def test_an_ensemble_listens_to_each_member_about_the_sentence_own_candidates(space, tokenizer):
    """Members that give much probability to a neighbour's candidates must not count less for it."""
    members = [translator(tiny.BASE, tokenizer), translator(tiny.RECURRENT["luong"], tokenizer, seed=1)]
    for member in members:
        member.params = jax.tree.map(lambda x: 2 * x, member.params)
    both, decoding = EnsembleTranslator(members, space=space), Decoding(beam_size=2, n_best=2, shortlist=5, max_length_extra=2)
    together, alone = both.translate(LINES, decoding), [both.translate([line], decoding)[0] for line in LINES]
    assert flat(together)[0] == flat(alone)[0]
    np.testing.assert_allclose(flat(together)[1], flat(alone)[1], rtol=1e-4)


def test_a_member_of_an_ensemble_that_copies_is_refused(tokenizer):
    both = EnsembleTranslator([translator(tiny.BASE, tokenizer), translator(tiny.RECURRENT["luong_concat"], tokenizer)])
    with pytest.raises(UserError, match=r"decoding\.shortlist renumbers tokens, and a run with model\.copy"):
        both.translate(LINES, Decoding(shortlist=5))


def test_own_processors_are_refused(tokenizer):
    @dataclasses.dataclass(frozen=True)
    class Own(Decoding):
        def processors(self, tokenizer):
            return (lambda tokens, written, log_probs: log_probs,)

    with pytest.raises(UserError, match="shortlist"):
        translator(tiny.BASE, tokenizer).translate(LINES, Own(shortlist=5))


# ---- the lexicon

PAIRS = [("das haus", "the house"), ("das buch", "the book"), ("ein buch", "a book"), ("das", "the the")]


def test_the_lexicon_is_ibm_model_1():
    tokenizer = train_tokenizer(Tokenizer(kind="words", vocab_size=0), PAIRS)
    pairs = list(zip(tokenizer.encode_source([a for a, _ in PAIRS]), tokenizer.encode_target([b for _, b in PAIRS]), strict=True))
    p: dict = collections.defaultdict(lambda: 1.0)
    for _ in range(lexicon.ITERATIONS):  # Brown et al. 1993, equations 14 and 15, word by word
        counts: dict = collections.defaultdict(float)
        for source, target in pairs:
            for t in [*target, EOS]:
                total = sum(p[s, t] for s in [*source, EOS])
                for s in [*source, EOS]:
                    counts[s, t] += p[s, t] / total
        sums: dict = collections.defaultdict(float)
        for (s, _), count in counts.items():
            sums[s] += count
        p = collections.defaultdict(float, {(s, t): count / sums[s] for (s, t), count in counts.items()})
    found = lexicon.train([in_memory(pairs[:2]), in_memory(pairs[2:])], tokenizer)
    for s in range(tokenizer.source_vocab_size):
        expected = [t for _, t in sorted((-round(value, 12), t) for (of, t), value in p.items() if of == s)]
        assert found.likely_SN[s][found.likely_SN[s] != PAD].tolist() == expected
    buch = found.likely_SN[tokenizer.encode_source(["buch"])[0][0], 0]
    assert tokenizer.target_pieces([buch]) == ["book"]
    assert tokenizer.target_pieces(found.frequent_N[1:2]) == ["the"] and found.frequent_N[0] == EOS


def test_a_sample_of_large_data_is_spread_evenly():
    tokenizer = train_tokenizer(Tokenizer(kind="words", vocab_size=0), [(word, word) for word in WORDS[:40]])
    ids = tokenizer.encode_source(WORDS[:40])
    corpus = in_memory(zip(ids, ids, strict=True))
    half = lexicon.train([corpus], tokenizer, links=40 * 4 // 2)
    assert (half.likely_SN[[each[0] for each in ids], 0] != PAD).tolist() == [True, False] * 20


# ---- a run's lexicon


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    return tiny.experiment(tmp_path_factory.mktemp("shortlist"), **{"training.steps": 1, "validation.every": 0})


@pytest.fixture
def run(experiment, tmp_path_factory, tmp_path):
    """A run of one step, of which each test has its own copy."""
    folder = tmp_path_factory.getbasetemp() / "shortlisted"
    if not folder.exists():
        jaxnmt.train(experiment, folder=folder)
    return shutil.copytree(folder, tmp_path / "run")


def test_a_run_makes_its_lexicon_once_and_then_needs_no_training_data(run, experiment, monkeypatch):
    made = jaxnmt.load(run).translate(["a b c"], shortlist=4)
    before = (run / lexicon.FILE).read_bytes()
    monkeypatch.setattr(lexicon, "prepare", None)
    assert jaxnmt.load(run).translate(["a b c"], shortlist=4) == made
    assert (run / lexicon.FILE).read_bytes() == before
    assert jaxnmt.ensemble(jaxnmt.load(run), jaxnmt.load(run)).translate(["a b c"], shortlist=4)[0].text == made[0].text


def test_a_damaged_lexicon_is_made_again(run):
    lines = ["a b c", "d e"]
    made = jaxnmt.load(run).translate(lines, shortlist=4)
    whole = (run / lexicon.FILE).read_bytes()
    flipped = bytes([*whole[:60], whole[60] ^ 255, *whole[61:]])
    for damaged in (b"", whole[: len(whole) // 2], b"\0" * len(whole), flipped):
        (run / lexicon.FILE).write_bytes(damaged)
        assert jaxnmt.load(run).translate(lines, shortlist=4) == made
        assert (run / lexicon.FILE).read_bytes() == whole


def test_missing_training_data_are_named(run):
    config = json.loads((run / "config.json").read_text())
    config["data"]["train"] = ["/nowhere/a.xx,/nowhere/a.yy"]
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"decoding\.shortlist needs .*nowhere"):
        jaxnmt.load(run).translate(["a b"], shortlist=4)


def test_samples_are_refused(run):
    with pytest.raises(UserError, match="temperature"):
        jaxnmt.load(run).translate(["a b"], shortlist=4, temperature=1.0)


def test_a_number_of_candidates_that_no_lexicon_has_is_refused(run):
    with pytest.raises(UserError, match=r"decoding\.shortlist.*100"):
        jaxnmt.load(run).translate(["a b"], shortlist=101)
