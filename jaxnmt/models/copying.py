"""A copy switch for recurrent decoders: a word is generated from the vocabulary, or copied from the source (See et al. 2017).

Source and target have one vocabulary, so a source token's id is its target id, and unknown words need no vocabulary of their own.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxnmt.models.encoder_decoder import Batch
from jaxnmt.models.layers import DropoutKey
from jaxnmt.models.recurrent import Outputs, RecurrentEncoderDecoder, RecurrentMemory
from jaxnmt.parallel.sharding import constrain


class CopyingModule(RecurrentEncoderDecoder):
    """Predicts words by `mixture`. Its logits are log-probabilities, no product of `features` and a table, so it has no `features`.

    Attributes:
        copies: it knows tokens by their ids, so its vocabulary must not be numbered anew.
    """

    copies = True

    def decode(self, memory: RecurrentMemory, batch: Batch, noise: DropoutKey | None = None) -> jax.Array:
        """Return log-probabilities of every target position, (B, T, V)."""
        return self.predict(memory, self.read(memory, batch, noise))

    def predict(self, memory: RecurrentMemory, outputs: Outputs) -> jax.Array:
        """Return the next token's log-probabilities, (B, T, V), or (R, V) of rows of which each sentence has several (beams)."""
        logits, rows = self.logits(outputs.features), memory.states_BSD.shape[0]
        attention_BTS = outputs.attention.reshape(rows, -1, outputs.attention.shape[-1])
        log_p_BTV = mixture(logits.reshape(rows, -1, logits.shape[-1]), outputs.generate.reshape(rows, -1), attention_BTS, memory.tokens_BS)
        return constrain(log_p_BTV, "BTV", self.mesh).reshape(logits.shape)


def mixture(logits_BTV: jax.Array, generate_BT: jax.Array, attention_BTS: jax.Array, tokens_BS: jax.Array) -> jax.Array:
    """Return log(p softmax(logits) + (1 - p) copied), (B, T, V), at least float32 (See et al. 2017, equation 9).

    A token's `copied` is the sum of the attention on the source positions that hold it. Token 0, padding, is not in the
    normaliser: no target is padding.

    Args:
        generate_BT: the logit of p, the probability that a word is generated.
        tokens_BS: ids of the source's tokens, in the vocabulary of the logits.
    """
    dtype, is_padding_V = logits_BTV.dtype, jnp.arange(logits_BTV.shape[-1]) == 0
    generate_BT1 = generate_BT.astype(dtype)[..., None]
    log_z_BT1 = jax.nn.logsumexp(jnp.where(is_padding_V, -jnp.inf, logits_BTV), -1, keepdims=True)
    generated_BTV = jax.nn.log_sigmoid(generate_BT1) + logits_BTV - log_z_BT1
    nothing_TV = jnp.zeros(logits_BTV.shape[1:], dtype)
    copy = jax.vmap(lambda share_TS, tokens_S: nothing_TV.at[:, tokens_S].add(share_TS))
    copied_BTV = copy(jax.nn.sigmoid(-generate_BT1) * attention_BTS, tokens_BS)
    is_copied_BTV = copied_BTV > 0
    log_copied_BTV = jnp.log(jnp.where(is_copied_BTV, copied_BTV, 1.0))  # never of 0, whose gradient is infinite
    return jnp.where(is_copied_BTV, jnp.logaddexp(generated_BTV, log_copied_BTV), generated_BTV)
