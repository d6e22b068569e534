"""Every kind of length normalisation against brute force, and the bound at which a search stops."""

import itertools
import math

import numpy as np
import pytest
from chains import by_the_book
from decoding.test_search import CHAIN, VOCAB, chain_log_probs, decode, table, words

from jaxnmt.config import Decoding
from jaxnmt.data.special_tokens import EOS
from jaxnmt.decoding import lengths, penalties
from jaxnmt.decoding.search import NEVER, SearchOptions, advance, begin

KINDS = {
    "gnmt": lambda log_p, length, alpha: log_p / ((5 + length) / 6) ** alpha,
    "average": lambda log_p, length, alpha: log_p / length**alpha,
    "reward": lambda log_p, length, alpha: log_p + alpha * (length - 1),
}


def by_hand(kind, alpha):
    """Return the scores of log-probability -6 at lengths 1, 2 and 4, EOS included."""
    return [float(lengths.score(kind, -6.0, length, alpha)) for length in (1, 2, 4)]


def test_scores_by_hand():
    assert by_hand("gnmt", 1.0) == pytest.approx([-6, -6 * 6 / 7, -4])
    assert by_hand("average", 1.0) == pytest.approx([-6, -3, -1.5])
    assert by_hand("average", 0.5) == pytest.approx([-6, -6 / math.sqrt(2), -3])
    assert by_hand("reward", 0.5) == pytest.approx([-6, -5.5, -4.5])
    assert all(by_hand(kind, 0.0) == [-6, -6, -6] for kind in KINDS)


def every_hypothesis(params, limit, kind, alpha):
    """Return (score, tokens) of every translation of up to `limit` tokens, best first."""
    log_probs_of, score = chain_log_probs(params), KINDS[kind]
    bodies = itertools.chain.from_iterable(itertools.product(range(3, VOCAB), repeat=length) for length in range(limit))
    return sorted(((score(log_probs_of([*body, EOS]), len(body) + 1, alpha), [*body, EOS]) for body in bodies), key=lambda x: -x[0])


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.5, -1.0])
@pytest.mark.parametrize("kind", KINDS)
def test_a_beam_wide_enough_is_exact(kind, alpha):
    params = table(1, 1.5)
    expected = every_hypothesis(params, 4, kind, alpha)
    found = decode(params, SearchOptions(40, 4, alpha, length_normalization=kind), [4])
    np.testing.assert_allclose(found.scores_BW[0], [score for score, _ in expected], rtol=1e-5, atol=1e-6)
    assert sorted(map(words, found.tokens_BWT[0])) == sorted(tokens for _, tokens in expected)
    assert words(found.tokens_BWT[0, 0]) == expected[0][1]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0, 3.0, -1.0])
@pytest.mark.parametrize("kind", KINDS)
def test_no_search_stops_before_its_best_is_found(kind, alpha, seed):
    """The bound is proven for every kind and both signs of alpha; this search for two of three stops where no other can be among them."""
    params, limits = table(seed).at[:, EOS].add(1.0), [8, 5]
    found = decode(params, SearchOptions(3, 8, alpha, n_best=2, length_normalization=kind), limits)
    for row, limit in enumerate(limits):
        expected = by_the_book(params, 3, limit, lambda p, t: KINDS[kind](p, t, alpha))[:2]
        assert [words(tokens) for tokens in found.tokens_BWT[row, :2]] == [tokens for _, tokens in expected]
        np.testing.assert_allclose(found.scores_BW[row, :2], [score for score, _ in expected], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("alpha", [1.0, 0.5])
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("beam", [2, 4])
def test_ctranslate2s_rule(beam, seed, alpha):
    """The average, K hypotheses among the K best, and one token at least: the defaults of its translator."""
    params, limits = table(seed).at[:, EOS].add(0.5), [9, 5]
    decoding = Decoding(min_length=1)
    options = SearchOptions(beam, 9, alpha, 1.0, beam, penalties.of(decoding), "average")
    found = decode(params, options, limits)
    for row, limit in enumerate(limits):
        expected = by_the_book(params, beam, limit, lambda p, t: p / t**alpha, rank=1, enough=beam, shortest=1)[:beam]
        count = int((found.scores_BW[row] > NEVER).sum())
        assert [words(tokens) for tokens in found.tokens_BWT[row, :count]] == [tokens for _, tokens in expected]
        np.testing.assert_allclose(found.scores_BW[row, :count], [score for score, _ in expected], rtol=1e-5)


@pytest.mark.parametrize("alpha", [0.2, -0.2])
@pytest.mark.parametrize("kind", KINDS)
def test_the_bound_lets_a_search_stop_early(kind, alpha):
    params, limits = table(0).at[:, EOS].add(9.0), np.array([50], np.int32)
    options = SearchOptions(2, 50, alpha, n_best=1, length_normalization=kind)
    memory, beams = begin(CHAIN, options, params, {"encoder_input_tokens": np.ones((1, 2), np.int32)}, limits)
    assert advance(CHAIN, options, params, memory, limits, beams).t_B[0] < 12
