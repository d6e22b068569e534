"""A search whose places are refilled finds what searches of whole batches find, and stops when it is told to."""

import functools
import itertools
import threading
import time

import jax
import numpy as np
import pytest
import tiny

from jaxnmt import config as cfg
from jaxnmt.decoding import penalties, programs
from jaxnmt.decoding.batches import Group
from jaxnmt.decoding.programs import StagedSearch
from jaxnmt.decoding.sampling import Sampling
from jaxnmt.decoding.search import SearchOptions, search
from jaxnmt.lab.laws.subject import TARGET_VOCAB
from jaxnmt.models.deferred import DeferredModel
from jaxnmt.parallel import kept

ROWS, LIMIT, COUNTS, WIDTHS = 8, 13, (8, 8, 8, 8, 8, 5), (4, 4, 8, 8, 4, 9)
LONGEST = 4, 3, 8, 6, 4, 9  # the encoder reads a part of the second and the fourth group
OPTIONS = {
    "greedy": SearchOptions(1, LIMIT, 0.0),
    "beam": SearchOptions(3, LIMIT, 1.0),
    "patience": SearchOptions(2, LIMIT, 0.6, patience=1.0),
    "coverage": SearchOptions(2, LIMIT, 0.6, coverage_penalty=0.2, sibling_penalty=0.1),
    "samples": SearchOptions(2, LIMIT, sampling=Sampling(7, 1.0)),
    "copied caches": SearchOptions(12, LIMIT, 1.0),
}


def no_repetition(tokens_BWT, written, log_probs_BWV):
    """A processor of a user: `written` is one number, and so its sentences are not refilled."""
    before_BW1 = jax.lax.dynamic_index_in_dim(tokens_BWT, written - 1, axis=-1)
    return jax.numpy.where((written > 0) & (jax.numpy.arange(log_probs_BWV.shape[-1]) == before_BW1), -1e9, log_probs_BWV)


OPTIONS["processor"] = SearchOptions(2, LIMIT, 1.0, processors=(jax.tree_util.Partial(no_repetition),))
BANS = jax.tree_util.Partial(penalties.no_end_before, 2), jax.tree_util.Partial(penalties.no_repeated_ngram, 2)
OPTIONS["bans"] = SearchOptions(2, LIMIT, 1.0, processors=BANS)
OPTIONS["penalties"] = SearchOptions(2, LIMIT, 1.0, processors=(*BANS, jax.tree_util.Partial(penalties.penalize_repetition, 1.5)))


@functools.cache
def model_of(rung):
    model = tiny.model_of({**tiny.VARIANTS, **tiny.RECURRENT, "scanned": cfg.replace(tiny.SCANNED, remat="none")}[rung], TARGET_VOCAB)
    return model, tiny.params_of(model, 3)


def groups_of(options, rules=False):
    """Return groups whose sentences have numbers from 100 on; the last one has padding rows."""
    random, numbers = np.random.default_rng(0), itertools.count(100)
    for count, width, longest in zip(COUNTS, WIDTHS, LONGEST, strict=True):
        tokens = random.integers(3, 9, (ROWS, width), np.int32)
        tokens[:, longest:] = 0
        tokens[:, 1:][np.arange(1, width) > random.integers(1, width, (ROWS, 1))] = 0
        batch = {"encoder_input_tokens": tokens}
        if rules:
            batch |= {"required": random.integers(3, 6, (ROWS, 1, 1, 2), np.int32), "prefix": random.integers(3, 9, (ROWS, 2), np.int32)}
        limits = random.integers(6 if rules else 1, LIMIT + 1, ROWS).astype(np.int32)
        limits[count:] = 1
        yield Group(options, batch, limits, list(itertools.islice(numbers, count)))


OUTGROWN, FEW_OUTGROWN = 0, 8  # what the caches have room for besides the source and the prefix
QUICK = [
    ("pre", "beam", OUTGROWN),
    ("pre", "penalties", OUTGROWN),
    ("pre", "samples", FEW_OUTGROWN),
    ("pre", "rules", FEW_OUTGROWN),
    ("pre", "coverage", FEW_OUTGROWN),
    ("luong", "patience", OUTGROWN),
]
RUNGS = "rotary", "scanned", "bahdanau", "cho", "gnmt", "luong", "luong_concat", "luong_location"
ALL = [*itertools.product(RUNGS, ("beam", "patience")), ("luong", "samples"), *(("pre", kind) for kind in (*OPTIONS, "rules"))]
SLOW = [(*case, margin) for case in ALL for margin in (OUTGROWN, FEW_OUTGROWN) if (*case, margin) not in QUICK]


@pytest.mark.parametrize(("rung", "kind", "margin"), [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)])
def test_a_refilled_search_finds_what_whole_batches_find(monkeypatch, rung, kind, margin):
    monkeypatch.setattr(programs, "FEWEST_SENTENCES", 2)
    monkeypatch.setattr(programs, "MARGIN", margin)
    (model, params), options = model_of(rung), OPTIONS["patience" if kind == "rules" else kind]
    groups = list(groups_of(options, kind == "rules"))
    found = sorted(StagedSearch(model).each(params, groups), key=lambda each: each[0])
    assert [number for number, _ in found] == [number for group in groups for number in group.numbers]
    whole = jax.jit(functools.partial(search, model))
    expected = [jax.device_get(whole(group.options, params, group.batch, group.limits_B)) for group in groups]
    rows = ((each, row) for each, count in zip(expected, COUNTS, strict=True) for row in range(count))
    sentences = (jax.tree.map(lambda x, row=row: x[row], each) for each, row in rows)
    for (_, one), other in zip(found, sentences, strict=True):
        np.testing.assert_array_equal(one.tokens_BWT, other.tokens_BWT[:, : one.tokens_BWT.shape[1]])
        assert not other.tokens_BWT[:, one.tokens_BWT.shape[1] :].any()
        np.testing.assert_allclose(one.scores_BW, other.scores_BW, atol=1e-5)
        np.testing.assert_allclose(one.log_probs_BW, other.log_probs_BW, atol=1e-5)


def test_places_are_refilled_and_those_of_a_users_model_are_not(monkeypatch):
    (model, params), groups = model_of("pre"), list(groups_of(OPTIONS["beam"]))

    def counts():
        made, find = [], StagedSearch(model)
        take = find._traced.take
        find._traced.take = lambda state, *args, **static: made.append(int(args[5]) if state else 0) or take(state, *args, **static)
        list(find.each(params, groups))
        return made

    # All but the sentences that each search begins with, and those of the group that is narrower than the one before.
    assert sum(counts()) >= sum(COUNTS) - ROWS * (programs.IN_FLIGHT + 1)
    monkeypatch.setattr(type(model), "can_refill", False)
    assert sum(counts()) == 0


@pytest.mark.parametrize("searches", [1, 3])
def test_any_number_of_searches_finds_all_sentences(monkeypatch, searches):
    (model, params), options = model_of("pre"), OPTIONS["patience"]
    expected = {number: found.tokens_BWT for number, found in StagedSearch(model).each(params, groups_of(options))}
    monkeypatch.setattr(programs, "IN_FLIGHT", searches)
    tiny.assert_same({number: found.tokens_BWT for number, found in StagedSearch(model).each(params, groups_of(options))}, expected)


def test_kept_programs_refill_too(monkeypatch, tmp_path):
    monkeypatch.setattr(kept, "_folder", tmp_path)
    (model, params), groups = model_of("pre"), list(groups_of(OPTIONS["beam"]))
    expected = list(StagedSearch(model).each(params, groups))
    traced = list(StagedSearch(model, ("a model",)).each(params, groups))
    read = list(StagedSearch(DeferredModel(lambda: pytest.fail("the model is used")), ("a model",)).each(params, groups))
    for found in (traced, read):
        for one, other in zip(*(sorted(each, key=lambda each: each[0]) for each in (found, expected)), strict=True):
            tiny.assert_same(one, other)


def test_an_error_in_the_sentences_ends_the_search():
    (model, params), groups = model_of("pre"), list(groups_of(OPTIONS["greedy"]))

    def broken():
        yield from groups[:3]
        raise ValueError("line 4")

    with pytest.raises(ValueError, match="line 4"):
        list(StagedSearch(model).each(params, broken()))


def test_a_search_that_is_given_up_takes_no_more_sentences():
    (model, params), groups = model_of("pre"), list(groups_of(OPTIONS["greedy"]))
    taken, threads = [], {*threading.enumerate()}
    found = StagedSearch(model).each(params, (taken.append(group) or group for group in itertools.cycle(groups[:1])))
    next(found)
    found.close()
    before = len(taken)
    time.sleep(0.5)
    assert len(taken) == before and {*threading.enumerate()} <= threads
