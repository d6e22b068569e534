"""What every model offers: plain functions of explicit pytrees, so that one loss and one search serve all of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnmt import config as cfg
from jaxnmt import errors
from jaxnmt.models.layers import Embedding, Noise, at_least_float32
from jaxnmt.parallel.sharding import constrain

Batch = dict[str, jax.Array]
VOCABULARY_MULTIPLE = 128
FUNCTIONS = ("encode", "decode", "start", "step")


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


class EncoderDecoder(nn.Module):
    """What the shipped modules share: embeddings, tied or not, and the output layer.

    Of `config` it reads `emb_dim` and, where there are such fields, `tie_embeddings` (else none) and `dtype` (else float32). Vocabulary
    sizes are those of the parameters (padded); `target_vocab` is how many target ids are real.
    """

    config: Any
    source_size: int
    target_size: int
    target_vocab: int

    def make_embeddings(self, features_width: int) -> None:
        """To be called in `setup`; `features_width` is what the output layer reads."""
        width, tie = self.config.emb_dim, self.tie_embeddings
        if tie == "all":
            self.shared_embedding = Embedding(self.target_size, width)
            self.embed_source = self.embed_target = self.shared_embedding
        else:
            self.source_embedding, self.target_embedding = Embedding(self.source_size, width), Embedding(self.target_size, width)
            self.embed_source, self.embed_target = self.source_embedding, self.target_embedding
        if tie == "none":
            self.output_embedding = Embedding(self.target_size, features_width)
        self.dtype = jnp.dtype(getattr(self.config, "dtype", "float32"))

    @property
    def tie_embeddings(self) -> str:
        """Which embeddings share a matrix."""
        return getattr(self.config, "tie_embeddings", "none")

    def output_table(self) -> jax.Array:
        """The output layer's matrix (V, D)."""
        return (self.output_embedding if self.tie_embeddings == "none" else self.embed_target).table

    def logits(self, features: jax.Array) -> jax.Array:
        """Float32 logits over the padded vocabulary, ids that no token has at minus infinity."""
        table_VD = self.output_table().astype(features.dtype)
        logits = jnp.einsum("...D,VD->...V", features, table_VD, preferred_element_type=at_least_float32(features.dtype))
        logits = constrain(logits, "BTV" if features.ndim == 3 else "BV")
        return jnp.where(jnp.arange(self.target_size) < self.target_vocab, logits, -jnp.inf)

    def decode(self, memory: Any, batch: Batch, noise: Noise | None = None) -> jax.Array:
        """Logits of every target position, (B, T, V), where the module has `features`; one that has not decodes in its own way."""
        return self.logits(self.features(memory, batch, noise))


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
        return self.module.apply({"params": params}, batch, method=both, mutable=["intermediates"])[1].get("intermediates", {})


def padded(vocab_size: int) -> int:
    """A vocabulary's size in the parameters: a multiple that every sensible mesh divides."""
    return -(-vocab_size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE


def build_model(config: Any, source_vocab: int, target_vocab: int) -> Seq2Seq:
    """The model that a configuration describes, for vocabularies of these sizes.

    A configuration of the user's own has a method `build(source_size, target_size, target_vocab)` that returns the module; the first two
    are the sizes of its tables, ids from `target_vocab` on being no tokens.

    Raises:
        UserError: the module lacks one of the four functions.
    """
    from jaxnmt.models.recurrent import RecurrentModule
    from jaxnmt.models.transformer import TransformerModule

    sizes = padded(source_vocab), padded(target_vocab), target_vocab
    if hasattr(config, "build"):  # first: it may be a Transformer with a change
        module = config.build(*sizes)
    else:
        module = (TransformerModule if isinstance(config, cfg.Transformer) else RecurrentModule)(config, *sizes)
    if missing := [name for name in FUNCTIONS if not callable(getattr(module, name, None))]:
        raise errors.UserError(
            f"{type(config).__name__}.build returns a {type(module).__name__} without {' and '.join(missing)}; "
            f"a model has the methods {', '.join(FUNCTIONS)}"
        )
    return Seq2Seq(module, target_vocab)
