"""One optimizer step, and one evaluation step: pure functions, compiled by the loop."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxnmt import config as cfg
from jaxnmt.models.layers import DropoutKey
from jaxnmt.models.seq2seq import Batch, Seq2Seq
from jaxnmt.training.loss import LossSums, batch_loss
from jaxnmt.training.optim import learning_rate
from jaxnmt.training.state import TrainState, cast_like, widen


class StepMetrics(NamedTuple):
    """Scalars of one step: sums and counts, never means."""

    sums: LossSums
    source_tokens: jax.Array
    gradient_norm: jax.Array
    learning_rate: jax.Array
    finite: jax.Array
    bad_steps: jax.Array


def train_step(
    model: Seq2Seq, optimizer: optax.GradientTransformation, config: cfg.Experiment, state: TrainState, batch: Batch
) -> tuple[TrainState, StepMetrics]:
    """Take one optimizer step on a batch's mean token loss; if the gradient is not finite, change only counters.

    Parameters, optimizer state and EMA keep their dtypes.
    """
    gradient, sums = accumulate_gradient(model, config.training, state, batch)
    gradient = widen(gradient)
    norm = optax.tree.norm(gradient)
    finite = jnp.isfinite(norm)
    rate = learning_rate(config.schedule, config.training.steps, state.step) * state.lr_scale
    kept = (state.params, state.opt_state, state.ema)
    # A branch, not a choice between two values for each number: XLA then updates the donated arrays where they lie.
    params, opt_state, ema = jax.lax.cond(finite, lambda: _update(optimizer, config, state, gradient, norm, rate), lambda: kept)
    bad_steps = jnp.where(finite, 0, state.bad_steps + 1)
    source_tokens = (batch["encoder_input_tokens"] > 0).sum()
    return (
        TrainState(state.step + 1, params, opt_state, ema, state.lr_scale, bad_steps),
        StepMetrics(sums, source_tokens, norm, rate, finite, bad_steps),
    )


def _update(optimizer: optax.GradientTransformation, config: cfg.Experiment, state: TrainState, gradient, norm, rate):
    """Clip the gradient, apply the optimizer update and update the EMA.

    Args:
        gradient: float32, or wider.
        norm: its global norm.
        rate: learning rate.

    Returns:
        (params, opt_state, ema), each array with the dtype that it has in `state`.
    """
    if clip_norm := getattr(config.optimizer, "clip_norm", 0.0):  # a user's own optimizer may clip in its transformation
        gradient = jax.tree.map(lambda g: g * jnp.minimum(1.0, clip_norm / (norm + 1e-9)), gradient)
    updates, opt_state = optimizer.update(gradient, state.opt_state, widen(state.params))
    params = optax.apply_updates(state.params, jax.tree.map(lambda u: rate * u, updates))
    ema = state.ema
    if ema is not None:  # it starts as a plain mean, so that the first parameters are soon forgotten
        decay = jnp.minimum(config.training.ema_decay, (1.0 + state.step) / (10.0 + state.step))
        ema = cast_like(ema, jax.tree.map(lambda a, p: a + (1 - decay) * (p - a), ema, params))
    return params, cast_like(state.opt_state, opt_state), ema


def accumulate_gradient(model: Seq2Seq, config: cfg.Training, state: TrainState, batch: Batch):
    """Return the gradient of the batch's mean token loss, and the loss sums, computed in `accumulation` parts.

    Part j holds rows j, j + parts, j + 2 parts, ...: an equal number of each device's rows. A row's dropout depends on its index in the
    whole batch.
    """
    parts, rows = config.accumulation, batch["decoder_target_tokens"].shape[0]
    tokens = jnp.maximum(batch["decoder_loss_weights"].sum(), 1.0)

    def part_loss(params, part, rows_B):
        noise = DropoutKey.of(config.seed, state.step, rows_B)
        sums = batch_loss(model, params, part, noise, config.label_smoothing)
        return sums.loss / tokens, sums

    gradient_of = jax.grad(part_loss, has_aux=True)
    if parts == 1:
        return gradient_of(state.params, batch, jnp.arange(rows))
    split = lambda x: jnp.moveaxis(x.reshape(rows // parts, parts, *x.shape[1:]), 1, 0)  # noqa: E731

    def body(carry, part):
        return jax.tree.map(jnp.add, carry, gradient_of(state.params, *part)), None

    zeros = (jax.tree.map(jnp.zeros_like, widen(state.params)), LossSums(*(jnp.float32(0),) * 3))
    return jax.lax.scan(body, zeros, (jax.tree.map(split, batch), split(jnp.arange(rows))))[0]


def evaluation_step(model: Seq2Seq, label_smoothing: float, params, batch: Batch) -> LossSums:
    """Return the loss of a batch without dropout."""
    return batch_loss(model, params, batch, None, label_smoothing)
