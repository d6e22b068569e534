"""Compute word alignments from the attention weights of a teacher-forced pass over a translation."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnmt.data.special_tokens import BOS, EOS, PAD
from jaxnmt.decoding.translator import Translation, Translator, bucket, padded_rows
from jaxnmt.errors import UserError
from jaxnmt.models.seq2seq import Batch, Seq2Seq
from jaxnmt.parallel.axes import path_name

_SOWN = "attention/0"  # 0: what is sown comes in a tuple


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
        weights = [[round(float(weight), 7) for weight in row] for row in self.weights_TS]
        values = {"sentence": sentence, "score": round(translation.score, 4), "translation": translation.text}
        return json.dumps(values | {"source": self.source, "target": self.target, "weights": weights}, ensure_ascii=False)


class Aligner:
    """Aligns the translations of a translator; compiled once for each shape."""

    def __init__(self, translator: Translator):
        """Use the translator's model and parameters.

        Raises:
            UserError: the model has no attention over the source.
        """
        self.tokenizer, self.params = translator.tokenizer, translator.params
        self._attention = jax.jit(functools.partial(source_attention, translator.model))
        tokens = jax.ShapeDtypeStruct((1, 4), jnp.int32)
        jax.eval_shape(self._attention, self.params, {"encoder_input_tokens": tokens, "decoder_input_tokens": tokens})

    def align(self, lines: Sequence[str], translations: Sequence[Sequence[Translation]], rows: int) -> list[list[Alignment]]:
        """Return the alignments of each line's translations, computed for at most `rows` of them at a time."""
        parts = [part for candidates in translations for candidate in candidates for part in candidate.parts]
        weights = iter(self._weights(parts, rows))
        return [
            [self._aligned(line.strip(), candidate, [next(weights) for _ in candidate.parts]) for candidate in candidates]
            for line, candidates in zip(lines, translations, strict=True)
        ]

    def _aligned(self, line: str, translation: Translation, weights: list[np.ndarray]) -> Alignment:
        """Join the alignments of a line's parts, which follow each other on both sides."""
        source, source_word_S = self.tokenizer.source_words(line, [token for ids, _ in translation.parts for token in ids])
        target: list[str] = []
        target_word_T: list[int] = []
        for _, ids in translation.parts:  # each is detokenised by itself
            words, word_of = self.tokenizer.target_words(ids)
            target_word_T += [len(target) + word for word in word_of]
            target += words
        tokens_TS: np.ndarray = np.zeros((len(target_word_T), len(source_word_S)), np.float32)
        t = s = 0
        for part in weights:
            tokens_TS[t : t + part.shape[0], s : s + part.shape[1]] = part
            t, s = t + part.shape[0], s + part.shape[1]
        return Alignment(source, target, of_words(tokens_TS, target_word_T, source_word_S, len(target), len(source)))

    def _weights(self, parts: Sequence[tuple[list[int], list[int]]], rows: int) -> list[np.ndarray]:
        """Return the attention between the tokens of each (source, target), without end tokens, in the order given."""
        found: list[Any] = [None] * len(parts)
        order = sorted(range(len(parts)), key=lambda i: tuple(map(len, parts[i])))
        for start in range(0, len(order), rows):
            group = order[start : start + rows]
            count, longest = padded_rows(len(group), rows), [max(len(parts[i][side]) for i in group) + 1 for side in (0, 1)]
            source: np.ndarray = np.full((count, bucket(longest[0])), PAD, np.int32)
            target: np.ndarray = np.full((count, bucket(longest[1])), PAD, np.int32)
            source[:, 0], target[:, 0] = EOS, BOS
            for row, (ids, translated) in enumerate(parts[i] for i in group):
                source[row, : len(ids) + 1] = [*ids, EOS]
                target[row, 1 : len(translated) + 1] = translated
            weights_BTS = jax.device_get(self._attention(self.params, {"encoder_input_tokens": source, "decoder_input_tokens": target}))
            for row, i in enumerate(group):
                found[i] = weights_BTS[row, : len(parts[i][1]), : len(parts[i][0])]
        return found


def source_attention(model: Seq2Seq, params, batch: Batch) -> jax.Array:
    """Return the attention of each prediction of a teacher-forced pass on each source position: float32 (B, T, S).

    The mean over the heads of one layer: the last but one, which in Transformers comes closest to a word alignment (Garg et al. 2019); of
    two layers, or one, the last.

    Raises:
        UserError: the model's `attention_module` sows nothing.
    """
    leaves = {path_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(model.attention(params, batch))}
    layers = {name: x for name, x in leaves.items() if f"/{name}".endswith(f"/{model.attention_module}/{_SOWN}")}
    if not layers:
        raise UserError(
            "--alignments needs attention over the source, and this model has none "
            f"(model.context fixed, or one of your own whose {model.attention_module} sows no weights)"
        )
    order = sorted(layers, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])
    return layers[order[-2 if len(order) > 2 else -1]].astype(jnp.float32).mean(1)


def of_words(tokens_TS: np.ndarray, target_word_T: Sequence[int], source_word_S: Sequence[int], targets: int, sources: int) -> np.ndarray:
    """Return the weights of words from those of tokens: summed over a source word's tokens, averaged over a target word's.

    There may be no words, if all tokens are spaces.
    """
    if not targets or not sources:
        return np.zeros((targets, sources), np.float32)
    summed: np.ndarray = np.zeros((tokens_TS.shape[0], sources), np.float32)
    np.add.at(summed.T, np.asarray(source_word_S, int), tokens_TS.T)
    words: np.ndarray = np.zeros((targets, sources), np.float32)
    np.add.at(words, np.asarray(target_word_T, int), summed)
    return words / np.maximum(np.bincount(np.asarray(target_word_T, int), minlength=targets), 1)[:, None]
