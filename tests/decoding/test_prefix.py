"""A forced prefix: the search equals brute force over the translations that begin with it, for every model and in every batch."""

import functools
import itertools

import chains
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.tree_util import Partial

from jaxnmt.data.special_tokens import EOS
from jaxnmt.decoding.programs import StagedSearch
from jaxnmt.decoding.search import NEVER, SearchOptions, search
from jaxnmt.lab.laws.subject import TARGET_VOCAB

PREFIXES = [[], [4], [5, 3, 5], [3, 3]]
find = jax.jit(functools.partial(search, chains.Chain()))


def batch_of(prefixes):
    return {"encoder_input_tokens": np.ones((len(prefixes), 2), np.int32), "prefix": chains.padded(prefixes)}


@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_beam_wide_enough_is_brute_force_over_what_begins_with_the_prefix(alpha, seed):
    params, limit = chains.table(seed), 5
    found = jax.device_get(find(SearchOptions(121, limit, alpha), params, batch_of(PREFIXES), np.full(4, limit)))
    for row, prefix in enumerate(PREFIXES):
        expected = [pair for pair in chains.every_translation(params, limit, alpha) if pair[1][: len(prefix)] == prefix]
        chains.assert_are(found, row, expected)


@pytest.mark.parametrize("beam", [1, 3])
def test_a_narrow_beam_spreads_once_the_prefix_ends(beam):
    """From there on it is the search of the rest, as a chain knows the last token alone."""
    params = chains.table(7).at[:, EOS].add(0.5)
    prefix = [4, 5, 4]
    found = find(SearchOptions(beam, 9, 0.0), params, batch_of([prefix]), np.array([9]))
    rest = find(SearchOptions(beam, 9, 0.0), params.at[1].set(params[4]), batch_of([[]]), np.array([6]))
    assert [chains.words(tokens)[:3] for tokens in found.tokens_BWT[0]] == [prefix] * beam
    of_prefix = sum(jax.nn.log_softmax(params[before].at[:2].set(-jnp.inf))[token] for before, token in ((1, 4), (4, 5), (5, 4)))
    np.testing.assert_allclose(found.log_probs_BW - of_prefix, rest.log_probs_BW, atol=1e-5)


@pytest.mark.parametrize("patience", [1.0, float("inf")])
def test_no_prefix_is_todays_search_to_the_bit(patience):
    params, limits = chains.table(3), np.array([4, 9])
    source = {"encoder_input_tokens": np.ones((2, 2), np.int32)}
    tiny.assert_same(
        find(SearchOptions(3, 9, 1.0, patience), params, source | {"prefix": chains.padded([[], []])}, limits),
        find(SearchOptions(3, 9, 1.0, patience), params, source, limits),
    )


def test_a_prefix_wins_over_processors():
    def never_four(tokens_BWT, written, log_p_BWV):
        return log_p_BWV.at[..., 4].set(-jnp.inf)

    found = find(SearchOptions(2, 6, processors=(Partial(never_four),)), chains.table(5), batch_of([[4, 4]]), np.array([6]))
    assert chains.words(found.tokens_BWT[0, 0])[:2] == [4, 4] and 4 not in found.tokens_BWT[0, 0, 2:]
    assert (found.scores_BW[0] > NEVER / 2).all()


SLOW = [("luong", 1), *itertools.product(("rotary", "bahdanau", "cho"), (1, 3))]


@pytest.mark.parametrize(
    ("rung", "beam"), [("pre", 1), ("pre", 3), ("luong", 3), *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)]
)
def test_a_sentence_does_not_know_its_batch(rung, beam):
    model = tiny.model_of({**tiny.VARIANTS, **tiny.RECURRENT}[rung], TARGET_VOCAB)
    params, random = tiny.params_of(model, 3), np.random.default_rng(0)
    sources = random.integers(3, 9, (16, 3), np.int32)
    prefixes = [list(random.integers(3, 9, random.integers(0, 5))) for _ in sources]
    limits = (random.integers(1, 9, 16) + [len(prefix) for prefix in prefixes]).astype(np.int32)
    options = SearchOptions(beam, 13)
    together = StagedSearch(model)(options, params, {"encoder_input_tokens": sources, "prefix": chains.padded(prefixes)}, limits)
    alone = jax.jit(functools.partial(search, model))
    for row, prefix in enumerate(prefixes):
        assert chains.words(together.tokens_BWT[row, 0])[: len(prefix)] == prefix
    for row in (0, 1, 2):
        own = {"encoder_input_tokens": sources[row : row + 1], "prefix": chains.padded(prefixes[row : row + 1], 8)}
        found = alone(options, params, own, limits[row : row + 1])
        np.testing.assert_array_equal(found.tokens_BWT[0, 0], together.tokens_BWT[row, 0])
        np.testing.assert_allclose(found.scores_BW[0], together.scores_BW[row], atol=1e-5)
