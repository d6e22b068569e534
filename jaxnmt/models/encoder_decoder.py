"""What encoder–decoders have in common: embeddings, the output layer, and what a decoder reads of the source."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxnmt.config import Translation
from jaxnmt.models.blocks import Weight
from jaxnmt.models.layers import DropoutKey, Embedding, at_least_float32
from jaxnmt.models.pictures import Regions
from jaxnmt.parallel.axes import declare
from jaxnmt.parallel.sharding import constrain

Batch = dict[str, jax.Array]


class Memory(NamedTuple):
    """What a decoder reads of the source: one row for each sentence (packed: each row of sentences), never repeated over beams.

    Attributes:
        states_BSD: encoder states.
        segments_BS: int32, 0 at padding.
        keys_values: each decoder layer's cross-attention (keys, values), (B, H, K, S) each; of scanned layers (keys, values) with those of
            all, (B, L, H, K, S) each; or None.
    """

    states_BSD: jax.Array
    segments_BS: jax.Array
    keys_values: Any


class SourceStates(NamedTuple):
    """What an encoder makes of the source, whatever is predicted from it.

    Attributes:
        states_BSD: its top layer's states.
        segments_BS: above 0 for tokens.
        vector_BD: the encoder's own summary of all, its last state; None if it has none.
    """

    states_BSD: jax.Array
    segments_BS: jax.Array
    vector_BD: jax.Array | None


class EncoderDecoder(nn.Module):
    """Embeddings, tied or not, and the output layer, for modules to derive from.

    Attributes:
        config: has `emb_dim`; `tie_embeddings`, `scale_embeddings`, `output_bias` and `dtype` are read if it has them (else "none", True,
            False and float32).
        source_size, target_size: rows of the embedding tables (padded vocabularies).
        target_vocab: how many target ids are tokens.
        mesh: that arrays lie on; None: one device.
        task: the task; `heads` implements it.
        reads_source: whether the decoder attends to an encoder.
        source_side: the submodules whose weights multiply source positions; all others multiply target positions. For counting FLOPs.
        attention_module: name of the submodules that sow their attention to the source as `attention` (B, H, T, S).
        uses_kernels_once: see `Seq2Seq.cast_kernels`.
    """

    config: Any
    source_size: int
    target_size: int
    target_vocab: int
    mesh: Mesh | None = dataclasses.field(default=None, kw_only=True)
    task: Any = dataclasses.field(default=Translation(), kw_only=True)

    reads_source: ClassVar[bool] = True
    source_side: ClassVar[tuple[str, ...]] = ("encoder", "regions", "cross_attention/kv")
    attention_module: ClassVar[str] = "cross_attention"
    uses_kernels_once: ClassVar[bool] = False

    def make_embeddings(self, features_width: int) -> None:
        """Make the embedding tables, in `setup`; `features_width` is the width that the output layer reads."""
        width, tie = self.config.emb_dim, getattr(self.config, "tie_embeddings", "none")
        table = functools.partial(Embedding, width=width, mesh=self.mesh, is_scaled=getattr(self.config, "scale_embeddings", True))
        if tie == "all":
            self.shared_embedding = table(self.target_size, is_output=True)
            self.embed_source = self.embed_target = self.shared_embedding
        else:
            self.source_embedding = table(self.source_size)
            self.target_embedding = table(self.target_size, is_output=tie != "none")
            self.embed_source, self.embed_target = self.source_embedding, self.target_embedding
        if tie == "none":
            self.output_embedding = Embedding(self.target_size, features_width, is_output=True, mesh=self.mesh)
        self.embed_output = self.output_embedding if tie == "none" else self.embed_target
        if has_output_bias(self):
            self.output_bias_V = self.param("output_bias", declare(nn.initializers.zeros, "V"), (self.target_size,))
        self.dtype = jnp.dtype(getattr(self.config, "dtype", "float32"))
        if self.task.vectors:
            self.regions = Regions(self.task, self.states_width, self.dtype, self.mesh)

    @property
    def states_width(self) -> int:
        """Width of the encoder's states."""
        return self.config.emb_dim

    def read_regions(self, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Return a vector for each region of each row's picture, (B, S, D), and int32 (B, S), 0 in rows without a picture."""
        x_BSD = self.regions(batch["encoder_input_vectors"])
        has_picture_B1 = (batch["encoder_input_tokens"][:, :1] > 0).astype(jnp.int32)
        return x_BSD, jnp.broadcast_to(has_picture_B1, x_BSD.shape[:2])

    def output_table(self) -> jax.Array:
        """Return the output layer's matrix (V, D)."""
        return self.embed_output.table

    def output_bias(self) -> jax.Array | None:
        """Return the bias of the logits, (V,), or None."""
        return self.output_bias_V if has_output_bias(self) else None

    def logits(self, features: jax.Array) -> jax.Array:
        """Return float32 logits over the padded vocabulary; ids that are no tokens have minus infinity."""
        table_VD = self.output_table().astype(features.dtype)
        logits = constrain(project(features, table_VD), "BTV" if features.ndim == 3 else "BV", self.mesh)
        if (bias_V := self.output_bias()) is not None:
            logits += bias_V
        return jnp.where(jnp.arange(self.target_size) < self.target_vocab, logits, -jnp.inf)

    def decode(self, memory: Any, batch: Batch, noise: DropoutKey | None = None) -> jax.Array:
        """Return logits of every target position, (B, T, V); for modules that have `features`."""
        return self.logits(self.features(memory, batch, noise))


def project(features: jax.Array, table_VD: Any) -> jax.Array:
    """Return features (..., D) times the output layer's matrix, or its `Int8` or `Blocks`: (..., V), at least float32."""
    dtype = at_least_float32(features.dtype)
    if isinstance(table_VD, Weight):
        return features.astype(dtype) @ table_VD.T
    return jnp.einsum("...D,VD->...V", features, table_VD, preferred_element_type=dtype)


def has_output_bias(module: nn.Module) -> bool:
    """Return whether a module's settings ask for a bias of the logits."""
    return getattr(getattr(module, "config", None), "output_bias", False)
