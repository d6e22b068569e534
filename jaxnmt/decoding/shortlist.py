"""Shortlists: each sentence's translation takes its tokens from the likely translations of its source tokens, and frequent tokens.

A batch is searched for in the vocabulary of all its sentences' candidates, whose ids are numbered anew in the same order. What has a
vocabulary axis (the output layer, the embeddings of the target) is that much smaller in each step. Each sentence sees only its own
candidates, so that its translation does not depend on its batch. The encoder reads the whole tables.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnmt.data.special_tokens import EOS, PAD, UNK
from jaxnmt.decoding.constraints import TargetRules
from jaxnmt.errors import UserError
from jaxnmt.models.blocks import Weight
from jaxnmt.models.encoder_decoder import Batch
from jaxnmt.models.seq2seq import Seq2Seq, padded

if TYPE_CHECKING:
    from jaxnmt.decoding.lexicon import Lexicon

WIDTH = 1024
"""Fewest tokens of a narrowed vocabulary; batches with more candidates take twice as many, and so on: few programs are compiled."""


class NarrowedParams(NamedTuple):
    """Parameters of a model, and the same with a narrowed target vocabulary."""

    whole: Any
    narrow: Any


class NarrowedMemory(NamedTuple):
    """The memory of a model, and which tokens of the narrowed vocabulary each sentence's translation may have: bool (B, V)."""

    inner: Any
    allowed_BV: jax.Array


class Narrowed(Seq2Seq):
    """A model whose steps know only `width` target tokens; what a search calls, as functions of `NarrowedParams`.

    A batch has `allowed` (B, V), see `NarrowedMemory`. Tokens are ids of the narrowed vocabulary.
    """

    def __init__(self, model: Seq2Seq, width: int):
        super().__init__(model.module, width)
        self.whole, self.narrow = model, model.with_target_vocabulary(width)

    def encode(self, params: NarrowedParams, batch: Batch, noise: Any = None) -> NarrowedMemory:
        """Return the memory of `encoder_input_tokens`."""
        return NarrowedMemory(self.whole.encode(params.whole, batch, noise), batch["allowed"])

    def start(self, params: NarrowedParams, memory: NarrowedMemory, max_length: int):
        """Return the carry before the first token."""
        return self.whole.start(params.whole, memory.inner, max_length)

    def step(self, params: NarrowedParams, memory: NarrowedMemory, carry, token_B: jax.Array):
        """Return logits (B, V) of the next token, minus infinity for those that its sentence does not allow, and the carry."""
        logits_BV, carry = self.narrow.step(params.narrow, memory.inner, carry, token_B)
        return _only(memory.allowed_BV, logits_BV), carry

    def step_with_attention(self, params: NarrowedParams, memory: NarrowedMemory, carry, token_B: jax.Array):
        """Return what `step` does, and the attention on each source position."""
        logits_BV, carry, attention_BS = self.narrow.step_with_attention(params.narrow, memory.inner, carry, token_B)
        return _only(memory.allowed_BV, logits_BV), carry, attention_BS


def _only(allowed_BV: jax.Array, logits_RV: jax.Array) -> jax.Array:
    logits_BWV = logits_RV.reshape(len(allowed_BV), -1, logits_RV.shape[-1])
    return jnp.where(allowed_BV[:, None], logits_BWV, -jnp.inf).reshape(logits_RV.shape)


@dataclasses.dataclass(frozen=True)
class Shortlist:
    """The narrowed vocabulary of a batch.

    Attributes:
        words_V: int32, the id of each of its tokens in the whole vocabulary, ascending, and PAD from where they end.
        batch: the batch in its ids.
    """

    words_V: np.ndarray
    batch: Batch

    def whole(self, tokens: Any) -> np.ndarray:
        """Return tokens as ids of the whole vocabulary."""
        return self.words_V[np.asarray(tokens)]


def of_batch(lexicon: Lexicon, count: int, sentences: Sequence[Sequence[int]], batch: Batch, target_size: int) -> Shortlist:
    """Return the vocabulary of a batch.

    Args:
        lexicon: the candidates of source tokens.
        count: how many candidates each source token has, and how many frequent tokens are candidates of every sentence.
        sentences: source tokens of the rows, without EOS. Further rows allow EOS alone.
        batch: its arrays. The vocabulary includes all tokens of its `constraints.TargetRules`; a sentence's translation may have those of
            its own prefix and required phrases.
        target_size: size of the whole vocabulary.
    """
    rules = {name: batch[name] for name in TargetRules._fields if name in batch and name != "rank"}
    own = [lexicon.candidates(ids, count) for ids in sentences]
    for name in rules.keys() & {"prefix", "required"}:
        own = [np.union1d(ids, rules[name][row]) for row, ids in enumerate(own)]
    words = functools.reduce(np.union1d, [*own, np.arange(UNK + 1), *rules.values()])
    width = WIDTH
    while width < len(words):
        width *= 2
    if width >= padded(target_size):
        width, words = padded(target_size), np.arange(target_size)
    words_V: np.ndarray = np.full(width, PAD, np.int32)
    words_V[: len(words)] = words
    new_ids: np.ndarray = np.zeros(target_size, np.int32)
    new_ids[words] = np.arange(len(words))
    allowed_BV: np.ndarray = np.zeros((len(batch["encoder_input_tokens"]), len(words_V)), bool)
    allowed_BV[:, EOS] = True
    for row, ids in enumerate(own):
        allowed_BV[row, new_ids[ids]] = True
    return Shortlist(words_V, batch | {name: new_ids[ids] for name, ids in rules.items()} | {"allowed": allowed_BV})


class Narrowing:
    """Narrows the parameters of one model to vocabularies of one width."""

    def __init__(self, model: Seq2Seq, width: int) -> None:
        """Make the narrowed model.

        Raises:
            UserError: the model copies tokens of the source, which it knows by their ids in the whole vocabulary.
        """
        if getattr(model.module, "copies", False):
            raise UserError("decoding.shortlist renumbers tokens, and a run with model.copy needs the original ids: set it to 0")
        self.model = Narrowed(model, width)
        # The axis in which a narrowed model's parameters are smaller is the vocabulary's.
        self._axes = jax.tree.map(_first_difference, model.shapes, self.model.narrow.shapes)

    def params(self, params: Any, words_V: np.ndarray) -> NarrowedParams:
        """Return the parameters of `Narrowed` for a vocabulary."""

        def narrow(axis: int, part: Any) -> Any:
            if axis < 0:
                return part
            return part.take(words_V, axis) if isinstance(part, Weight) else jnp.take(part, words_V, axis, mode="clip")

        return NarrowedParams(params, jax.tree.map(narrow, self._axes, params))


def _first_difference(x: jax.ShapeDtypeStruct, y: jax.ShapeDtypeStruct) -> int:
    """Return the first axis in which two shapes differ; -1: none."""
    return next((axis for axis, (one, other) in enumerate(zip(x.shape, y.shape, strict=True)) if one != other), -1)
