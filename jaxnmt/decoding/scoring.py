"""Compute the log-probability of given translations by a teacher-forced pass."""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnmt import config as cfg
from jaxnmt.data.special_tokens import BOS, EOS, PAD
from jaxnmt.decoding.alignments import Aligner, Alignment
from jaxnmt.decoding.batches import bucket, groups, output_limit, pad, padded_rows
from jaxnmt.decoding.translator import Translator
from jaxnmt.errors import UserError
from jaxnmt.models.encoder_decoder import Batch, project
from jaxnmt.models.seq2seq import Seq2Seq
from jaxnmt.parallel.sharding import mesh_of, num_shards, per_device, replicated, to_mesh
from jaxnmt.training.metrics import perplexity

POSITIONS = 8
"""Target positions that go through the output layer at a time, so that all logits of a batch never exist at once."""


class ScoredPair(NamedTuple):
    """A given translation and its log-probability, in nats.

    A pair that was not scored has a log-probability of NaN and no tokens.

    Attributes:
        log_prob: log p(target | source), EOS included: the sum of `token_log_probs`.
        tokens: the target tokens as the vocabulary has them, EOS included.
        token_log_probs: the log-probability of each token, given the source and the tokens before it.
        reverse: the same pair scored by a model of the other direction, if one was given.
        alignment: the words of the pair and the attention between them, if pairs were to be aligned. A pair that was not scored has none.
    """

    log_prob: float
    tokens: tuple[str, ...] = ()
    token_log_probs: tuple[float, ...] = ()
    reverse: ScoredPair | None = None
    alignment: Alignment | None = None

    @property
    def mean(self) -> float:
        """Log-probability divided by the number of tokens: minus the cross-entropy per token."""
        return self.log_prob / max(1, len(self.tokens))

    @property
    def score(self) -> float:
        """`mean`; with `reverse`, the dual conditional cross-entropy score between 0 and 1 (Junczys-Dowmunt 2018).

        exp(-(|H(y|x) - H(x|y)| + (H(y|x) + H(x|y)) / 2)), where each H is the cross-entropy per token.
        """
        if self.reverse is None:
            return self.mean
        forward, reverse = -self.mean, -self.reverse.mean
        return math.exp(-(abs(forward - reverse) + (forward + reverse) / 2))


@dataclasses.dataclass
class Totals:
    """Sums over the pairs that have a score."""

    pairs: int = 0
    tokens: int = 0
    log_prob: float = 0.0

    def add(self, pair: ScoredPair) -> None:
        """Count a pair, unless it was not scored."""
        self.pairs += bool(pair.tokens)
        self.tokens += len(pair.tokens)
        self.log_prob += pair.log_prob if pair.tokens else 0.0

    @property
    def perplexity(self) -> float:
        """Perplexity per token, EOS included; NaN without tokens."""
        return perplexity(-self.log_prob / self.tokens) if self.tokens else math.nan


class Scorer:
    """Scores text with the model of a translator."""

    def __init__(self, translator: Translator, decoding: cfg.Decoding) -> None:
        """Use the translator's model, parameters and tokenizer.

        Args:
            decoding: its length limits. A target is scored if `translate` could have written it for some source that the model reads.

        Raises:
            UserError: the model reads pictures.
        """
        if translator.tokenizer.reads_pictures:
            raise UserError("the run captions pictures, and log-probabilities are of translated text: score it with `jaxnmt evaluate`")
        self.tokenizer, self.warn = translator.tokenizer, translator.warn
        self.longest_source, self._reads_source = translator.max_length - 1, translator.reads_source
        self.longest_target = output_limit(self.longest_source, decoding) - 1
        self._log_probs = TokenScorer(translator.model, translator.params)

    def with_params(self, params: Any) -> Scorer:
        """Return a scorer with other parameters of the same model and layout. Both share their compiled programs."""
        other, log_probs = copy.copy(self), copy.copy(self._log_probs)
        log_probs.params = params
        other._log_probs = log_probs
        return other

    def score(
        self,
        sources: Sequence[str],
        targets: Sequence[str],
        batch_size: int,
        first: int = 1,
        reverse: Scorer | None = None,
        aligner: Aligner | None = None,
    ) -> list[ScoredPair]:
        """Return the scores of targets, given their sources. Each depends on its own pair only.

        A pair without a source is not scored, except by a language model, which reads none. Nor is one with a side that is too long for
        the model, and a warning says so. An empty target has the log-probability of EOS.

        Args:
            sources, targets: equally many sentences.
            batch_size: pairs scored together.
            first: number of the first pair, for warnings.
            reverse: scores the sources, given the targets.
            aligner: aligns the pairs.
        """
        texts = [[text.strip() for text in side] for side in (sources, targets)]
        ids = list(zip(self.tokenizer.encode_source(texts[0]), self.tokenizer.encode_target(texts[1]), strict=True))
        if not self._reads_source:
            ids = [([], target) for _, target in ids]
        rows = [row for row, pair in enumerate(ids) if (pair[0] or not self._reads_source) and self._fits(first + row, *map(len, pair))]
        unaligned = Alignment([], [], np.zeros((0, 0), np.float32)) if aligner else None
        scored = [ScoredPair(math.nan, alignment=unaligned)] * len(ids)
        kept = [ids[row] for row in rows]
        for row, found in zip(rows, self._log_probs(kept, batch_size), strict=True):
            log_probs = tuple(found.tolist())
            scored[row] = ScoredPair(math.fsum(log_probs), tuple(self.tokenizer.target_pieces([*ids[row][1], EOS])), log_probs)
        if aligner:
            alignments = aligner.align_pairs([(texts[0][row], texts[1][row]) for row in rows], kept, batch_size)
            for row, alignment in zip(rows, alignments, strict=True):
                scored[row] = scored[row]._replace(alignment=alignment)
        if reverse:
            others = reverse.score(targets, sources, batch_size, first)
            scored = [pair._replace(reverse=other) for pair, other in zip(scored, others, strict=True)]
        return scored

    def _fits(self, number: int, source: int, target: int) -> bool:
        """Return whether the model can read a pair of these lengths; warn if it cannot."""
        if source > self.longest_source:
            self.warn(f"pair {number} is not scored: {source} tokens to read, and the model reads {self.longest_source} (data.max_length)")
        elif target > self.longest_target:
            limit = f"the longest translation has {self.longest_target} (decoding.max_length_ratio)"
            self.warn(f"pair {number} is not scored: {target} tokens to predict, and {limit}")
        return source <= self.longest_source and target <= self.longest_target


class TokenScorer:
    """Scores token ids with one model. Pairs are spread over the devices that the parameters lie on.

    A program is compiled for each (rows, source length, target length); lengths are padded to those of `batches.LENGTHS`.
    """

    def __init__(self, model: Seq2Seq, params: Any) -> None:
        """Make a scorer; the parameters may lie on several devices, and sharded ones are gathered for each batch."""
        self.params, self.mesh = params, mesh_of(params)
        compute = functools.partial(token_log_probs, model)
        layout = {} if self.mesh is None else {"out_shardings": replicated(self.mesh)}
        self._compute = jax.jit(compute if self.mesh is None else per_device(compute, self.mesh), **layout)

    def __call__(self, pairs: Sequence[tuple[list[int], list[int]]], batch_size: int) -> list[np.ndarray]:
        """Return the log-probabilities of each pair's target tokens and of the EOS after them.

        Args:
            pairs: ids of (source, target), without EOS.
        """
        found: list[Any] = [None] * len(pairs)
        for group in groups([(bucket(len(source) + 1), len(target)) for source, target in pairs], batch_size):
            rows = padded_rows(len(group), batch_size, num_shards("B", self.mesh))
            batch = {
                "encoder_input_tokens": pad([[*pairs[i][0], EOS] for i in group], rows, EOS),
                "decoder_input_tokens": pad([[BOS, *pairs[i][1]] for i in group], rows, BOS),
                "decoder_target_tokens": pad([[*pairs[i][1], EOS] for i in group], rows, EOS),
            }
            log_probs_BT = jax.device_get(self._compute(self.params, batch if self.mesh is None else to_mesh(batch, self.mesh)))
            for row, i in enumerate(group):
                found[i] = log_probs_BT[row, : len(pairs[i][1]) + 1]
        return found


def token_log_probs(model: Seq2Seq, params, batch: Batch) -> jax.Array:
    """Return the log-probability of each of `decoder_target_tokens` by teacher forcing, float32 (B, T).

    PAD and BOS have probability 0, as in the search.
    """
    memory, targets_BT = model.encode(params, batch), batch["decoder_target_tokens"]
    if not model.has_features:
        return _of_tokens(model.decode(params, memory, batch), targets_BT)
    features_BTD = model.features(params, memory, batch)
    table_VD, bias_V = model.output_table(params).astype(features_BTD.dtype), model.output_bias(params)

    def at_position(features_BD, targets_B):
        logits_BV = project(features_BD, table_VD)
        logits_BV = logits_BV if bias_V is None else logits_BV + bias_V
        return _of_tokens(logits_BV[:, : model.target_vocab], targets_B)

    positions = jnp.moveaxis(features_BTD, 1, 0), jnp.asarray(targets_BT).T
    return jax.lax.map(lambda position: at_position(*position), positions, batch_size=POSITIONS).T


def _of_tokens(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Return the log-probabilities of targets (...) from logits (..., V)."""
    logits = logits.at[..., jnp.array([PAD, BOS])].set(-jnp.inf)
    return jnp.take_along_axis(logits, targets[..., None], -1)[..., 0] - jax.nn.logsumexp(logits, -1)
