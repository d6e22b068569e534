"""The coverage penalty: by hand, every translation of a model with attention written down, and whatever the batch."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from decoding import test_ensemble
from decoding.test_search import words

from jaxnmt import config as cfg
from jaxnmt.config import Decoding, Experiment, checks
from jaxnmt.data.special_tokens import BOS, EOS, PAD
from jaxnmt.decoding import coverage
from jaxnmt.decoding.alignments import teacher_forced_attention
from jaxnmt.decoding.ensemble import Ensemble, EnsembleParams
from jaxnmt.decoding.options import search_options
from jaxnmt.decoding.programs import StagedSearch
from jaxnmt.decoding.search import NEVER, SearchOptions, search
from jaxnmt.errors import UserError
from jaxnmt.lab.laws.subject import TARGET_VOCAB
from jaxnmt.models.seq2seq import build_model

VOCAB, LIMIT = 6, 4
EVERY = [[*body, EOS] for length in range(LIMIT) for body in itertools.product(range(3, VOCAB), repeat=length)]
RUNGS = {**tiny.VARIANTS, "deep": cfg.replace(tiny.BASE, num_decoder_layers=3), **tiny.RECURRENT}


def test_scores_by_hand():
    coverage_RS = jnp.array([[0.5, 0.25, 1.0], [2.0, 1.0, 1.5], [0.0, 1.0, 1.0]])
    found = coverage.score(0.2, coverage_RS)
    np.testing.assert_allclose(found[:2], [0.2 * math.log(0.125), 0.0], rtol=1e-6)
    assert NEVER < found[2] < -10  # without any attention on a word


def test_words_cost_and_the_end_and_padding_do_not():
    tokens = np.array([[5, 6, EOS, PAD], [5, EOS, PAD, PAD]])
    np.testing.assert_array_equal(coverage.start(tokens), [[0, 0, 1, 1], [0, 1, 1, 1]])
    np.testing.assert_array_equal(coverage.start(np.stack([tokens, tokens[::-1]], -1)), coverage.start(tokens))


def every_hypothesis(model, params, source_1S, beta, ensemble_source=None):
    """Return (score, tokens) of every translation, best first, from a teacher-forced pass over it."""
    inputs = np.zeros((len(EVERY), LIMIT), np.int32)
    for row, tokens in zip(inputs, EVERY, strict=True):
        row[: len(tokens)] = [BOS, *tokens[:-1]]
    targets = {"decoder_input_tokens": inputs}
    source = targets | {"encoder_input_tokens": np.repeat(source_1S if ensemble_source is None else ensemble_source, len(EVERY), 0)}
    read = targets | {"encoder_input_tokens": np.repeat(source_1S, len(EVERY), 0)}

    @jax.jit
    def compute(params, source, read):
        return model.decode(params, model.encode(params, source), source), teacher_forced_attention(model, params, read)

    logits, attention_NTS = (np.array(x, np.float64) for x in compute(params, source, read))
    logits = logits[..., :VOCAB]
    logits[..., [PAD, BOS]] = -np.inf
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    found = []
    for n, tokens in enumerate(EVERY):
        log_prob = sum(log_p[n, t, token] for t, token in enumerate(tokens))
        looked_S = attention_NTS[n, : len(tokens)].sum(0)
        penalty = sum(math.log(max(min(looked_S[s], 1.0), 1e-30)) for s, token in enumerate(source_1S[0]) if token not in (EOS, PAD))
        found.append((log_prob / ((5 + len(tokens)) / 6) + beta * penalty, tokens))
    return sorted(found, key=lambda pair: -pair[0])


def assert_exact(found, expected):
    np.testing.assert_allclose(found.scores_BW[0], [score for score, _ in expected], atol=1e-5)
    gaps = [1.0, *(a[0] - b[0] for a, b in itertools.pairwise(expected)), 1.0]
    for k, (_, tokens) in enumerate(expected):
        if min(gaps[k : k + 2]) > 1e-5:
            assert words(found.tokens_BWT[0, k]) == tokens


@pytest.mark.parametrize("rung", ["pre", "deep", "bahdanau", "luong", "luong_dot", pytest.param("luong_location", marks=pytest.mark.slow)])
def test_a_search_with_coverage_is_exact(rung):
    """`luong_dot` has no attention at all outside a window, and the second last of three layers counts in `deep`."""
    model = tiny.model_of(RUNGS[rung], VOCAB)
    params, source = tiny.params_of(model, 1), np.array([[3, 5, 4, EOS, PAD]], np.int32)
    expected = every_hypothesis(model, params, source, 0.7)
    assert [tokens for _, tokens in expected] != [tokens for _, tokens in every_hypothesis(model, params, source, 0.0)]
    find = jax.jit(functools.partial(search, model))
    limits = np.array([LIMIT], np.int32)
    assert_exact(find(SearchOptions(40, LIMIT, 1.0, coverage_penalty=0.7), params, {"encoder_input_tokens": source}, limits), expected)


def test_an_ensembles_coverage_is_its_first_members():
    names = ("transformer", "lstm")
    models, params = ([part[name] for name in names] for part in (test_ensemble.MODELS, test_ensemble.PARAMS))
    ensemble = Ensemble(models, "probability")
    shares = EnsembleParams(tuple(params), np.array([0.4, 0.6], np.float32))
    source_BSM = np.stack([[test_ensemble.SOURCES[name]] for name in names], -1).astype(np.int32)
    expected = every_hypothesis(ensemble, shares, source_BSM[..., 0], 0.7, source_BSM)
    find = jax.jit(functools.partial(search, ensemble))
    options, limits = SearchOptions(40, LIMIT, 1.0, coverage_penalty=0.7), np.array([LIMIT], np.int32)
    assert_exact(find(options, shares, {"encoder_input_tokens": source_BSM}, limits), expected)


@pytest.mark.parametrize("rung", [pytest.param("post", marks=pytest.mark.slow), "luong"])
def test_whatever_the_batch_the_padding_and_the_stage(rung):
    """And the search for one stops where no other can be the best: its best is that of the search for all."""
    model = tiny.model_of(RUNGS[rung], TARGET_VOCAB)
    params, (source, limits) = tiny.params_of(model, 3), tiny.some_sentences(70, 4)
    options = SearchOptions(3, 13, 1.0, n_best=1, coverage_penalty=0.5)
    find = jax.jit(functools.partial(search, model))
    staged = StagedSearch(model)(options, params, {"encoder_input_tokens": source}, limits)
    every = find(SearchOptions(3, 13, 1.0, n_best=3, coverage_penalty=0.5), params, {"encoder_input_tokens": source}, limits)
    np.testing.assert_array_equal(staged.tokens_BWT[:, 0], every.tokens_BWT[:, 0])
    np.testing.assert_allclose(staged.scores_BW[:, 0], every.scores_BW[:, 0], atol=1e-5)
    for rows, padding in ([11], 0), ([9, 4, 11], 3):
        few = find(options, params, {"encoder_input_tokens": np.pad(source[rows], ((0, 0), (0, padding)))}, limits[rows])
        np.testing.assert_array_equal(few.tokens_BWT[:, 0], staged.tokens_BWT[rows, 0])
        np.testing.assert_allclose(few.scores_BW[:, 0], staged.scores_BW[rows, 0], atol=1e-5)


def test_beta_is_an_argument_and_no_beta_reads_no_attention():
    model = tiny.model_of(tiny.BASE, VOCAB)
    params, batch, limits = tiny.params_of(model), {"encoder_input_tokens": np.array([[3, EOS]], np.int32)}, np.array([4], np.int32)
    find = jax.jit(functools.partial(search, model))
    for beta in (0.2, 1.5):
        find(search_options(Decoding(coverage_penalty=beta), 2), params, batch, limits)
    assert find._cache_size() == 1
    assert search_options(Decoding(), 2).coverage_penalty is None
    fixed = build_model(cfg.Recurrent(emb_dim=8, hidden_dim=8, context="fixed"), VOCAB, VOCAB)
    find = jax.jit(functools.partial(search, fixed))
    find(SearchOptions(2, 4), tiny.params_of(fixed), batch, limits)
    with pytest.raises(UserError, match=r"decoding\.coverage_penalty .* need attention"):
        find(SearchOptions(2, 4, coverage_penalty=0.2), tiny.params_of(fixed), batch, limits)


def test_what_does_not_go_with_it_is_refused_first():
    with pytest.raises(UserError, match=r"decoding\.coverage_penalty needs attention .* model\.context fixed"):
        checks.validate(
            Experiment(model=tiny.RECURRENT["cho"], batching=cfg.Batching(layout="buckets"), decoding=Decoding(coverage_penalty=1))
        )
    assert "decoding.temperature" in next(Decoding(coverage_penalty=0.2, temperature=1.0).problems())
