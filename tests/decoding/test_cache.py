"""A decoder's key-value cache: a beam search reorders hypotheses, and moves no keys and values."""

import copy
import functools

import jax
import jax.extend as jex
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxnmt import config as cfg
from jaxnmt.decoding.search import SearchOptions, search
from jaxnmt.lab.laws.subject import batch_of, model_of, random_pairs, sources
from jaxnmt.models.cache import MAX_SHARED, Cache
from jaxnmt.models.seq2seq import Seq2Seq

VARIANTS = {
    "base": tiny.BASE,
    "rotary, three layers": cfg.replace(tiny.VARIANTS["rotary"], num_decoder_layers=3),
    "scanned": cfg.replace(tiny.BASE, num_decoder_layers=3, scan_layers=True),
}


class Gathered(Seq2Seq):
    """A model whose carry has keys and values as plain arrays, so that a search gathers them."""

    @classmethod
    def of(cls, model):
        copied = copy.copy(model)
        copied.__class__ = cls
        return copied

    def start(self, params, memory, max_length):
        carry = super().start(params, memory, max_length)
        return carry | {"cache": carry["cache"].layers}

    def step(self, params, memory, carry, token_B):
        logits_BV, carry = super().step(params, memory, carry | {"cache": Cache(carry["cache"])}, token_B)
        return logits_BV, carry | {"cache": carry["cache"].layers}


def found_by(variant, beam):
    model = model_of(VARIANTS[variant])
    params = jax.tree.map(lambda x: 3 * x, tiny.params_of(model))  # so that words depend on the words before
    batch = sources(tiny.as_arrays(batch_of(random_pairs(6), [[i] for i in range(6)], 12, 12)))
    limits = jnp.array([12, 9, 12, 3, 12, 1], jnp.int32)
    return [
        jax.jit(functools.partial(search, each, SearchOptions(beam, 12)))(params, batch, limits) for each in (model, Gathered.of(model))
    ]


@pytest.mark.parametrize("beam", [2, MAX_SHARED + 1, *(pytest.param(beam, marks=pytest.mark.slow) for beam in (1, 5))])
@pytest.mark.parametrize("variant", VARIANTS)
def test_hypotheses_that_share_a_cache_find_what_those_with_caches_of_their_own_do(variant, beam):
    shared, own = found_by(variant, beam)
    np.testing.assert_array_equal(shared.tokens_BWT, own.tokens_BWT)
    np.testing.assert_allclose(shared.scores_BW, own.scores_BW, rtol=1e-5)


def test_a_cache_that_does_not_follow_its_hypotheses_is_found(monkeypatch):
    monkeypatch.setattr(Cache, "reordered", lambda self, parents_NW: self)
    shared, own = found_by("base", 5)
    assert not np.allclose(shared.scores_BW, own.scores_BW, rtol=1e-3)


def gathered(jaxpr):
    """Shapes of all floats that a program and those within it gather."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "gather" and jnp.issubdtype(equation.outvars[0].aval.dtype, jnp.floating):
            yield equation.outvars[0].aval.shape
        for inner in jex.core.jaxprs_in_params(equation.params):
            yield from gathered(inner)


@pytest.mark.parametrize(("kind", "expected"), [(lambda model: model, 0), (Gathered.of, 2)], ids=["shared", "own"])
def test_a_search_gathers_no_keys_and_values(kind, expected):
    model = model_of(tiny.BASE)
    batch = {"encoder_input_tokens": jnp.ones((4, 8), jnp.int32)}
    made = jax.make_jaxpr(functools.partial(search, kind(model), SearchOptions(3, 8)))(model.shapes, batch, jnp.ones((4,), jnp.int32))
    assert len([shape for shape in gathered(made.jaxpr) if len(shape) == 4]) == expected  # those of the decoder's one layer
