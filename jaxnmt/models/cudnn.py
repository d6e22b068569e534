"""NVIDIA's fused LSTM over a whole sequence: parameters and results of `cells.RecurrentLayer`, with one kernel instead of a scan."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.experimental import rnn


def fits(kind: str, dtype) -> bool:
    """Return whether cuDNN can be used: for an LSTM in float32 on one GPU (it neither takes bfloat16 nor can be split over a mesh)."""
    return kind == "lstm" and dtype == jnp.float32 and jax.default_backend() == "gpu" and jax.device_count() == 1


def lstm(weights: dict[str, jax.Array], x_TBD: jax.Array, state, mask_TB1, reverse: bool):
    """Return h (T, B, U), zero where the mask is false, and the last state (h, c).

    Args:
        weights: of `RecurrentLayer.weights`; `input` has a row for each number of x.
        mask_TB1: true for words, which padding follows; None: every step counts.
    """
    steps, rows, inputs = x_TBD.shape
    width = weights["recurrent"].shape[0]
    length_B = jnp.full((rows,), steps, jnp.int32) if mask_TB1 is None else mask_TB1[..., 0].sum(0, dtype=jnp.int32)
    if reverse:
        x_TBD = _reversed(x_TBD, length_B)
    bias = weights["bias"]
    flat = jnp.concatenate([weights["input"].T.ravel(), weights["recurrent"].T.ravel(), bias, jnp.zeros_like(bias)])
    first_h, first_c = (x[None] for x in state)
    at_least_one = jnp.maximum(length_B, 1)  # cuDNN refuses empty sequences
    h_BTU, h, c = rnn.lstm(jnp.moveaxis(x_TBD, 1, 0), first_h, first_c, flat, at_least_one, inputs, width, 1, 0.0, False)
    some_B1 = (length_B > 0)[:, None]
    h_TBU = jnp.where((jnp.arange(steps)[:, None] < length_B)[..., None], jnp.moveaxis(h_BTU, 0, 1), 0)
    last = jnp.where(some_B1, h[0], state[0]), jnp.where(some_B1, c[0], state[1])
    return (_reversed(h_TBU, length_B) if reverse else h_TBU), last


def _reversed(x_TBD: jax.Array, length_B: jax.Array) -> jax.Array:
    """Reverse each sequence and leave its padding in place; its own inverse."""
    step_T1 = jnp.arange(x_TBD.shape[0])[:, None]
    return jnp.take_along_axis(x_TBD, jnp.where(step_T1 < length_B, length_B - 1 - step_T1, step_T1)[..., None], 0)
