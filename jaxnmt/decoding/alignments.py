"""Compute word alignments from the attention weights of a teacher-forced pass over a translation."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from jaxnmt.data.special_tokens import BOS, EOS
from jaxnmt.decoding.batches import groups, pad, padded_rows
from jaxnmt.decoding.translation import Translation
from jaxnmt.decoding.translator import Translator
from jaxnmt.models.encoder_decoder import Batch
from jaxnmt.models.seq2seq import Seq2Seq, source_attention
from jaxnmt.parallel.sharding import replicated


class Alignment(NamedTuple):
    """The words of a sentence and of its translation, and the attention between them.

    Attributes:
        weights_TS: attention of each target word on each source word; a row sums to 1 minus the weight on the source's EOS.
    """

    source: list[str]
    target: list[str]
    weights_TS: np.ndarray

    def pharaoh(self) -> str:
        """Return `source-target` word numbers from 0, each target word with the source word of its largest weight: `0-1 1-0`."""
        if not self.source:
            return ""
        return " ".join(f"{s}-{t}" for t, s in enumerate(self.weights_TS.argmax(-1)) if self.weights_TS[t, s] > 0)

    def soft(self, sentence: int, translation: Translation) -> str:
        """Return a line of JSON: sentence number, score, translation, source and target words, and the weights."""
        values = {"sentence": sentence, "score": round(translation.score, 4), "translation": translation.text}
        return json.dumps(values | self.values(), ensure_ascii=False)

    def values(self) -> dict[str, Any]:
        """Return the words and the weights for JSON."""
        weights = [[round(float(weight), 7) for weight in row] for row in self.weights_TS]
        return {"source": self.source, "target": self.target, "weights": weights}


class Aligner:
    """Aligns translations, those of a translator or given ones; compiled once for each shape."""

    def __init__(self, translator: Translator):
        """Use the translator's model and parameters.

        Raises:
            UserError: the model has no attention over the source.
        """
        self.tokenizer, self._translator = translator.tokenizer, translator  # whose parameters may change
        layout = {} if translator.mesh is None else {"out_shardings": replicated(translator.mesh)}  # so that every process can read it
        self._attention = jax.jit(functools.partial(teacher_forced_attention, translator.model), **layout)
        tokens = jax.ShapeDtypeStruct((1, 4), jnp.int32)
        jax.eval_shape(self._attention, translator.params, {"encoder_input_tokens": tokens, "decoder_input_tokens": tokens})

    def with_translator(self, translator: Translator) -> Aligner:
        """Return an aligner for a translator with other parameters of the same model. Both share their compiled programs."""
        other = copy.copy(self)
        other._translator = translator
        return other

    def align(self, lines: Sequence[str], translations: Sequence[Sequence[Translation]], rows: int) -> list[list[Alignment]]:
        """Return the alignments of each line's translations, computed for at most `rows` of them at a time."""
        return self._of_each(self._aligned, lines, translations, rows)

    def source_words(self, lines: Sequence[str], translations: Sequence[Sequence[Translation]], rows: int) -> list[list[list[str]]]:
        """Return the source word with the most attention for each target token of each line's translations; "" if it has no words."""
        return self._of_each(self._most_attended, lines, translations, rows)

    def _of_each(self, make: Callable[[str, Translation, np.ndarray], Any], lines, translations, rows: int) -> list[list[Any]]:
        """Call a function of a line, a translation and the attention (T, S) between their tokens for each of the lines' translations.

        The tokens of a line's parts follow each other on both sides.
        """
        parts = [part for candidates in translations for candidate in candidates for part in candidate.parts]
        weights = iter(self._weights(parts, rows))
        return [
            [make(line.strip(), candidate, scipy.linalg.block_diag(*[next(weights) for _ in candidate.parts])) for candidate in candidates]
            for line, candidates in zip(lines, translations, strict=True)
        ]

    def align_pairs(self, texts: Sequence[tuple[str, str]], ids: Sequence[tuple[list[int], list[int]]], rows: int) -> list[Alignment]:
        """Return the alignments of given pairs of (source, target).

        Args:
            texts: the pairs.
            ids: their tokens, without end tokens.
            rows: the most pairs that are computed at a time.
        """
        found = []
        for (line, text), (source_ids, target_ids), tokens_TS in zip(texts, ids, self._weights(ids, rows), strict=True):
            source, source_word_S = self.tokenizer.source_words(line, source_ids)
            target, target_word_T = self.tokenizer.target_words(target_ids, text)  # not the decoded ones: a word may be unknown
            found.append(Alignment(source, target, of_words(tokens_TS, target_word_T, source_word_S, len(target), len(source))))
        return found

    def _source(self, line: str, translation: Translation) -> tuple[list[str], list[int]]:
        return self.tokenizer.source_words(line, [token for ids, _ in translation.parts for token in ids])

    def _most_attended(self, line: str, translation: Translation, tokens_TS: np.ndarray) -> list[str]:
        (words, source_word_S), count = self._source(line, translation), len(tokens_TS)
        weights_TS = of_words(tokens_TS, range(count), source_word_S, count, len(words))
        return [words[s] for s in weights_TS.argmax(-1)] if words else [""] * count

    def _aligned(self, line: str, translation: Translation, tokens_TS: np.ndarray) -> Alignment:
        source, source_word_S = self._source(line, translation)
        target: list[str] = []
        target_word_T: list[int] = []
        for _, ids in translation.parts:  # each is detokenised by itself
            words, word_of = self.tokenizer.target_words(ids)
            target_word_T += [len(target) + word for word in word_of]
            target += words
        return Alignment(source, target, of_words(tokens_TS, target_word_T, source_word_S, len(target), len(source)))

    def _weights(self, parts: Sequence[tuple[list[int], list[int]]], rows: int) -> list[np.ndarray]:
        """Return the attention between the tokens of each (source, target), without end tokens, in the order given."""
        found: list[Any] = [None] * len(parts)
        for group in groups([tuple(map(len, pair)) for pair in parts], rows):
            count = padded_rows(len(group), rows)
            source = pad([[*parts[i][0], EOS] for i in group], count, EOS)
            target = pad([[BOS, *parts[i][1]] for i in group], count, BOS)
            weights_BTS = jax.device_get(
                self._attention(self._translator.params, {"encoder_input_tokens": source, "decoder_input_tokens": target})
            )
            for row, i in enumerate(group):
                found[i] = weights_BTS[row, : len(parts[i][1]), : len(parts[i][0])]
        return found


def teacher_forced_attention(model: Seq2Seq, params, batch: Batch) -> jax.Array:
    """Return `source_attention` of each prediction of a teacher-forced pass: float32 (B, T, S)."""
    return source_attention(model.attention(params, batch), model.attention_module)


def of_words(tokens_TS: np.ndarray, target_word_T: Sequence[int], source_word_S: Sequence[int], targets: int, sources: int) -> np.ndarray:
    """Return the weights of words from those of tokens: summed over a source word's tokens, averaged over a target word's.

    There may be no words, if all tokens are spaces.
    """
    if not targets or not sources:
        return np.zeros((targets, sources), np.float32)
    # 1 where a token belongs to a word.
    source_SW, target_TW = np.eye(sources)[source_word_S], np.eye(targets)[target_word_T]
    return (target_TW.T @ tokens_TS @ source_SW / np.maximum(target_TW.sum(0), 1)[:, None]).astype(np.float32)
