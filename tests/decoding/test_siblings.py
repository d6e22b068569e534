"""The sibling penalty: by hand, beam search by the book, and log-probabilities that it does not enter."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from chains import by_the_book
from decoding.test_search import CHAIN, VOCAB, brute_force, chain_log_probs, decode, gnmt, table, words

from jaxnmt.config import Decoding
from jaxnmt.data.special_tokens import EOS
from jaxnmt.decoding import siblings
from jaxnmt.decoding.options import search_options
from jaxnmt.decoding.programs import StagedSearch
from jaxnmt.decoding.search import NEVER, SearchOptions, search
from jaxnmt.lab.laws.subject import TARGET_VOCAB


def test_a_choice_by_hand():
    """Two hypotheses with three continuations each, beam 2: ranks cost 0, 1 and 2. The third of the live ones has no place."""
    values, tokens = jnp.array([[-1.0, -1.2, -3.0, -1.5, -2.4, -2.6]]), jnp.array([[4, 5, EOS, 4, EOS, 5]])
    # Under the penalty: -1, -2.2, -5, -1.5, -3.4, -4.6.
    found, places = siblings.best(1.0, values, tokens, 3, 2)
    assert places.tolist() == [[0, 3, 1, 4]]
    np.testing.assert_allclose(found, [[-1.0, -1.5, -np.inf, -2.4]])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("beam", "gamma"), [(2, 0.3), (3, 0.3), (3, 1.5), (4, 100.0)])
def test_a_narrow_beam_is_the_books(beam, gamma, seed):
    params, limits = table(seed).at[:, EOS].add(1.0), [6, 4]
    found = decode(params, SearchOptions(beam, 6, sibling_penalty=gamma), limits)
    for row, limit in enumerate(limits):
        expected = by_the_book(params, beam, limit, gnmt, gamma=gamma)[:beam]
        count = int((found.scores_BW[row] > NEVER).sum())
        assert [words(tokens) for tokens in found.tokens_BWT[row, :count]] == [tokens for _, tokens in expected]
        np.testing.assert_allclose(found.scores_BW[row, :count], [score for score, _ in expected], rtol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_patience_counts_what_ends_among_the_best_under_the_penalty(seed):
    params = table(seed).at[:, EOS].add(0.5)
    found = decode(params, SearchOptions(3, 9, 1.0, 1.0, sibling_penalty=0.5), [9])
    expected = by_the_book(params, 3, 9, gnmt, rank=1, enough=3, gamma=0.5)[:3]
    assert [words(tokens) for tokens in found.tokens_BWT[0, : len(expected)]] == [tokens for _, tokens in expected]


def test_log_probabilities_and_scores_are_the_models():
    """And a beam with places for all finds all, whatever the penalty."""
    params = table(1, 1.5)
    expected = brute_force(chain_log_probs(params), 4, 1.0)
    found = decode(params, SearchOptions(40, 4, sibling_penalty=2.0), [4])
    assert [words(row) for row in found.tokens_BWT[0]] == [tokens for _, tokens in expected]
    np.testing.assert_allclose(found.scores_BW[0], [score for score, _ in expected], rtol=1e-5)
    np.testing.assert_allclose(found.log_probs_BW[0], [chain_log_probs(params)(tokens) for _, tokens in expected], rtol=1e-5)


def test_two_families_live_where_one_would():
    """Both continuations of `4` are likelier than that of `5`, and without a penalty they fill a beam of 2."""
    params = np.full((VOCAB, VOCAB), -1e4, np.float32)
    params[1, [4, 5]] = np.log([0.7, 0.3])
    params[4, [3, 4, EOS]] = np.log([0.5, 0.49, 0.01])
    params[5, [3, EOS]] = np.log([0.9, 0.1])
    params[3, EOS] = 0.0
    params = jnp.asarray(params)
    plain, diverse = (decode(params, SearchOptions(2, 3, 0.0, sibling_penalty=gamma), [3]) for gamma in (None, 1.0))
    assert [words(row) for row in plain.tokens_BWT[0]] == [[4, 3, EOS], [5, EOS]]  # `5` ended in time
    assert [words(row) for row in diverse.tokens_BWT[0]] == [[4, 3, EOS], [5, 3, EOS]]
    np.testing.assert_allclose(diverse.log_probs_BW[0], [math.log(0.35), math.log(0.27)], rtol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_a_beam_of_1_is_greedy_still(seed):
    plain, diverse = (decode(table(seed), SearchOptions(1, 6, sibling_penalty=gamma), [6]) for gamma in (None, 3.0))
    np.testing.assert_array_equal(diverse.tokens_BWT, plain.tokens_BWT)


@pytest.mark.parametrize("rung", ["pre", "luong"])
def test_whatever_the_batch_and_the_stage(rung):
    model = tiny.model_of({**tiny.VARIANTS, **tiny.RECURRENT}[rung], TARGET_VOCAB)
    params, (source, limits) = tiny.params_of(model, 3), tiny.some_sentences(70, 4)
    options, find = SearchOptions(3, 13, 1.0, sibling_penalty=0.5, coverage_penalty=0.2), jax.jit(functools.partial(search, model))
    staged = StagedSearch(model)(options, params, {"encoder_input_tokens": source}, limits)
    for rows, padding in ([11], 0), ([9, 4, 11], 3):
        few = find(options, params, {"encoder_input_tokens": np.pad(source[rows], ((0, 0), (0, padding)))}, limits[rows])
        np.testing.assert_array_equal(few.tokens_BWT, staged.tokens_BWT[rows])
        np.testing.assert_allclose(few.scores_BW, staged.scores_BW[rows], atol=1e-5)


def test_gamma_is_an_argument_and_no_gamma_changes_no_program():
    find, limits = jax.jit(functools.partial(search, CHAIN)), np.array([6], np.int32)
    for gamma in (0.2, 3):
        find(search_options(Decoding(sibling_penalty=gamma), 2), table(), {"encoder_input_tokens": np.ones((1, 2), np.int32)}, limits)
    assert find._cache_size() == 1 and search_options(Decoding(), 2).sibling_penalty is None


def test_samples_have_no_siblings():
    assert "decoding.temperature" in next(Decoding(sibling_penalty=0.2, temperature=1.0).problems())
