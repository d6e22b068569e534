"""What tasks other than translation make of our encoders and decoders: the same functions, for labels, hidden words and words alone.

A head is a class that stands before a model's module among the bases of a new one (`with_head`), so that what both have keeps its place in
the tree of parameters: an encoder that has read much can then be handed on.
"""

from __future__ import annotations

import dataclasses
import functools
import pkgutil
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnmt import errors
from jaxnmt.config import Task
from jaxnmt.models.encoder_decoder import Batch, EncoderDecoder, SourceStates, project
from jaxnmt.models.layers import DropoutKey, Embedding, Matrix, at_least_float32
from jaxnmt.models.seq2seq import padded
from jaxnmt.parallel.sharding import constrain

UNKNOWN, FIRST_TOKEN = 3, 4  # the ids of unknown words and of the first token that is not special, in every vocabulary


def with_head(module: nn.Module, task: Task) -> nn.Module:
    """Return the module that predicts a task's targets; for pairs of texts, the module itself.

    Raises:
        UserError: the task needs one of our modules, and it is another.
    """
    if not (task.head or task.vectors):
        return module
    if not isinstance(module, EncoderDecoder) or not hasattr(module, "read_source"):
        raise errors.UserError(
            f"the task {type(task).__name__} needs one of jaxnmt's own models: {type(module).__name__} is for translation"
        )
    if not task.head:
        return module.clone(task=task)
    fields = {field.name: getattr(module, field.name) for field in dataclasses.fields(module) if field.name not in ("parent", "name")}
    kind: Any = type(module)
    return _headed(kind, task.head)(**fields | {"task": task})


@functools.cache
def _headed(kind: Any, head: str) -> Any:
    base = pkgutil.resolve_name(head)
    return type(f"{base.__name__}Of{kind.__name__}", (base, kind), {})


class Encoded(NamedTuple):
    """The encoder's output for each predicted position, (B, N, D)."""

    features_BND: jax.Array


class Classifier(EncoderDecoder):
    """An encoder, one vector of its states, and the output layer over the labels. It predicts in one pass, without `start` and `step`."""

    attention_module = "pooling"

    @property
    def outputs(self) -> int:
        """Rows of the output layer's matrix."""
        return self.target_size

    def make_embeddings(self, features_width: int) -> None:
        """Make the table of source tokens, and the output layer's, in `setup`."""
        self.dtype = jnp.dtype(getattr(self.config, "dtype", "float32"))
        is_scaled = getattr(self.config, "scale_embeddings", True)
        self.source_embedding = self.embed_source = Embedding(self.source_size, self.config.emb_dim, mesh=self.mesh, is_scaled=is_scaled)
        self.embed_output = Embedding(self.outputs, self.states_width, is_output=True, mesh=self.mesh)
        self.pooling = Pooling(self.task.pooling, self.states_width)

    def encode(self, batch: Batch, noise: DropoutKey | None = None) -> Encoded:
        """Return the vector of each text."""
        return Encoded(self.pooling(self.read_source(batch, noise))[:, None])

    def features(self, memory: Encoded, batch: Batch, noise: DropoutKey | None = None) -> jax.Array:
        """Return what the output layer reads, (B, T, D): the same at every position."""
        rows, length = batch["decoder_input_tokens"].shape
        return jnp.broadcast_to(memory.features_BND, (rows, length, memory.features_BND.shape[-1]))

    def predict(self, batch: Batch) -> jax.Array:
        """Return the probability of each label, float32 (B, labels)."""
        return jax.nn.softmax(self.label_logits(self.encode(batch)))

    def label_logits(self, memory: Encoded) -> jax.Array:
        """Return the logits of the labels, (B, labels), without those of the special tokens, which come first."""
        return self.logits(memory.features_BND[:, 0])[:, FIRST_TOKEN : self.target_vocab]


class LabelSets(Classifier):
    """A classifier with independent labels: each applies or not."""

    def predict(self, batch: Batch) -> jax.Array:
        """Return the probability that each label applies, float32 (B, labels)."""
        return jax.nn.sigmoid(self.label_logits(self.encode(batch)))

    def loss(self, memory: Encoded, batch: Batch, label_smoothing: float) -> tuple[jax.Array, ...]:
        """Return the sums of `training.loss.LossSums`: binary cross-entropy, summed over labels; a set is correct if all of it is."""
        logits_BV, targets_BT = self.label_logits(memory), batch["decoder_target_tokens"]
        applies_BV = (targets_BT[..., None] == jnp.arange(FIRST_TOKEN, self.target_vocab)).any(1)
        right_B = ((logits_BV > 0) == applies_BV).all(1) & (targets_BT != UNKNOWN).all(1)
        nll_BV = jax.nn.softplus(logits_BV) - applies_BV * logits_BV
        # Smoothing moves half of its mass to the other of two outcomes, whose loss differs by the logit.
        loss_BV = nll_BV + label_smoothing * (applies_BV - 0.5) * logits_BV
        weights_B = batch["decoder_loss_weights"].sum(1)
        return (loss_BV.sum(1) @ weights_B, nll_BV.sum(1) @ weights_B, weights_B.sum(), right_B @ weights_B)


class Regressor(Classifier):
    """A real number of each text, in units of the standard deviation of those that were trained on."""

    @property
    def outputs(self) -> int:
        """Rows of the output layer's matrix: the first is used, the others let a mesh split it."""
        return padded(1)

    def decode(self, memory: Encoded, batch: Batch, noise: DropoutKey | None = None) -> jax.Array:
        """Return the number at each position, and numbers without meaning, (B, T, outputs)."""
        return project(self.features(memory, batch), self.output_table())

    def predict(self, batch: Batch) -> jax.Array:
        """Return the number, float32 (B, 1)."""
        return self._numbers(self.encode(batch))[:, None]

    def _numbers(self, memory: Encoded) -> jax.Array:
        return project(memory.features_BND[:, 0], self.output_table())[:, 0]

    def loss(self, memory: Encoded, batch: Batch, label_smoothing: float) -> tuple[jax.Array, ...]:
        """Return the sums of `training.loss.LossSums`: the squared error. No number has a likelihood or is correct: both are NaN."""
        high_B, middle_B, low_B = (batch["decoder_target_tokens"][:, :3].astype(jnp.uint32) - FIRST_TOKEN).T  # see `data.labels.Numbers`
        wanted_B = jax.lax.bitcast_convert_type((high_B << 22) | (middle_B << 11) | low_B, jnp.float32)
        weights_B = batch["decoder_loss_weights"].sum(1)
        # A row of padding has no number.
        error_B = jnp.where(weights_B > 0, self._numbers(memory) - wanted_B, 0)
        return jnp.square(error_B) @ weights_B, jnp.nan, weights_B.sum(), jnp.nan


class Pooling(nn.Module):
    """One vector for all of a text's states; see `config.Classification.pooling`."""

    kind: str
    width: int

    def setup(self):
        if self.kind == "attention":
            self.query = Matrix((self.width, 1), "DN")

    def __call__(self, read: SourceStates) -> jax.Array:
        """Return (B, D); sow the weight of each position as `attention` (B, 1, 1, S)."""
        mask_BS = read.segments_BS > 0
        if self.kind == "last" and read.vector_BD is not None:
            return read.vector_BD
        if self.kind == "last":
            end_B = jnp.maximum(mask_BS.sum(1) - 1, 0)
            return jnp.take_along_axis(read.states_BSD, end_B[:, None, None], 1)[:, 0]
        states = read.states_BSD.astype(at_least_float32(read.states_BSD.dtype))
        scores_BS = (states @ self.query.kernel)[..., 0] if self.kind == "attention" else jnp.zeros(mask_BS.shape, states.dtype)
        # A row of padding has no position to read: its weights are zero.
        weights_BS = jax.nn.softmax(jnp.where(mask_BS, scores_BS, -1e9)) * mask_BS
        self.sow("intermediates", "attention", weights_BS[:, None, None])
        return jnp.einsum("BS,BSD->BD", weights_BS, states).astype(read.states_BSD.dtype)


class MaskedEncoder(EncoderDecoder):
    """An encoder, and the output layer on each of its states."""

    def make_embeddings(self, features_width: int) -> None:
        """Make the tables of tokens, tied or not as the config says."""
        super().make_embeddings(self.states_width)

    def encode(self, batch: Batch, noise: DropoutKey | None = None) -> Encoded:
        """Return the encoder's states."""
        return Encoded(self.read_source(batch, noise).states_BSD)

    def features(self, memory: Encoded, batch: Batch, noise: DropoutKey | None = None) -> jax.Array:
        """Return what the output layer reads, (B, T, D): the states, whose positions are those of the target."""
        return constrain(memory.features_BND[:, : batch["decoder_input_tokens"].shape[1]], "BTD", self.mesh)


class LanguageModel(EncoderDecoder):
    """A decoder without an encoder."""

    reads_source = False
    source_side = ()

    def encode(self, batch: Batch, noise: DropoutKey | None = None) -> Any:
        """Return an empty memory with one row for each row of the batch."""
        return self.empty_memory(batch["encoder_input_tokens"].shape[0])
