"""Keep continuations of different hypotheses: `decoding.sibling_penalty` (Li, Monroe and Jurafsky 2016, section 3).

Siblings are the continuations of one hypothesis. When a step's best continuations are chosen, each loses gamma times its rank among its
siblings, the likeliest having rank 0. Log-probabilities, by which translations are scored, stay as they are.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxnmt.data.special_tokens import EOS


def best(gamma: float | jax.Array, values_BN: jax.Array, tokens_BN: jax.Array, family: int, beam_size: int) -> tuple[jax.Array, jax.Array]:
    """Return the 2 x `beam_size` best continuations under the penalty, best first: their values and their places, (B, 2 x `beam_size`).

    The values are without the penalty, and -inf for the live ones beyond the beam's places. So the best live ones by value are those that
    the penalty has chosen.

    Args:
        gamma: the penalty.
        values_BN: log-probabilities of continuations. Siblings stand together, `family` of them, best first.
        tokens_BN: the last token of each.
        family: how many siblings stand together.
        beam_size: W.
    """
    penalized_BN = values_BN - gamma * (jnp.arange(values_BN.shape[1]) % family)
    _, places_BC = jax.lax.top_k(penalized_BN, 2 * beam_size)
    values_BC, tokens_BC = (jnp.take_along_axis(x, places_BC, 1) for x in (values_BN, tokens_BN))
    is_live_BC = tokens_BC != EOS
    return jnp.where(is_live_BC & (jnp.cumsum(is_live_BC, 1) > beam_size), -jnp.inf, values_BC), places_BC
