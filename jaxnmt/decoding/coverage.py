"""How a score weighs the source words that a translation has looked at: `decoding.coverage_penalty` (Wu et al. 2016, equation 14).

The coverage of a source word is the sum of the attention on it over all predictions of a hypothesis, EOS included. Its attention is that of
word alignments (`models.seq2seq.source_attention`).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxnmt.data.special_tokens import EOS, PAD

_LEAST = 1e-30  # a word may get no attention at all, and its logarithm would be infinite


def start(source: jax.Array) -> jax.Array:
    """Return the coverage of each source position before the first prediction: float32 (B, S), 1 at EOS and padding, which costs nothing.

    Args:
        source: the tokens (B, S); of an ensemble's (B, S, M) the first member's count.
    """
    source_BS = source if source.ndim == 2 else source[..., 0]
    return ((source_BS == EOS) | (source_BS == PAD)).astype(jnp.float32)


def score(beta: float | jax.Array, coverage_RS: jax.Array) -> jax.Array:
    """Return what to add to the scores of hypotheses with this coverage: (R,), at most 0, so that the search's bound stays one."""
    return beta * jnp.log(jnp.clip(coverage_RS, _LEAST, 1.0)).sum(-1)
