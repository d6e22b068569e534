"""Penalties and bans: functions that lower the log-probabilities of the next token.

Each is a logit processor after its first argument, a number (`jax.tree_util.Partial` binds it as an argument of the compiled search):
tokens_BWT are the tokens so far, and the first `written` of them exist. The remaining probabilities are not normalised again. So a score is
the log-probability under the model, except with `penalize_repetition`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jaxnmt import config as cfg
from jaxnmt.data.special_tokens import EOS, UNK


def of(decoding: cfg.Decoding) -> tuple[Partial, ...]:
    """Return the logit processors of the settings that are set."""
    return (
        *([Partial(no_end_before, decoding.min_length)] if decoding.min_length else []),
        *([Partial(no_unknown_word)] if decoding.unk == "forbid" else []),
        *([Partial(no_repeated_ngram, decoding.no_repeat_ngram_size)] if decoding.no_repeat_ngram_size else []),
        *([Partial(penalize_repetition, float(decoding.repetition_penalty))] if decoding.repetition_penalty != 1 else []),
    )


def no_end_before(min_length: int | jax.Array, tokens_BWT: jax.Array, written: jax.Array, log_probs_BWV: jax.Array) -> jax.Array:
    """Forbid EOS before `min_length` other tokens."""
    is_end_V = jnp.arange(log_probs_BWV.shape[-1]) == EOS
    return jnp.where(is_end_V & (written < min_length), -jnp.inf, log_probs_BWV)


def no_unknown_word(tokens_BWT: jax.Array, written: jax.Array, log_probs_BWV: jax.Array) -> jax.Array:
    """Forbid UNK."""
    return jnp.where(jnp.arange(log_probs_BWV.shape[-1]) == UNK, -jnp.inf, log_probs_BWV)


def no_repeated_ngram(n: int | jax.Array, tokens_BWT: jax.Array, written: jax.Array, log_probs_BWV: jax.Array) -> jax.Array:
    """Forbid each token that would repeat an n-gram of the hypothesis: one that has followed its last n - 1 tokens before."""
    place_T = jnp.arange(tokens_BWT.shape[-1])

    def compare(back, same_BWT):
        """The token `back` places before each place, and before the next one."""
        last_BW1 = jax.lax.dynamic_index_in_dim(tokens_BWT, written - back, axis=-1)
        return same_BWT & (jnp.roll(tokens_BWT, back, -1) == last_BW1)

    whole_BWT = jnp.broadcast_to((place_T >= n - 1) & (place_T < written), tokens_BWT.shape)
    same_BWT = jax.lax.fori_loop(1, n, compare, whole_BWT)
    return _lower(log_probs_BWV, tokens_BWT, jnp.where(same_BWT, -jnp.inf, jnp.inf))


BANS = no_end_before, no_unknown_word, no_repeated_ngram
"""Functions that only forbid tokens. They are given logits, since they need no normalised probabilities."""


def penalize_repetition(penalty: float | jax.Array, tokens_BWT: jax.Array, written: jax.Array, log_probs_BWV: jax.Array) -> jax.Array:
    """Multiply the log-probability of each token that the hypothesis already has by `penalty`, at least 1 (after Keskar et al. 2019)."""
    is_written_T = jnp.arange(tokens_BWT.shape[-1]) < written
    penalized_BWT = penalty * jnp.take_along_axis(log_probs_BWV, tokens_BWT, -1)
    return _lower(log_probs_BWV, tokens_BWT, jnp.where(is_written_T, penalized_BWT, jnp.inf))


OWN = *BANS, penalize_repetition
"""All processors that are not a user's."""


def _lower(log_probs_BWV: jax.Array, tokens_BWT: jax.Array, most_BWT: jax.Array) -> jax.Array:
    """Return the log-probabilities, with those of `tokens_BWT` limited to at most `most_BWT`."""
    B, W = tokens_BWT.shape[:2]
    return log_probs_BWV.at[jnp.arange(B)[:, None, None], jnp.arange(W)[:, None], tokens_BWT].min(most_BWT)
