"""A search in two programs finds what a search in one finds, however many sentences the last one finishes."""

import functools
import itertools

import jax
import numpy as np
import pytest
import tiny

from jaxnmt.decoding import programs
from jaxnmt.decoding.programs import StagedSearch
from jaxnmt.decoding.search import SearchOptions, search
from jaxnmt.lab.laws.subject import TARGET_VOCAB

ROWS, LIMIT = 16, 13


@functools.cache
def searched(rung, beam):
    """Return (model, arguments of a search, what one program finds), which do not depend on the margin."""
    model = tiny.model_of({**tiny.VARIANTS, **tiny.RECURRENT}[rung], TARGET_VOCAB)
    params, random = tiny.params_of(model, 3), np.random.default_rng(0)
    batch = {"encoder_input_tokens": random.integers(3, 9, (ROWS, 3), np.int32)}
    limits = random.permutation(np.resize(np.arange(1, LIMIT + 1), ROWS)).astype(np.int32)
    arguments = SearchOptions(beam, LIMIT, 1.0), params, batch, limits
    return model, arguments, jax.device_get(jax.jit(functools.partial(search, model))(*arguments))


SLOW = [("luong", 1), *itertools.product(("rotary", "bahdanau", "cho"), (1, 3))]


@pytest.mark.parametrize(
    ("rung", "beam"), [("pre", 1), ("pre", 3), ("luong", 3), *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)]
)
@pytest.mark.parametrize("margin", [0, 8])  # caches full with most sentences open; or a quarter of them open
def test_stages_change_nothing(monkeypatch, rung, beam, margin):
    monkeypatch.setattr(programs, "FEWEST_SENTENCES", 4)
    monkeypatch.setattr(programs, "MARGIN", margin)
    model, arguments, expected = searched(rung, beam)
    find = StagedSearch(model)
    finished, rest = [], find._traced._rest
    find._traced._rest = lambda *arguments, **static: finished.append({*arguments[-1]}) or rest(*arguments, **static)
    found = find(*arguments)
    np.testing.assert_array_equal(found.tokens_BWT, expected.tokens_BWT)
    np.testing.assert_allclose(found.scores_BW, expected.scores_BW, atol=1e-5)
    np.testing.assert_allclose(found.log_probs_BW, expected.log_probs_BW, atol=1e-5)
    assert all(len(rows) <= 4 for rows in finished) and len(finished) == (1 if margin else 3)


def test_a_group_is_begun_before_the_one_before_it_is_waited_for():
    events = []

    def begun():
        for number in range(3):
            events.append(f"begin {number}")
            yield [number], lambda number=number: events.append(f"wait for {number}") or np.zeros(1)

    assert [number for number, _ in programs.in_turn(begun())] == [0, 1, 2]
    assert events == ["begin 0", "begin 1", "wait for 0", "begin 2", "wait for 1", "wait for 2"]
