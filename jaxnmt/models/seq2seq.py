"""What every model offers: plain functions of explicit pytrees, so that one loss and one search serve all of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnmt import config as cfg
from jaxnmt.models.layers import Noise

Batch = dict[str, jax.Array]
VOCABULARY_MULTIPLE = 128


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Memory:
    """What a decoder reads of the source: one row a sentence (packed: a row), never repeated over beams.

    Attributes:
        states_BSD: encoder states.
        segments_BS: int32, 0 where there is padding.
        keys_values: for each decoder layer its cross-attention (keys, values), (B, S, H, K) each; or None.
    """

    states_BSD: jax.Array
    segments_BS: jax.Array
    keys_values: Any


class Seq2Seq:
    """A linen module with methods `encode`, `decode`, `start` and `step`, as functions of its parameters.

    A module may also offer `features` and `output_table`, whose product are its logits; the loss then never
    holds all logits at once.
    """

    def __init__(self, module: nn.Module, target_vocab: int):
        self.module, self.target_vocab = module, target_vocab
        self.has_features = hasattr(module, "features") and hasattr(module, "output_table")

    def init(self, key: jax.Array):
        """Fresh float32 parameters."""
        tokens = jnp.ones((1, 4), jnp.int32)
        batch = {"encoder_input_tokens": tokens, "decoder_input_tokens": tokens}
        return self.module.init(key, batch, method=lambda module, batch: module.decode(module.encode(batch), batch))["params"]

    def _apply(self, params, method, *args):
        return self.module.apply({"params": params}, *args, method=method)

    def encode(self, params, batch: Batch, noise: Noise | None = None):
        """`encoder_input_tokens` (B, S) -> the memory."""
        return self._apply(params, "encode", batch, noise)

    def decode(self, params, memory, batch: Batch, noise: Noise | None = None) -> jax.Array:
        """`decoder_input_tokens` (B, T) -> logits (B, T, V), float32."""
        return self._apply(params, "decode", memory, batch, noise)

    def features(self, params, memory, batch: Batch, noise: Noise | None = None) -> jax.Array:
        """What the output layer reads, (B, T, D)."""
        return self._apply(params, "features", memory, batch, noise)

    def output_table(self, params) -> jax.Array:
        """The output layer's matrix (V, D)."""
        return self._apply(params, "output_table")

    def start(self, params, memory, max_length: int):
        """The carry before the first token; every leaf leads with one row a sentence."""
        return self.module.apply({"params": params}, memory, max_length, method="start")

    def step(self, params, memory, carry, token_B: jax.Array):
        """-> logits (B, V) of the next token, and the carry."""
        return self._apply(params, "step", memory, carry, token_B)

    def attention(self, params, batch: Batch):
        """Every attention weight of a teacher-forced pass, as a tree of (B, H, T, S) by module."""
        both = lambda module, batch: module.decode(module.encode(batch), batch)  # noqa: E731
        return self.module.apply({"params": params}, batch, method=both, mutable=["intermediates"])[1]["intermediates"]


def padded(vocab_size: int) -> int:
    """A vocabulary's size in the parameters: a multiple that every sensible mesh divides."""
    return -(-vocab_size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE


def build_model(config: cfg.Model, source_vocab: int, target_vocab: int) -> Seq2Seq:
    """The model that a configuration describes, for vocabularies of these sizes."""
    from jaxnmt.models.transformer import TransformerModule

    return Seq2Seq(TransformerModule(config, padded(source_vocab), padded(target_vocab), target_vocab), target_vocab)
