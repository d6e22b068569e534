"""An ensemble: several models, of any kinds, that predict each word together. Their target vocabularies are equal.

`Ensemble` offers the search what one model offers. `EnsembleTranslator` gives each member the source in that member's own tokens.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnmt.data.special_tokens import EOS, PAD
from jaxnmt.decoding.batches import pad
from jaxnmt.decoding.reductions import without_special
from jaxnmt.decoding.shortlist import Narrowing
from jaxnmt.decoding.translator import SENTENCE_END, Translator
from jaxnmt.models.encoder_decoder import Batch
from jaxnmt.models.layers import DropoutKey
from jaxnmt.models.seq2seq import Seq2Seq
from jaxnmt.parallel.sharding import replicated

Space = Literal["probability", "log"]


class EnsembleParams(NamedTuple):
    """What an ensemble's programs take for parameters.

    Attributes:
        members: each model's parameters.
        weights_M: float32, their sum is 1.
    """

    members: tuple[Any, ...]
    weights_M: Any


class Ensemble(Seq2Seq):
    """Several models as one: what decoding calls (encode, decode, start, step, attention), as functions of `EnsembleParams`.

    Memory and carry are tuples of the members'. Logits are log-probabilities. Attention is the first member's.
    """

    def __init__(self, models: Sequence[Seq2Seq], space: Space):
        """Make an ensemble.

        Args:
            models: the members.
            space: "probability": the weighted mean of probabilities; "log": of log-probabilities.
        """
        super().__init__(models[0].module, models[0].target_vocab)
        self.models, self.space, self.has_features = tuple(models), space, False

    @property
    def can_refill(self) -> bool:
        """Whether all members can."""
        return all(model.can_refill for model in self.models)

    @property
    def step_weights(self) -> EnsembleParams:
        """Those of the members."""
        return EnsembleParams(tuple(model.step_weights for model in self.models), "")

    def encode(self, params: EnsembleParams, batch: Batch, noise: DropoutKey | None = None):
        """Return the memory of `encoder_input_tokens` (B, S, M): the last axis has one tokenisation for each member."""
        tokens_BSM = batch["encoder_input_tokens"]
        members = enumerate(zip(self.models, params.members, strict=True))
        return tuple(model.encode(own, batch | {"encoder_input_tokens": tokens_BSM[..., m]}, noise) for m, (model, own) in members)

    def decode(self, params: EnsembleParams, memory, batch: Batch, noise: DropoutKey | None = None) -> jax.Array:
        """Return log-probabilities (B, T, V) of the token after each of `decoder_input_tokens` (B, T)."""
        members = zip(self.models, params.members, memory, strict=True)
        return combine([model.decode(own, read, batch, noise) for model, own, read in members], params.weights_M, self.space)

    def start(self, params: EnsembleParams, memory, max_length: int):
        """Return the members' carries before the first token."""
        members = zip(self.models, params.members, memory, strict=True)
        return tuple(model.start(own, read, max_length) for model, own, read in members)

    def step(self, params: EnsembleParams, memory, carry, token_B: jax.Array):
        """Return log-probabilities (B, V) of the next token, and the members' carries."""
        members = zip(self.models, params.members, memory, carry, strict=True)
        return self._combined(params, [model.step(own, read, past, token_B) for model, own, read, past in members])

    def step_with_attention(self, params: EnsembleParams, memory, carry, token_B: jax.Array):
        """Return what `step` does, and the first member's attention, on each position of its own source tokens."""
        (first, *others), members = self.models, zip(params.members[1:], memory[1:], carry[1:], strict=True)
        *made, attention_BS = first.step_with_attention(params.members[0], memory[0], carry[0], token_B)
        steps = [model.step(own, read, past, token_B) for model, (own, read, past) in zip(others, members, strict=True)]
        return *self._combined(params, [made, *steps]), attention_BS

    def _combined(self, params: EnsembleParams, steps: Sequence[Any]):
        logits, after = zip(*steps, strict=True)
        return combine(logits, params.weights_M, self.space), after

    def attention(self, params: EnsembleParams, batch: Batch):
        """Return the first member's attention, which reads `encoder_input_tokens` (B, S)."""
        return self.models[0].attention(params.members[0], batch)


def combine(logits: Sequence[jax.Array], weights_M: jax.Array, space: Space) -> jax.Array:
    """Return log-probabilities (..., V) from each member's logits. Those of PAD and BOS, which no translation has, are minus infinity.

    In log space they do not sum to 1; the search normalises them. A member with weight 0 has no influence, even by infinite logits.
    """
    size = min(x.shape[-1] for x in logits)  # a module pads its vocabulary as it likes
    members = [(weights_M[m], jax.nn.log_softmax(without_special(x[..., :size]))) for m, x in enumerate(logits)]
    if space == "log":
        return sum((jnp.where(weight > 0, weight * log_p, 0.0) for weight, log_p in members), jnp.float32(0))
    return functools.reduce(jnp.logaddexp, [jnp.where(weight > 0, jnp.log(weight) + log_p, -jnp.inf) for weight, log_p in members])


class EnsembleNarrowing:
    """`shortlist.Narrowing` for an ensemble. Each member is narrowed by itself, so that it normalises over a sentence's own candidates."""

    def __init__(self, models: Sequence[Seq2Seq], space: Space, width: int) -> None:
        self._members = [Narrowing(model, width) for model in models]
        self.model = Ensemble([narrowing.model for narrowing in self._members], space)

    def params(self, params: EnsembleParams, words_V: np.ndarray) -> EnsembleParams:
        """Return the members' narrowed parameters, with the same weights."""
        members = zip(self._members, params.members, strict=True)
        return EnsembleParams(tuple(narrowing.params(own, words_V) for narrowing, own in members), params.weights_M)


class Sources(list[int]):
    """The tokens of a sentence as the first member reads it; `each` has those of every member.

    So the length limit of a translation and its alignment are the first member's.
    """

    def __init__(self, each: Sequence[list[int]]):
        super().__init__(each[0])
        self.each = each


class EnsembleTranslator(Translator):
    """Translates with several models."""

    def __init__(self, members: Sequence[Translator], weights: Sequence[float] = (), space: Space = "probability"):
        """Make a translator.

        Args:
            members: the models' own translators. The first one's tokenizer turns ids into text.
            weights: a weight for each member, relative to the others; empty: equal weights.
            space: see `Ensemble`.
        """
        self.members, self._space = tuple(members), space
        shares = np.array(weights or [1.0] * len(members))
        first, own = members[0], [member.params for member in members]
        if first.mesh is not None:  # deep models may be sharded, each over a mesh of its own
            own = [jax.device_put(params, replicated(first.mesh)) for params in own]
        params = EnsembleParams(tuple(own), (shares / shares.sum()).astype(np.float32))
        model = Ensemble([member.model for member in members], space)
        super().__init__(model, params, first.tokenizer, first.max_length, first.warn, first.make_lexicon)

    def _make_narrowing(self, width: int) -> EnsembleNarrowing:
        return EnsembleNarrowing([member.model for member in self.members], self._space, width)

    def _encoded(self, texts: Sequence[str]) -> list[Sources]:
        own = [member.tokenizer.encode_source(texts) for member in self.members]
        return [Sources(each) for each in zip(*own, strict=True)]

    def _fits(self, sources: Sources) -> bool:
        return all(len(ids) < member.max_length for ids, member in zip(sources.each, self.members, strict=True))

    def _parts(self, number: int, line: str) -> list[list[int]]:
        """Return a line in as many parts as the members need to read it: the same words for all of them."""
        (whole,) = self._encoded([line])
        if self._fits(whole):
            return [whole] if whole else []
        self.warn(f"line {number} has more tokens than a run of the ensemble reads (data.max_length): translated in parts")
        parts: list[Sources] = []
        for sentence in self._encoded([piece for text in SENTENCE_END.split(line) for piece in self._cut(text)]):
            longer = Sources([a + b for a, b in zip(parts[-1].each, sentence.each, strict=True)]) if parts else sentence
            parts[-1:] = [longer] if self._fits(longer) else [*parts[-1:], sentence]
        return [*parts]

    def _cut(self, text: str) -> list[str]:
        """Return a text that all members can read as it is, and another one in halves, cut between words if it has several."""
        (sources,) = self._encoded([text])
        if self._fits(sources) or len(text) < 2:
            return [text]
        middle = len(text) // 2
        space = text.rfind(" ", 1, middle)
        cut = space if space > 0 else middle
        return [*self._cut(text[:cut]), *self._cut(text[cut:].strip())]

    def _as_source(self, ids: list[int]) -> Sources:
        """Return tokens as a sentence that `_source` takes: the same for all members."""
        return Sources([ids] * len(self.members))

    def _source(self, sentences: Sequence[Any], rows: int) -> np.ndarray:
        """Return the tokens of sentences for each member, int32 (rows, S, M)."""
        own = [pad([[*ids, EOS] for ids in each], rows, EOS) for each in zip(*(sources.each for sources in sentences), strict=True)]
        length = max(tokens_BS.shape[1] for tokens_BS in own)
        return np.stack([np.pad(x, ((0, 0), (0, length - x.shape[1])), constant_values=PAD) for x in own], -1)
