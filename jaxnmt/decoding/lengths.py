"""How a score weighs a translation's length: `decoding.length_normalization`."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def score(kind: str, log_prob: jax.Array, length: jax.Array, alpha: float | jax.Array) -> jax.Array:
    """Return the score of a hypothesis.

    It never falls with the log-probability, and with the length it never falls for alpha >= 0 and never rises for alpha <= 0. The
    search's bound relies on it: see `best_length`.

    Args:
        kind: `gnmt`: divided by ((5 + length) / 6) ** alpha (Wu et al. 2016, equation 14);
            `average`: divided by length ** alpha;
            `reward`: plus alpha x (length - 1).
        log_prob: at most 0, EOS included.
        length: in tokens, EOS included.
        alpha: `length_penalty`; 0: the score is the log-probability.
    """
    if kind == "average":
        return log_prob / (1.0 * length) ** alpha
    if kind == "reward":
        return log_prob + alpha * (length - 1.0)
    return log_prob / ((5.0 + length) / 6.0) ** alpha


def best_length(next_length: jax.Array, limits_B: jax.Array, alpha: float | jax.Array) -> jax.Array:
    """Return the length at which a live hypothesis would have the highest score if it lost no probability: int32 (B,).

    It ends with the next token at the earliest and at its sentence's limit at the latest.
    """
    return jnp.where(jnp.asarray(alpha) >= 0, limits_B, next_length)
