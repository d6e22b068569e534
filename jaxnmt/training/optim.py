"""Update rules from optax, and the learning rate over steps."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from jaxnmt import config as cfg
from jaxnmt.parallel.axes import is_kernel, is_matrix, rows_and_columns


def make_optimizer(config: cfg.Optimizer, axes: Any) -> optax.GradientTransformation:
    """Return the update rule at learning rate 1; the step multiplies by the schedule's.

    Weight decay applies to matrices. Muon applies to kernels; embeddings, norms and biases go to Adam.

    Args:
        axes: letters of each parameter's axes (`Seq2Seq.axes`).
    """
    if not isinstance(config, cfg.Optimizer):
        return config.build()
    matrices = jax.tree_util.tree_map_with_path(is_matrix, axes)
    decay = {"weight_decay": config.weight_decay, "mask": matrices}
    match config.name:
        case "adam":
            return optax.adam(1.0, config.beta1, config.beta2, config.epsilon)
        case "adamw":
            return optax.adamw(1.0, config.beta1, config.beta2, config.epsilon, **decay)
        case "lion":
            return optax.lion(1.0, config.beta1, config.beta2, **decay)
        case "adafactor":
            return optax.adafactor(1.0, weight_decay_rate=config.weight_decay or None, weight_decay_mask=matrices)
        case "muon":
            dimensions = jax.tree_util.tree_map_with_path(_muon_dimensions, axes)
            betas = {"beta": config.beta1, "adam_b1": config.beta1, "adam_b2": config.beta2}
            muon = contrib.muon(1.0, **betas, muon_weight_dimension_numbers=dimensions)
            # Muon's own weight decay would miss the embeddings.
            return optax.chain(muon, optax.add_decayed_weights(-config.weight_decay, matrices))


def is_elementwise(config: cfg.Optimizer) -> bool:
    """Return whether an update rule changes each number by its own gradient alone, so that devices can share a matrix."""
    return isinstance(config, cfg.Optimizer) and config.name in ("adam", "adamw", "lion")


def _muon_dimensions(path: Any, axes: str) -> contrib.MuonDimensionNumbers | None:
    return contrib.MuonDimensionNumbers(*rows_and_columns(axes)) if is_kernel(path, axes) else None


def learning_rate(config: cfg.Schedule, total_steps: int, step: jax.Array) -> jax.Array:
    """Return the learning rate of step `step` (the first is 0), float32. The training step multiplies it by the plateau's cuts."""
    if not isinstance(config, cfg.Schedule):
        return jnp.asarray(config.rate(step, total_steps), jnp.float32)
    n = step.astype(jnp.float32) + 1
    warmup = jnp.float32(max(config.warmup_steps, 1))
    ramp = jnp.minimum(n / warmup, 1.0)
    if config.name == "noam":  # Vaswani et al. 2017, equation 3, scaled so that its peak is learning_rate
        return config.learning_rate * jnp.minimum(n / warmup, jnp.sqrt(warmup / n))
    if config.name in ("constant", "plateau"):
        return config.learning_rate * ramp
    done = jnp.clip((n - warmup) / jnp.maximum(total_steps - warmup, 1), 0.0, 1.0)
    share = 0.5 * (1 + jnp.cos(jnp.pi * done)) if config.name == "cosine" else 1 - done
    return config.learning_rate * ramp * (config.final_ratio + (1 - config.final_ratio) * share)
