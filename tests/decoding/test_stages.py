"""A search in stages finds what a search in one program finds, whichever sentences leave the batch and however often the caches grow."""

import functools

import jax
import numpy as np
import pytest
import tiny

from jaxnmt.decoding.search import SearchOptions, search
from jaxnmt.decoding.stages import StagedSearch
from jaxnmt.lab.laws.subject import TARGET_VOCAB

ROWS, LIMIT = 16, 13  # such a batch shrinks to 8 rows, and caches for 6 tokens grow to 13


@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("rung", ["pre", "rotary", "bahdanau", "luong", "cho"])
def test_stages_change_nothing(rung, beam):
    model = tiny.model_of({**tiny.VARIANTS, **tiny.RECURRENT}[rung], TARGET_VOCAB)
    params, random = tiny.params_of(model, 3), np.random.default_rng(0)
    batch = {"encoder_input_tokens": random.integers(3, 9, (ROWS, 3), np.int32)}
    limits = random.permutation(np.resize(np.arange(1, LIMIT + 1), ROWS)).astype(np.int32)
    options = SearchOptions(beam, LIMIT, 1.0)
    expected = jax.device_get(jax.jit(functools.partial(search, model))(options, params, batch, limits))
    find = StagedSearch(model)
    shapes = []
    step = find._advance
    find._advance = lambda options, params, memory, limits, beams, **more: (  # sees the sizes
        shapes.append((len(limits), options.max_length)) or step(options, params, memory, limits, beams, **more)
    )
    found = find(options, params, batch, limits)
    np.testing.assert_array_equal(found.tokens_BWT, expected.tokens_BWT)
    np.testing.assert_allclose(found.scores_BW, expected.scores_BW, atol=1e-5)
    np.testing.assert_allclose(found.log_probs_BW, expected.log_probs_BW, atol=1e-5)
    rows, rooms = zip(*shapes, strict=True)
    assert set(rows) == {16, 8} and set(rooms) == {6, 13} and len(shapes) <= 3
