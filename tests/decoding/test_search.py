"""Search over models of a few words, whose every translation can be written down and scored by hand."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from chains import Chain, by_the_book, words
from jax.tree_util import Partial

from jaxnmt.config import replace
from jaxnmt.data.special_tokens import BOS, EOS, PAD
from jaxnmt.decoding.search import NEVER, SearchOptions, search

VOCAB = 6  # PAD, BOS, EOS, UNK and two words


CHAIN = Chain(VOCAB)
gnmt = lambda log_p, length: log_p / ((5 + length) / 6)  # noqa: E731
run = jax.jit(functools.partial(search, CHAIN))


def table(seed: int = 0, scale: float = 1.0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal((VOCAB, VOCAB)) * scale, jnp.float32)


def decode(params, options, limits):
    return jax.device_get(run(options, params, {"encoder_input_tokens": np.ones((len(limits), 2), np.int32)}, np.array(limits, np.int32)))


def brute_force(log_probs_of, limit, alpha):
    """Every translation of up to `limit` tokens, EOS included, with its score; best first. At the limit EOS is forced, at its price."""
    found = []
    for length in range(limit):
        for body in itertools.product(range(3, VOCAB), repeat=length):
            log_p = log_probs_of([*body, EOS])
            found.append((log_p / ((5 + length + 1) / 6) ** alpha, [*body, EOS]))
    return sorted(found, key=lambda pair: -pair[0])


def chain_log_probs(params):
    logits = np.asarray(params, np.float64).copy()
    logits[:, [PAD, BOS]] = -np.inf
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return lambda tokens: sum(log_p[before, token] for before, token in zip([BOS, *tokens], tokens, strict=False))


@pytest.mark.parametrize("alpha", [0.0, 1.0, 2.5, -1.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_beam_wide_enough_is_exact(alpha, seed):
    params, limit = table(seed, 1.5), 4
    expected = brute_force(chain_log_probs(params), limit, alpha)
    assert len(expected) == 40
    found = decode(params, SearchOptions(40, limit, alpha), [limit])
    assert [words(row) for row in found.tokens_BWT[0]] == [tokens for _, tokens in expected]
    np.testing.assert_allclose(found.scores_BW[0], [score for score, _ in expected], rtol=1e-5)


def test_a_narrow_beam_is_sorted_and_finds_the_best_of_this_chain():
    params = table(2)
    expected = brute_force(chain_log_probs(params), 5, 1.0)
    for beam in (2, 5):
        scores = decode(params, SearchOptions(beam, 5, 1.0), [5]).scores_BW[0]
        assert (np.diff(scores) <= 0).all()
    found = decode(params, SearchOptions(5, 5, 1.0), [5])
    assert len({tuple(row) for row in found.tokens_BWT[0].tolist()}) == 5  # all different
    assert words(found.tokens_BWT[0, 0]) == expected[0][1]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("beam", [2, 3])
def test_a_narrow_beam_is_the_books(beam, seed):
    params = table(seed).at[:, EOS].add(1.0)
    found, expected = decode(params, SearchOptions(beam, 6, 1.0), [6]), by_the_book(params, beam, 6, gnmt)[:beam]
    assert [words(row) for row in found.tokens_BWT[0]] == [tokens for _, tokens in expected]
    np.testing.assert_allclose(found.scores_BW[0], [score for score, _ in expected], rtol=1e-5)


@pytest.mark.parametrize("patience", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("beam", [2, 4])
def test_patience_is_the_papers(beam, seed, patience):
    params, limits = table(seed).at[:, EOS].add(0.5), [4, 9]
    found = decode(params, SearchOptions(beam, 9, 1.0, patience), limits)
    for row, limit in enumerate(limits):  # beside each other: one is finished long before the other
        # What ends must be among the K best, and K x patience are enough (Kasai et al. 2022).
        expected = by_the_book(params, beam, limit, gnmt, rank=1, enough=beam * patience)[:beam]
        assert [words(tokens) for tokens, score in zip(found.tokens_BWT[row], found.scores_BW[row], strict=True) if score > NEVER] == [
            tokens for _, tokens in expected
        ]
        np.testing.assert_allclose(found.scores_BW[row, : len(expected)], [score for score, _ in expected], rtol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_one_best_needs_no_more_steps_than_it_can_gain_by(seed):
    params = table(seed, 2.0)
    steps = []

    class Counted(Chain):
        def step(self, params, memory, carry, token_B):
            jax.debug.callback(lambda: steps.append(1))
            return super().step(params, memory, carry, token_B)

    def best(n_best):
        steps.clear()
        source = {"encoder_input_tokens": np.ones((1, 2), np.int32)}
        found = search(Counted(), SearchOptions(4, 20, 1.0, n_best=n_best), params, source, np.array([20]))
        jax.effects_barrier()
        return found.tokens_BWT[0, 0].tolist(), len(steps)

    (one, few), (all_of_them, many) = best(1), best(4)
    assert one == all_of_them and few <= many


def by_hand():
    """After BOS: `4` with probability 0.6 or the end with 0.4; after `4`: `5` with 0.51 or the end with 0.49; after `5`: the end."""
    params = np.full((VOCAB, VOCAB), -1e4, np.float32)
    params[BOS, 4], params[BOS, EOS] = math.log(0.6), math.log(0.4)
    params[4, 5], params[4, EOS], params[5, EOS] = math.log(0.51), math.log(0.49), 0.0
    return jnp.asarray(params)


def test_greedy_and_beam_by_hand():
    greedy = decode(by_hand(), SearchOptions(1, 6, 0.0), [6])
    assert words(greedy.tokens_BWT[0, 0]) == [4, 5, EOS] and greedy.log_probs_BW[0, 0] == pytest.approx(math.log(0.306), abs=1e-5)
    beam = decode(by_hand(), SearchOptions(3, 6, 0.0), [6])
    assert words(beam.tokens_BWT[0, 0]) == [EOS] and beam.scores_BW[0, 0] == pytest.approx(math.log(0.4), abs=1e-5)


def test_length_penalty_by_hand():
    # log 0.306 / (8/6)^2 = -0.666, log 0.294 / (7/6)^2 = -0.899, log 0.4 / 1 = -0.916
    beam = decode(by_hand(), SearchOptions(3, 6, 2.0), [6])
    assert [words(row) for row in beam.tokens_BWT[0]] == [[4, 5, EOS], [4, EOS], [EOS]]
    np.testing.assert_allclose(beam.scores_BW[0], [math.log(0.306) * 36 / 64, math.log(0.294) * 36 / 49, math.log(0.4)], rtol=1e-4)
    np.testing.assert_allclose(beam.log_probs_BW[0], [math.log(0.306), math.log(0.294), math.log(0.4)], rtol=1e-4)
    greedy = decode(by_hand(), SearchOptions(1, 6, 2.0), [6])
    assert greedy.scores_BW[0, 0] == pytest.approx(math.log(0.306) * 36 / 64, rel=1e-4)


@pytest.mark.parametrize("beam", [1, 3])
def test_length_penalties_are_arguments_of_one_program(beam):
    """Of one process, and of the next one too, which finds the program in the cache by its text."""
    batch, limits = {"encoder_input_tokens": np.ones((1, 2), np.int32)}, np.array([6], np.int32)
    find = jax.jit(functools.partial(search, CHAIN))
    for alpha in (0.0, 0.6, 1.0, 2.5, -1.0):
        find(SearchOptions(beam, 6, alpha), table(), batch, limits)
    assert find._cache_size() == 1
    texts = {find.lower(SearchOptions(beam, 6, alpha), table(), batch, limits).as_text() for alpha in (0.6, 2.5)}
    assert len(texts) == 1


@pytest.mark.parametrize("beam", [1, 3])
def test_room_beyond_the_limits_is_not_walked_through(beam):
    """A search ends at the limits of its sentences, however many tokens it was compiled for; a beam of 3 finds 1 hypothesis at limit 1."""
    steps = []

    class Counted(Chain):
        def step(self, params, memory, carry, token_B):
            jax.debug.callback(lambda: steps.append(1))
            return super().step(params, memory, carry, token_B)

    never_ending = table(3).at[:, EOS].set(-30.0)
    found = search(Counted(), SearchOptions(beam, 50), never_ending, {"encoder_input_tokens": np.ones((2, 2), np.int32)}, np.array([1, 4]))
    jax.effects_barrier()
    assert len(steps) == 4 and [len(words(row)) for row in found.tokens_BWT[:, 0]] == [1, 4]


def test_places_that_no_hypothesis_takes_are_marked():
    beam = decode(by_hand(), SearchOptions(3, 2, 0.0), [1])
    assert words(beam.tokens_BWT[0, 0]) == [EOS] and (beam.scores_BW[0, 1:] == NEVER).all()


@pytest.mark.parametrize("beam", [1, 3])
def test_every_sentence_ends_once_at_its_own_limit_and_names_no_special_token(beam):
    params = table(3).at[:, EOS].set(-30.0).at[:, PAD].set(50.0).at[:, BOS].set(50.0)  # it would never end, and loves PAD and BOS
    limits = [1, 3, 7, 4]
    found = decode(params, SearchOptions(beam, 7), limits)
    for rows, limit in zip(found.tokens_BWT, limits, strict=True):
        best = words(rows[0])
        assert len(best) == limit and best[-1] == EOS and not {PAD, BOS, EOS} & set(best[:-1])
        assert (rows[0, limit:] == PAD).all()


@pytest.mark.parametrize("beam", [1, 3])
def test_a_sentence_does_not_know_its_batch(beam):
    params = table(4)
    limits = [5, 2, 6, 3]
    together = decode(params, SearchOptions(beam, 6), limits)
    for i, limit in enumerate(limits):
        alone = decode(params, SearchOptions(beam, 8), [limit])  # and with more room
        np.testing.assert_array_equal(together.tokens_BWT[i], alone.tokens_BWT[0, :, :6])
        np.testing.assert_allclose(together.scores_BW[i], alone.scores_BW[0], atol=1e-5)


def forbid_four(tokens_BWT, written, log_p_BWV):
    return log_p_BWV.at[..., 4].set(-jnp.inf)


def no_token_twice(tokens_BWT, written, log_p_BWV):
    """Reads the history, so that its places and their order are tested too."""
    is_written_L = jnp.arange(tokens_BWT.shape[-1]) < written
    used = (jax.nn.one_hot(tokens_BWT, VOCAB) * is_written_L[:, None]).sum(-2) > 0
    return jnp.where(used, -jnp.inf, log_p_BWV)


@pytest.mark.parametrize("beam", [1, 4])
def test_processors_change_what_may_be_said(beam):
    params = table(5).at[:, 4].add(4.0).at[:, EOS].add(-4.0)
    assert 4 in decode(params, SearchOptions(beam, 6), [6]).tokens_BWT[0, 0]
    without = decode(params, SearchOptions(beam, 6, processors=(Partial(forbid_four),)), [6])
    real = without.tokens_BWT[0][without.scores_BW[0] > NEVER]
    assert len(real) and 4 not in real
    once = decode(params, SearchOptions(beam, 6, processors=(Partial(no_token_twice),)), [6])
    for row, score in zip(once.tokens_BWT[0], once.scores_BW[0], strict=True):
        assert score <= NEVER / 2 or len(set(words(row))) == len(words(row))


def test_a_beam_over_a_transformer_is_exact_too():
    model = tiny.model_of(replace(tiny.BASE, num_decoder_layers=2), VOCAB)
    params, limit = tiny.params_of(model, 1), 4
    source = {"encoder_input_tokens": np.array([[3, 5, 2, 0]], np.int32)}
    every = [tokens for _, tokens in brute_force(lambda tokens: 0.0, limit, 0.0)]

    def log_probs(params):
        inputs = np.zeros((40, limit), np.int32)
        for row, tokens in zip(inputs, every, strict=True):
            row[: len(tokens)] = [BOS, *tokens[:-1]]
        batch = {"encoder_input_tokens": jnp.repeat(source["encoder_input_tokens"], 40, 0), "decoder_input_tokens": jnp.asarray(inputs)}
        logits = model.decode(params, model.encode(params, batch), batch).at[..., jnp.array([PAD, BOS])].set(-jnp.inf)
        return jax.nn.log_softmax(logits)

    table_NTV = np.asarray(jax.jit(log_probs)(params))
    of = {tuple(tokens): sum(table_NTV[n, t, token] for t, token in enumerate(tokens)) for n, tokens in enumerate(every)}
    expected = brute_force(lambda tokens: of[tuple(tokens)], limit, 1.0)
    found = jax.jit(functools.partial(search, model))(SearchOptions(40, limit, 1.0), params, source, np.array([limit], np.int32))
    np.testing.assert_allclose(found.scores_BW[0], [score for score, _ in expected], atol=1e-5)
    gaps = [abs(a[0] - b[0]) for a, b in itertools.pairwise(expected)]
    for k in range(40):
        if min(gaps[max(k - 1, 0) : k + 1]) > 1e-5:
            assert words(found.tokens_BWT[0, k]) == expected[k][1]
