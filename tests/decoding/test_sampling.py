"""Samples: their frequencies are the model's probabilities, and each depends on its sentence, seed and number alone."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from decoding.test_search import CHAIN, chain_log_probs, decode, table, words

from jaxnmt.config import Decoding
from jaxnmt.data.special_tokens import EOS
from jaxnmt.decoding import penalties, sampling
from jaxnmt.decoding.programs import StagedSearch
from jaxnmt.decoding.sampling import Sampling, kept, of
from jaxnmt.decoding.search import SearchOptions, search
from jaxnmt.lab.laws.subject import TARGET_VOCAB

COUNT, LIMIT = 20_000, 4


def total_variation(found, expected):
    """Return the distance of two distributions over translations, given as dicts."""
    return sum(abs(found.get(key, 0) - expected.get(key, 0)) for key in found.keys() | expected.keys()) / 2


def frequencies(params, sampling, **options):
    drawn = decode(params, SearchOptions(COUNT, LIMIT, sampling=sampling, **options), [LIMIT]).tokens_BWT[0]
    rows, counts = np.unique(drawn, axis=0, return_counts=True)
    return {tuple(words(row)): count / COUNT for row, count in zip(rows, counts, strict=True)}


def probabilities(log_p_of):
    """Return the probability of each translation, given a function (tokens so far) -> probabilities of the next token; EOS at the limit."""
    found = {}

    def extend(said, p):
        if len(said) == LIMIT - 1:
            found[(*said, EOS)] = p
            return
        for word, q in enumerate(log_p_of(said)):
            if word == EOS and q > 0:
                found[(*said, EOS)] = p * q
            elif q > 0:
                extend((*said, word), p * q)

    extend((), 1.0)
    return found


def model_probabilities(params):
    logits = np.asarray(params, np.float64).copy()
    logits[:, [0, 1]] = -np.inf
    p = np.exp(logits)
    return p / p.sum(-1, keepdims=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_pictures_have_keys_of_their_own_in_any_batch(dtype):
    pictures = np.random.default_rng(0).integers(0, 256, (4, 6, 6, 3)).astype(dtype)
    pictures[3] = pictures[0]
    source = np.ones((4, 1), np.int32)

    def made(rows):
        batch = {"encoder_input_tokens": source[rows], "encoder_input_vectors": pictures[rows]}
        return np.asarray(jax.random.key_data(sampling.keys(Sampling(7, 1.0), batch, 2)))

    together = made([0, 1, 2, 3])
    assert len(np.unique(together[:3].reshape(6, -1), axis=0)) == 6
    np.testing.assert_array_equal(together[3], together[0])
    np.testing.assert_array_equal(made([2, 0]), together[[2, 0]])


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_frequencies_are_the_models_probabilities(temperature):
    params = table(1)
    tempered = model_probabilities(params) ** (1 / temperature)
    tempered /= tempered.sum(-1, keepdims=True)
    expected = probabilities(lambda said: tempered[said[-1] if said else 1])
    assert sum(expected.values()) == pytest.approx(1) and len(expected) == 40
    found = frequencies(params, Sampling(0, temperature))
    # The mean total variation of a multinomial is about the sum of the standard deviations over sqrt(2 pi); it is within 0.012 of
    # its mean with probability 0.997 (McDiarmid: 1 - exp(-2 n x^2)).
    mean = sum(math.sqrt(p * (1 - p) / COUNT) for p in expected.values()) / math.sqrt(2 * math.pi)
    assert total_variation(found, expected) < mean + 0.012


def test_other_seeds_and_other_sentences_have_other_samples_of_the_same_distribution():
    params, options = table(1), [Sampling(seed, 1.0) for seed in (0, 1)]
    one, other = (decode(params, SearchOptions(500, LIMIT, sampling=each), [LIMIT]).tokens_BWT[0] for each in options)
    assert 0.02 < (one == other).all(-1).mean() < 0.5


@pytest.mark.parametrize(
    ("rule", "keeps"),
    [
        ({}, {0, 1, 2, 3, 4}),
        ({"top_k": 1}, {1}),
        ({"top_k": 3}, {1, 2, 3}),
        ({"top_k": 9}, {0, 1, 2, 3, 4}),
        ({"top_p": 0.39}, {1}),
        ({"top_p": 0.41}, {1, 3}),
        ({"top_p": 0.69}, {1, 3}),
        ({"top_p": 0.71}, {1, 2, 3}),
        ({"top_p": 0.999}, {0, 1, 2, 3, 4}),
        ({"epsilon": 0.19}, {1, 2, 3}),
        ({"epsilon": 0.9}, {1}),
        ({"top_k": 3, "top_p": 0.5}, {1, 3}),
        ({"top_p": 0.95, "epsilon": 0.25}, {1, 3}),
    ],
    ids=str,
)
def test_what_is_kept_by_hand(rule, keeps):
    """The fewest tokens whose probabilities reach p: 0.4, 0.4 + 0.3, 0.4 + 0.3 + 0.2, ..."""
    log_p = jnp.log(jnp.array([0.03, 0.4, 0.2, 0.3, 0.07, 0.0]))
    kept_V = np.asarray(kept(Sampling(0, 1.0, **rule), log_p)) & np.isfinite(log_p)
    assert set(np.flatnonzero(kept_V)) == keeps


def test_what_is_kept_is_what_sorting_keeps():
    log_p = jax.nn.log_softmax(jnp.asarray(np.random.default_rng(0).standard_normal((3, 50, 700)) * 3, jnp.float32))
    sorted_p = np.sort(np.exp(np.asarray(log_p, np.float64)), -1)[..., ::-1]
    for p in (0.1, 0.5, 0.9):
        count = (np.cumsum(sorted_p, -1) < p).sum(-1) + 1
        np.testing.assert_array_equal(kept(Sampling(0, 1.0, top_p=p), log_p).sum(-1), count)
    for k in (1, 7, 699):
        assert (kept(Sampling(0, 1.0, top_k=k), log_p).sum(-1) == k).all()


@pytest.mark.parametrize("rule", [{"top_k": 2}, {"top_p": 0.6}, {"epsilon": 0.2}], ids=str)
def test_truncated_tokens_are_never_drawn_and_the_others_as_often_as_they_should(rule):
    params, p = table(1), model_probabilities(table(1))
    keep = np.asarray(kept(Sampling(0, 1.0, **rule), jnp.log(jnp.asarray(p, jnp.float32)))) & (p > 0)
    truncated = np.where(keep, p, 0) / np.where(keep, p, 0).sum(-1, keepdims=True)
    expected = probabilities(lambda said: truncated[said[-1] if said else 1])
    found = frequencies(params, Sampling(3, 1.0, **rule))
    assert found.keys() <= expected.keys()
    assert total_variation(found, expected) < 0.03


@pytest.mark.parametrize("how", [Sampling(0, 1.0, top_k=1), Sampling(0, 1e-4), Sampling(5, 2.0, top_p=1e-6)], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_the_likeliest_tokens_are_greedy_searchs(how, seed):
    params, limits = table(seed), [6, 3]
    greedy = decode(params, SearchOptions(1, 6, 0.0), limits)
    drawn = decode(params, SearchOptions(3, 6, sampling=how), limits)
    for k in range(3):
        np.testing.assert_array_equal(drawn.tokens_BWT[:, k], greedy.tokens_BWT[:, 0])
        np.testing.assert_allclose(drawn.scores_BW[:, k], greedy.scores_BW[:, 0], rtol=1e-5)


def test_a_score_is_the_models_log_probability_whatever_is_truncated_or_forbidden():
    params = table(2)
    rules = penalties.of(Decoding(min_length=1, no_repeat_ngram_size=1, repetition_penalty=3.0))
    for how, processors in ((Sampling(0, 0.5, top_p=0.7, epsilon=0.1), ()), (Sampling(0, 1.0), rules)):
        drawn = decode(params, SearchOptions(50, 6, sampling=how, processors=processors), [6])
        for tokens, score, log_prob in zip(drawn.tokens_BWT[0], drawn.scores_BW[0], drawn.log_probs_BW[0], strict=True):
            assert score == log_prob == pytest.approx(chain_log_probs(params)(words(tokens)), rel=1e-5)
            if processors:
                assert len(set(words(tokens))) == len(words(tokens)) > 1


@pytest.mark.parametrize("rung", ["pre", pytest.param("luong", marks=pytest.mark.slow)])
def test_a_sample_depends_on_its_sentence_seed_and_number_alone(rung):
    model = tiny.model_of({**tiny.VARIANTS, **tiny.RECURRENT}[rung], TARGET_VOCAB)
    params, (source, limits) = tiny.params_of(model, 3), tiny.some_sentences(16, 3)
    find = jax.jit(functools.partial(search, model))

    def sample(rows, samples, padding=0):
        tokens = np.pad(source[rows], ((0, 0), (0, padding)))
        return find(SearchOptions(samples, 13, sampling=Sampling(7, 1.0)), params, {"encoder_input_tokens": tokens}, limits[rows])

    together = sample(np.arange(16), 3)
    in_stages = StagedSearch(model)(SearchOptions(3, 13, sampling=Sampling(7, 1.0)), params, {"encoder_input_tokens": source}, limits)
    np.testing.assert_array_equal(in_stages.tokens_BWT, together.tokens_BWT)
    np.testing.assert_allclose(in_stages.scores_BW, together.scores_BW, atol=1e-5)
    for rows, samples, padding in ((np.array([11]), 3, 0), (np.array([9, 4, 11]), 2, 3)):
        alone = sample(rows, samples, padding)
        np.testing.assert_array_equal(alone.tokens_BWT, together.tokens_BWT[rows, :samples])
        np.testing.assert_allclose(alone.scores_BW, together.scores_BW[rows, :samples], atol=1e-5)
    assert len({tuple(row) for rows in together.tokens_BWT.tolist() for row in rows}) > 20


def test_numbers_compile_nothing():
    find, limits = jax.jit(functools.partial(search, CHAIN)), np.array([6], np.int32)
    for seed, (temperature, top_k, top_p, epsilon) in enumerate(((1.0, 3, 0.9, 0.1), (0.5, 1, 0.2, 0.02))):
        how = of(Decoding(temperature=temperature, top_k=top_k, top_p=top_p, epsilon=epsilon, seed=seed))
        find(SearchOptions(3, 6, sampling=how), table(), {"encoder_input_tokens": np.ones((1, 2), np.int32)}, limits)
    assert find._cache_size() == 1
    assert of(Decoding()) is None and of(Decoding(temperature=1.0, seed=3)) == Sampling(3, 1.0)


def test_options_that_need_sampling_are_refused_without_it():
    for changes in ({"top_k": 3}, {"top_p": 0.9}, {"epsilon": 0.02}, {"seed": 1}):
        assert "set decoding.temperature" in next(iter(Decoding(**changes).problems()))
        assert not list(Decoding(temperature=1.0, **changes).problems())
    assert list(Decoding(n_best=6).problems()) and not list(Decoding(n_best=6, temperature=1.0).problems())
