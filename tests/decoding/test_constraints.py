"""Required and forbidden phrases: met by every translation that is found, and in a wide beam equal to brute force."""

import functools
import itertools

import chains
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.tree_util import Partial

from jaxnmt.data.special_tokens import EOS, PAD
from jaxnmt.decoding.programs import StagedSearch
from jaxnmt.decoding.search import NEVER, SearchOptions, search
from jaxnmt.lab.laws.subject import TARGET_VOCAB

VOCAB = 6  # three words
find = jax.jit(functools.partial(search, chains.Chain(VOCAB)))


def nested(phrases, shape):
    """Lists of lists of tokens as an array, padded at each level."""
    array = np.zeros(shape, np.int32)
    for place in itertools.product(*map(range, shape)):
        value = phrases
        for index in place:
            value = value[index] if index < len(value) else PAD
            if value is PAD:
                break
        array[place] = value
    return array


def batch_of(required, forbidden=None, alternatives=2, length=4):
    rows = len(required)
    batch = {"encoder_input_tokens": np.ones((rows, 2), np.int32), "required": nested(required, (rows, 4, alternatives, length))}
    return batch if forbidden is None else batch | {"forbidden": nested(forbidden, (rows, 4, length))}


def has(tokens, phrase):
    return any(tokens[start : start + len(phrase)] == phrase for start in range(len(tokens)))


def meets(tokens, required, forbidden=()):
    return all(any(has(tokens, phrase) for phrase in each) for each in required) and not any(has(tokens, phrase) for phrase in forbidden)


CASES = [  # of each constraint, its alternatives
    [],
    [[[4]]],
    [[[4, 5]], [[5, 4]]],  # met together by 4 5 4
    [[[3, 3]], [[5]]],
    [[[4, 4, 5], [3, 5]]],
    [[[3], [4]], [[4], [5]]],
]


@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_beam_wide_enough_is_brute_force_over_what_meets_the_constraints(alpha, seed):
    params, limit = chains.table(seed, VOCAB), 4
    found = jax.device_get(find(SearchOptions(40, limit, alpha), params, batch_of(CASES), np.full(len(CASES), limit)))
    every = chains.every_translation(params, limit, alpha)
    for row, required in enumerate(CASES):
        chains.assert_are(found, row, [pair for pair in every if meets(pair[1], required)])


@pytest.mark.parametrize("required", [None, [[[5, 5]]]])
def test_forbidden_phrases_are_brute_force_too(required):
    params, limit = chains.table(4, VOCAB), 4
    forbidden = [[], [[4]], [[3, 5], [5, 3]], [[4, 5, 4], [3]]]
    batch = batch_of([required or []] * 4, forbidden)
    if required is None:
        del batch["required"]
    found = jax.device_get(find(SearchOptions(40, limit), params, batch, np.full(4, limit)))
    every = chains.every_translation(params, limit)
    for row, phrases in enumerate(forbidden):
        chains.assert_are(found, row, [pair for pair in every if meets(pair[1], required or [], phrases)])


@functools.cache
def rung(name):
    model = tiny.model_of({**tiny.VARIANTS, **tiny.RECURRENT}[name], TARGET_VOCAB)
    return model, tiny.params_of(model, 3), StagedSearch(model)


def random_constraints(random, vocab):
    """Up to four constraints of up to two alternatives; few different tokens, so that they overlap and repeat."""
    tokens = random.integers(3, vocab, 2 if random.random() < 0.5 else 4)
    phrase = lambda: [int(token) for token in random.choice(tokens, random.integers(1, 5))]  # noqa: E731
    return [[phrase() for _ in range(random.integers(1, 3))] for _ in range(random.integers(0, 5))]


@pytest.mark.parametrize(
    ("name", "beam"),
    [
        ("rotary", 5),
        ("luong", 2),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("rotary", 1), ("rotary", 2), ("luong", 1), ("luong", 5))),
    ],
)
def test_constraints_are_met_in_every_random_case(name, beam):
    """Six times 192 cases, at limits that leave no token to spare in a third of them; every hypothesis found meets them."""
    (_, params, staged), random = rung(name), np.random.default_rng(beam)
    for patience in (1.0, 2.0, float("inf")):
        required = [random_constraints(random, TARGET_VOCAB) for _ in range(64)]
        needed = [sum(min(map(len, each)) for each in constraints) + 1 for constraints in required]
        limits = np.array([count + extra for count, extra in zip(needed, np.resize([0, 2, 8], 64), strict=True)], np.int32)
        batch = batch_of(required) | {"encoder_input_tokens": random.integers(3, 9, (64, 4), np.int32)}
        found = staged(SearchOptions(beam, 25, 1.0, patience), params, batch, limits)
        for row, constraints in enumerate(required):
            assert found.scores_BW[row, 0] > NEVER
            for tokens, score in zip(found.tokens_BWT[row], found.scores_BW[row], strict=True):
                assert score == NEVER or (meets(chains.words(tokens), constraints) and chains.words(tokens)[-1] == EOS)


@pytest.mark.parametrize("beam", [pytest.param(1, marks=pytest.mark.slow), 5])
def test_constraints_are_met_beside_forbidden_phrases_and_processors(beam):
    (model, params, _), random = rung("rotary"), np.random.default_rng(beam)

    def nothing_twice(tokens_BWT, written, log_p_BWV):
        used = jax.nn.one_hot(tokens_BWT, log_p_BWV.shape[-1]).sum(-2) > 0
        return jnp.where(used, -jnp.inf, log_p_BWV)

    required = [random_constraints(random, TARGET_VOCAB)[:3] for _ in range(64)]
    forbidden = []
    for constraints in required:  # phrases that no constraint contains
        phrases = [[int(token) for token in random.integers(3, TARGET_VOCAB, random.integers(1, 4))] for _ in range(3)]
        forbidden.append([phrase for phrase in phrases if not any(has(own, phrase) for each in constraints for own in each)])
    room = np.array([sum(max(map(len, each)) + 1 for each in constraints) for constraints in required], np.int32)
    batch = batch_of(required, forbidden) | {"encoder_input_tokens": random.integers(3, 9, (64, 4), np.int32)}
    find = jax.jit(functools.partial(search, model))
    for processors in ((), (Partial(nothing_twice),)):
        found = jax.device_get(find(SearchOptions(beam, 32, processors=processors), params, batch, room + 8))
        for row, (constraints, phrases) in enumerate(zip(required, forbidden, strict=True)):
            assert found.scores_BW[row, 0] > NEVER and meets(chains.words(found.tokens_BWT[row, 0]), constraints, phrases)


@pytest.mark.parametrize(("beam", "patience"), [(5, 1.0), *(pytest.param(beam, float("inf"), marks=pytest.mark.slow) for beam in (1, 5))])
@pytest.mark.parametrize("name", ["pre", pytest.param("bahdanau", marks=pytest.mark.slow)])
def test_a_sentence_without_constraints_is_todays_to_the_bit_beside_others_that_have_them(name, beam, patience):
    (model, params, _), random = rung(name), np.random.default_rng(1)
    find = jax.jit(functools.partial(search, model))
    required = [random_constraints(random, TARGET_VOCAB) if row % 2 else [] for row in range(8)]
    sources = {"encoder_input_tokens": random.integers(3, 9, (8, 4), np.int32)}
    limits, options = np.full(8, 24, np.int32), SearchOptions(beam, 24, 1.0, patience)
    rules = {"required": batch_of(required)["required"], "forbidden": np.zeros((8, 4, 4), np.int32), "prefix": np.zeros((8, 4), np.int32)}
    free, bound = find(options, params, sources, limits), find(options, params, sources | rules, limits)
    tiny.assert_same(*(jax.tree.map(lambda x: x[::2], found) for found in (free, bound)))
    for row in (1, 3):  # and what has constraints does not know its batch, nor how they are padded
        own = {"encoder_input_tokens": sources["encoder_input_tokens"][row : row + 1]} | {
            "required": nested(required[row : row + 1], (1, 8, 4, 8))
        }
        alone = find(options, params, own, limits[:1])
        np.testing.assert_array_equal(alone.tokens_BWT[0, 0], bound.tokens_BWT[row, 0])
        np.testing.assert_allclose(alone.scores_BW[0], bound.scores_BW[row], atol=1e-5)


def test_allocation_by_hand():
    """Two places for three banks: the best that has met the constraint, then the best that has begun it; the best of all has no place."""
    params = np.full((VOCAB, VOCAB), -20.0, np.float32)
    params[1, 3], params[3, 3], params[3, EOS] = 3.0, 2.0, 1.0
    found = find(SearchOptions(2, 6), jnp.asarray(params), batch_of([[[[4, 5]]]]), np.array([6]))
    assert all(has(chains.words(tokens), [4, 5]) for tokens in found.tokens_BWT[0])
    assert chains.words(found.tokens_BWT[0, 0])[0] == 3  # the phrase does not come first: a place is kept for what is likelier
