"""Update rules from optax, and the learning rate over steps."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from jaxnmt import config as cfg
from jaxnmt.parallel.sharding import path_name


def make_optimizer(config: cfg.Optimizer) -> optax.GradientTransformation:
    """The update rule at learning rate 1; the step multiplies by the schedule's."""
    if not isinstance(config, cfg.Optimizer):
        return config.build()
    decay = {"weight_decay": config.weight_decay, "mask": _decayed}
    match config.name:
        case "adam":
            return optax.adam(1.0, config.beta1, config.beta2, config.epsilon)
        case "adamw":
            return optax.adamw(1.0, config.beta1, config.beta2, config.epsilon, **decay)
        case "lion":
            return optax.lion(1.0, config.beta1, config.beta2, **decay)
        case "adafactor":
            return optax.adafactor(1.0, weight_decay_rate=config.weight_decay or None, weight_decay_mask=_decayed)
        case "muon":
            muon = contrib.muon(
                1.0, beta=config.beta1, adam_b1=config.beta1, adam_b2=config.beta2, muon_weight_dimension_numbers=_muon_dimensions
            )
            return optax.chain(muon, optax.add_decayed_weights(-config.weight_decay, _decayed))  # its own would miss the embeddings
    raise ValueError(config.name)


def _decayed(params):
    """Mark the matrices: norms, biases (some have several axes) and vectors are not decayed."""

    def is_matrix(path, x):
        name = path_name(path)
        return x.ndim - _stacked(name) >= 2 and not name.endswith(("bias", "scale"))

    return jax.tree_util.tree_map_with_path(is_matrix, params)


def _muon_dimensions(params):
    """Which axes of a kernel are a matrix's rows and columns; embeddings, norms and biases go to Adam."""

    def dimensions(path, x):
        name = path_name(path)
        if not name.endswith("kernel"):
            return None
        first = _stacked(name)
        if name.endswith(("/qkv/kernel", "/kv/kernel")) and x.ndim == first + 4:
            return contrib.MuonDimensionNumbers((first,), (first + 2, first + 3))
        if name.endswith("/out/kernel") and x.ndim == first + 3:
            return contrib.MuonDimensionNumbers((first, first + 1), (first + 2,))
        return contrib.MuonDimensionNumbers((first,), tuple(range(first + 1, x.ndim)))

    return jax.tree_util.tree_map_with_path(dimensions, params)


def _stacked(name: str) -> int:
    """Return the number of leading axes that count stacked layers: 1 in a scanned stack, else 0."""
    return int("/layers/" in name)


def learning_rate(config: cfg.Schedule, total_steps: int, step: jax.Array) -> jax.Array:
    """The learning rate of step `step` (the first is 0), float32. The plateau's cuts are multiplied in by the step itself."""
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
