"""Law 8: the same model in different layouts has the same losses and gradients."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnmt import config as cfg
from jaxnmt.lab.laws.subject import Subject, Verdict, batch_of, close, distance, does_not_apply, model_of, random_pairs
from jaxnmt.models.layers import DropoutKey
from jaxnmt.models.seq2seq import Seq2Seq, stack_layers, unscanned, unstack_layers
from jaxnmt.training.loss import batch_loss
from jaxnmt.training.state import TrainState
from jaxnmt.training.step import accumulate_gradient

PAIRS = random_pairs(7)
SINGLE = batch_of(PAIRS, [*([i] for i in range(7)), []], 9, 8)
PACKED = batch_of(PAIRS, [[3, 0, 5], [], [6, 1], [2, 4]], 24, 24, packed=True)


@functools.partial(jax.jit, static_argnums=(0, 3))
def gradient_of(model: Seq2Seq, params: Any, batch: dict[str, jax.Array], noisy: bool):
    """Return the gradient of a batch's loss, and the loss sums."""
    noise = DropoutKey.of(3, jnp.int32(5), jnp.arange(batch["decoder_target_tokens"].shape[0])) if noisy else None

    def loss(params):
        sums = batch_loss(model, params, batch, noise, 0.1)
        return sums.loss, sums

    return jax.grad(loss, has_aux=True)(params)


def scanned(subject: Subject) -> Verdict:
    """Compare scanned with unrolled layers, with dropout."""
    if not hasattr(subject.config, "scan_layers"):
        return does_not_apply(f"the layers of a {type(subject.config).__name__} are not scanned")
    loop = model_of(cfg.replace(subject.config, scan_layers=True))
    found, sums = gradient_of(loop, jax.jit(stack_layers)(subject.flat_params), SINGLE, True)
    expected = gradient_of(model_of(unscanned(subject.config)), subject.flat_params, SINGLE, True)
    return close(distance((jax.jit(unstack_layers)(found), sums), expected))


def packed(subject: Subject) -> Verdict:
    """Compare several pairs in a row with one pair in a row."""
    if not getattr(subject.config, "packs", False):
        return does_not_apply(f"a {type(subject.config).__name__} reads one pair a row")
    return close(
        distance(gradient_of(subject.model, subject.params, PACKED, False), gradient_of(subject.model, subject.params, SINGLE, False))
    )


def accumulated(subject: Subject) -> Verdict:
    """Compare a batch in two parts with the whole batch, with dropout."""
    state = TrainState(np.int32(2), subject.params, (), None, np.float32(1), np.int32(0))
    whole, parts = (
        jax.jit(functools.partial(accumulate_gradient, subject.model, cfg.Training(accumulation=n)))(
            state, jax.tree.map(jnp.asarray, SINGLE)
        )
        for n in (1, 2)
    )
    return close(distance(parts, whole))
