"""A model overfits a handful of pairs to the letter, and learns to reverse a sequence that it has not seen."""

import functools

import jax
import numpy as np
import pytest
import tiny

from jaxnmt.config import Experiment, replace
from jaxnmt.decoding.search import EOS, PAD, SearchOptions, search
from jaxnmt.training.optim import make_optimizer
from jaxnmt.training.state import initial_state
from jaxnmt.training.step import train_step


def train(model, config, batches):
    optimizer = make_optimizer(config.optimizer)
    state = jax.jit(lambda: initial_state(model, optimizer, config.training))()
    step = jax.jit(functools.partial(train_step, model, optimizer, config), donate_argnums=0)
    for batch in batches:
        state, _ = step(state, batch)
    return state.params


def translations(model, params, batch, limit):
    rows = len(batch["encoder_input_tokens"])
    run = jax.jit(functools.partial(search, model), static_argnums=0)
    found = run(SearchOptions(1, limit), params, {"encoder_input_tokens": batch["encoder_input_tokens"]}, np.full(rows, limit, np.int32))
    return [[int(token) for token in row if token not in (PAD, EOS)] for row in np.asarray(found.tokens_BKL[:, 0])]


def config_of(model, **changes):
    quick = {"schedule.name": "constant", "schedule.learning_rate": 0.01, "schedule.warmup_steps": 20, "training.label_smoothing": 0.0}
    return replace(Experiment(model=model), **(quick | changes))


@pytest.mark.parametrize("name", tiny.VARIANTS)
def test_a_handful_of_pairs_is_learnt_to_the_letter(name):
    model = tiny.model_of(tiny.VARIANTS[name])
    pairs = tiny.random_pairs(6, seed=9)
    batch = tiny.batch_of(pairs, [[i] for i in range(6)], 8, 8)
    params = train(model, config_of(tiny.VARIANTS[name]), [batch] * 100)
    assert translations(model, params, batch, 10) == [target for _, target in pairs]


def test_reversal_is_learnt():
    config = replace(tiny.BASE, emb_dim=32, num_heads=4, mlp_dim=64)
    model = tiny.model_of(config)
    random = np.random.default_rng(0)

    def batch():
        pairs = [(ids := random.integers(4, 10, random.integers(1, 5)).tolist(), ids[::-1]) for _ in range(32)]
        return pairs, tiny.batch_of(pairs, [[i] for i in range(32)], 5, 5)

    params = train(model, config_of(config, **{"schedule.learning_rate": 0.005}), (batch()[1] for _ in range(400)))
    pairs, unseen = batch()
    found = translations(model, params, unseen, 8)
    assert np.mean([f == target for f, (_, target) in zip(found, pairs, strict=True)]) > 0.9
