"""What may not be said: each rule by hand, and the search under it against brute force."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from decoding.test_search import CHAIN, VOCAB, decode, table, words
from jax.tree_util import Partial

from jaxnmt.config import Decoding
from jaxnmt.data.special_tokens import BOS, EOS, PAD, UNK
from jaxnmt.decoding import penalties
from jaxnmt.decoding.programs import StagedSearch
from jaxnmt.decoding.search import NEVER, SearchOptions, search
from jaxnmt.lab.laws.subject import TARGET_VOCAB


def after(process, *said, room=8):
    """Return the log-probabilities of six words, each -1 before, after these tokens; what is behind them is no part of the hypothesis."""
    tokens = np.full((1, 1, room), 5, np.int32)
    tokens[0, 0, : len(said)] = said
    return process(jnp.asarray(tokens), jnp.int32(len(said)), jnp.full((1, 1, VOCAB), -1.0))[0, 0].tolist()


def forbidden(process, *said):
    return {word for word, log_p in enumerate(after(process, *said)) if log_p == -np.inf}


def test_minimum_length_by_hand():
    least_two = Partial(penalties.no_end_before, 2)
    assert [forbidden(least_two, *said) for said in ([], [4], [4, 4], [4, 4, 4])] == [{EOS}, {EOS}, set(), set()]


def test_no_unknown_word_by_hand():
    assert forbidden(Partial(penalties.no_unknown_word), 4) == {UNK}


def test_repeated_ngrams_by_hand():
    never = {n: functools.partial(forbidden, Partial(penalties.no_repeated_ngram, n)) for n in (1, 2, 3)}
    assert never[1]() == never[2]() == never[2](4) == never[3](4, 4) == set()
    assert never[1](4) == {4} and never[1](4, 3, 4) == {3, 4}
    assert never[2](4, 3) == set() and never[2](4, 3, 4) == {3} and never[2](4, 3, 4, 5, 4) == {3, 5} and never[2](4, 4) == {4}
    assert never[3](4, 4, 4) == {4} and never[3](3, 4, 5, 3) == set() and never[3](3, 4, 5, 3, 4) == {5}
    assert never[3](3, 4, 5, 3, 4, 3, 3, 4) == {3, 5}


def test_repetition_penalty_by_hand():
    assert after(Partial(penalties.penalize_repetition, 1.5), 4, 3, 4) == [-1, -1, -1, -1.5, -1.5, -1]
    assert after(Partial(penalties.penalize_repetition, 1.5)) == [-1] * VOCAB


CASES = [
    {"min_length": 2},
    {"no_repeat_ngram_size": 1},
    {"no_repeat_ngram_size": 2},
    {"no_repeat_ngram_size": 3},
    {"repetition_penalty": 2.5},
    {"unk": "forbid"},
    {"min_length": 2, "no_repeat_ngram_size": 2, "repetition_penalty": 1.3, "unk": "forbid"},
]


def every_hypothesis(params, limit, decoding):
    """Return (score, tokens) of every translation that is allowed, best first."""
    logits = np.asarray(params, np.float64).copy()
    logits[:, [PAD, BOS]] = -np.inf
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    n, found = decoding.no_repeat_ngram_size, []
    for body in itertools.chain.from_iterable(itertools.product(range(3, VOCAB), repeat=length) for length in range(limit)):
        ngrams = [body[i : i + n] for i in range(len(body) - n + 1)] if n else []
        if len(body) < decoding.min_length or len(set(ngrams)) < len(ngrams) or (decoding.unk == "forbid" and UNK in body):
            continue
        said = [BOS, *body, EOS]
        prices = (log_p[said[t - 1], said[t]] * (decoding.repetition_penalty if said[t] in said[1:t] else 1) for t in range(1, len(said)))
        found.append((sum(prices) / ((5 + len(body) + 1) / 6), [*body, EOS]))
    return sorted(found, key=lambda pair: -pair[0])


@pytest.mark.parametrize("changes", CASES, ids=lambda changes: "-".join(changes))
def test_a_search_under_penalties_is_exact(changes):
    params, limits, decoding = table(1, 1.5), [4, 3], Decoding(**changes)
    found = decode(params, SearchOptions(40, 4, processors=penalties.of(decoding)), limits)
    for row, limit in enumerate(limits):
        expected = every_hypothesis(params, limit, decoding)
        count = int((found.scores_BW[row] > NEVER).sum())
        assert [words(tokens) for tokens in found.tokens_BWT[row, :count]] == [tokens for _, tokens in expected]
        np.testing.assert_allclose(found.scores_BW[row, :count], [score for score, _ in expected], rtol=1e-5)


def test_a_default_adds_nothing_and_numbers_compile_nothing():
    assert penalties.of(Decoding()) == ()
    find, limits = jax.jit(functools.partial(search, CHAIN)), np.array([6], np.int32)
    for least, n, penalty in ((1, 2, 1.5), (2, 3, 1.1), (3, 1, 4.0)):
        decoding = Decoding(min_length=least, no_repeat_ngram_size=n, repetition_penalty=penalty)
        find(SearchOptions(3, 6, processors=penalties.of(decoding)), table(), {"encoder_input_tokens": np.ones((1, 2), np.int32)}, limits)
    assert find._cache_size() == 1


@pytest.mark.parametrize("rung", ["pre", "luong"])
def test_of_models_too_and_whatever_the_batch(rung):
    model = tiny.model_of({**tiny.VARIANTS, **tiny.RECURRENT}[rung], TARGET_VOCAB)
    params, random = tiny.params_of(model, 3), np.random.default_rng(0)
    source, limits = random.integers(3, 9, (16, 3), np.int32), random.permutation(np.arange(16) % 9 + 5).astype(np.int32)
    decoding = Decoding(min_length=4, no_repeat_ngram_size=2, repetition_penalty=1.2, unk="forbid")
    options = SearchOptions(3, 13, processors=penalties.of(decoding))
    found = StagedSearch(model)(options, params, {"encoder_input_tokens": source}, limits)
    for best in found.tokens_BWT[:, 0]:
        said = words(best)[:-1]
        assert len(said) >= 4 and UNK not in said and len(set(itertools.pairwise(said))) == len(said) - 1
    one = jax.jit(functools.partial(search, model))(options, params, {"encoder_input_tokens": source[5:6]}, limits[5:6])
    np.testing.assert_array_equal(found.tokens_BWT[5], one.tokens_BWT[0])
    np.testing.assert_allclose(found.scores_BW[5], one.scores_BW[0], atol=1e-5)


def test_a_minimum_beyond_the_limit_is_refused():
    assert not list(Decoding(min_length=20).problems())
    assert "decoding.max_length_extra" in next(iter(Decoding(min_length=21).problems()))
