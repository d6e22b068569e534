"""Alternatives at a word: of each of the likeliest tokens after the prefix the best translation, by brute force and for every model."""

import functools
import itertools

import chains
import jax
import numpy as np
import pytest
import subwords
import tiny

from jaxnmt.config import Decoding, replace
from jaxnmt.data.special_tokens import BOS, EOS, PAD, UNK
from jaxnmt.decoding.programs import StagedSearch
from jaxnmt.decoding.rules import Rules, check_together
from jaxnmt.decoding.search import NEVER, SearchOptions, search
from jaxnmt.errors import UserError
from jaxnmt.lab.laws.subject import TARGET_VOCAB

PREFIXES = [[], [4], [5, 3, 5], [3, 3]]
TOKENS = [EOS, UNK, 4, 5]
find = jax.jit(functools.partial(search, chains.Chain()))


def batch_of(prefixes, ranks):
    rules = {"prefix": chains.padded(prefixes), "rank": np.array(ranks, np.int32)}
    return {"encoder_input_tokens": np.ones((len(prefixes), 2), np.int32)} | rules


def ranked(params, prefix):
    """The tokens that may follow, likeliest first."""
    return sorted(TOKENS, key=lambda token: -float(params[[BOS, *prefix][-1], token]))


@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_beam_wide_enough_is_brute_force_over_what_begins_with_prefix_and_token(alpha, seed):
    params, limit = chains.table(seed), 5
    cases = list(itertools.product(PREFIXES, range(-1, 5)))
    found = jax.device_get(find(SearchOptions(121, limit, alpha), params, batch_of(*zip(*cases, strict=True)), np.full(len(cases), limit)))
    for row, (prefix, rank) in enumerate(cases):
        begin = prefix if rank < 0 else [*prefix, *ranked(params, prefix)[rank : rank + 1]]
        exists = rank < len(TOKENS)  # there is no fifth token
        expected = [pair for pair in chains.every_translation(params, limit, alpha) if exists and pair[1][: len(begin)] == begin]
        chains.assert_are(found, row, expected)


@pytest.mark.parametrize("beam", [1, 2])
@pytest.mark.parametrize("patience", [1.0, float("inf")])
def test_a_narrow_beam_is_the_search_whose_prefix_is_longer_by_the_token(beam, patience):
    params, options = chains.table(7).at[:, EOS].add(0.5), SearchOptions(beam, 9, 1.0, patience)
    cases = list(itertools.product(PREFIXES, range(4)))
    prefixes, ranks = zip(*cases, strict=True)
    longer = [[*prefix, ranked(params, prefix)[rank]] for prefix, rank in cases]
    found = find(options, params, batch_of(prefixes, ranks), np.full(len(cases), 9))
    tiny.assert_same(found, find(options, params, batch_of(longer, [-1] * len(cases)), np.full(len(cases), 9)))


def test_at_the_limit_only_the_end_is_left():
    found = find(SearchOptions(2, 6), chains.table(1), batch_of([[4], [4]], [0, 1]), np.array([2, 2]))
    assert chains.words(found.tokens_BWT[0, 0]) == [4, EOS] and (found.scores_BW[1] == NEVER).all()


SLOW = [("pre", 1), ("luong", 1), *itertools.product(("rotary", "bahdanau", "cho"), (1, 3))]


@pytest.mark.parametrize(("rung", "beam"), [("pre", 3), ("luong", 3), *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)])
def test_a_sentence_does_not_know_its_batch_and_the_tokens_are_the_likeliest(rung, beam):
    model = tiny.model_of({**tiny.VARIANTS, **tiny.RECURRENT}[rung], TARGET_VOCAB)
    params, random = tiny.params_of(model, 3), np.random.default_rng(0)
    sources = np.repeat(random.integers(3, 9, (4, 3), np.int32), 4, 0)
    prefixes = [list(random.integers(3, 9, length)) for length in (0, 1, 2, 4) for _ in range(4)]
    prefixes = [prefixes[row // 4 * 4] for row in range(16)]  # four copies each
    ranks = np.tile(np.arange(-1, 3, dtype=np.int32), 4)
    limits = np.array([6 + len(prefix) for prefix in prefixes], np.int32)
    options = SearchOptions(beam, 13)
    batch = {"encoder_input_tokens": sources, "prefix": chains.padded(prefixes), "rank": ranks}
    together, alone = StagedSearch(model)(options, params, batch, limits), jax.jit(functools.partial(search, model))
    forced = jax.jit(lambda params, given: model.decode(params, model.encode(params, given), given))
    logits = forced(
        params, {"encoder_input_tokens": sources, "decoder_input_tokens": chains.padded([[BOS, *prefix] for prefix in prefixes], 5)}
    )
    for row, (prefix, rank) in enumerate(zip(prefixes, ranks, strict=True)):
        order = np.argsort(-logits[row, len(prefix)])
        if rank >= 0:
            assert together.tokens_BWT[row, 0, len(prefix)] == [token for token in order if token not in (PAD, BOS)][rank]
    for row in (0, 1, 6, 15):
        own = {name: x[row : row + 1] for name, x in batch.items()}
        own = {name: x for name, x in own.items() if name != "rank" or ranks[row] >= 0}
        found = alone(options, params, own, limits[row : row + 1])
        np.testing.assert_array_equal(found.tokens_BWT[0, 0], together.tokens_BWT[row, 0])
        np.testing.assert_allclose(found.scores_BW[0], together.scores_BW[row], atol=1e-5)


# ---- text

LINES = ["haus am see", "boot", "", "baum im see am haus"]


@pytest.fixture(scope="module")
def translator():
    return subwords.translator()


BASIC = Decoding(beam_size=4, batch_size=4, max_length_extra=5)


def test_alternatives_are_sorted_and_differ_in_the_token_after_the_prefix(translator):
    rules = [
        Rules("am", alternatives=3),
        Rules(alternatives=5),
        Rules(alternatives=3),
        Rules("im baum", forbidden=("see",), alternatives=3),
    ]
    found = translator.translate(LINES, BASIC, 1, rules)
    assert list(map(len, found)) == [3, 5, 1, 3]
    for line, own, translations in zip(LINES, rules, found, strict=True):
        if not line:
            continue
        prefix = translator.tokenizer.encode_target([own.prefix])[0]
        tokens = [[*each.parts[0][1], EOS] for each in translations]
        assert all(each[: len(prefix)] == prefix for each in tokens) and all("see" not in each.text.split() for each in found[3])
        assert len({each[len(prefix)] for each in tokens}) == own.alternatives
        assert [each.score for each in translations] == sorted((each.score for each in translations), reverse=True)
    alone = translator.translate(LINES[:1], replace(BASIC, batch_size=64), 1, rules[:1])
    assert [each.tokens for each in alone[0]] == [each.tokens for each in found[0]]


def test_there_are_no_more_alternatives_than_tokens(translator):
    """PAD and BOS are none."""
    (found,) = translator.translate(LINES[:1], BASIC, 1, [Rules(alternatives=99)])
    assert len(found) == translator.tokenizer.target_vocab_size - 2


def test_what_does_not_go_together_is_refused(translator):
    with pytest.raises(UserError, match="line 7 is translated in parts, of which alternatives are not joined"):
        translator.translate(["haus am see " * 9], BASIC, 7, [Rules(alternatives=2)])
    for changes, says in (
        ({"temperature": 1.0}, "alternatives need a search"),
        ({"n_best": 2}, "alternatives 3 is the number of translations of a line"),
        ({"mbr": "chrf"}, "decoding.mbr chrf chooses among all hypotheses"),
    ):
        with pytest.raises(UserError, match=says):
            check_together(replace(BASIC, **changes), False, 3)
        check_together(replace(BASIC, **changes), False, 0)
