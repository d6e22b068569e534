"""Token ids of sentence pairs, flat in memory or memory-mapped."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np


@dataclasses.dataclass(frozen=True)
class Side:
    """The sentences of one language, without begin and end tokens: sentence i is `ids[offsets[i]:offsets[i + 1]]`."""

    ids: np.ndarray
    """All ids one after another: integers (tokens,)."""
    offsets: np.ndarray
    """int64 (sentences + 1,)."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        """Return the ids of a sentence, a view."""
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each sentence, int32 (sentences,)."""
        return np.diff(self.offsets).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Sentence pairs: pair i is sentence i of both sides."""

    source: Side
    target: Side
    name: str = ""
    vectors: np.ndarray | None = None
    """Pictures or vectors (N, ...). The source side has their row numbers. None: the source side has tokens."""
    weights: np.ndarray | None = None
    """Weight of each pair in the loss, float32 (pairs,). None: every pair has weight 1."""

    def __len__(self) -> int:
        return len(self.source)

    @property
    def lengths(self) -> tuple[np.ndarray, np.ndarray]:
        """Tokens of each source and each target sentence, two int32 (pairs,)."""
        return self.source.lengths, self.target.lengths


def in_memory(pairs: Iterable[tuple[Sequence[int], Sequence[int]]], limit: int | None = None, vectors: np.ndarray | None = None) -> Corpus:
    """Return a corpus of (source ids, target ids); a side with more than `limit` tokens is cut."""
    pairs = list(pairs)
    return Corpus(_side([source[:limit] for source, _ in pairs]), _side([target[:limit] for _, target in pairs]), vectors=vectors)


def _side(sentences: list[Sequence[int]]) -> Side:
    ids = [np.asarray(sentence, np.int32) for sentence in sentences]
    return Side(np.concatenate([np.empty(0, np.int32), *ids]), np.cumsum([0, *map(len, ids)]))


class Sentences(NamedTuple):
    """Sentences one after another: all ids, int32, and the number of tokens of each sentence, int64."""

    ids: np.ndarray
    tokens: np.ndarray


def gather(sides: Sequence[Side], corpus: np.ndarray, index: np.ndarray) -> Sentences:
    """Read sentences: the ids of sentence `index[i]` of `sides[corpus[i]]`, for each i."""
    first: np.ndarray = np.empty(len(index), np.int64)
    tokens = np.empty_like(first)
    for k, side in enumerate(sides):
        mine = corpus == k
        first[mine] = side.offsets[index[mine]]
        tokens[mine] = side.offsets[index[mine] + 1] - first[mine]
    place = np.repeat(first, tokens) + count_up(tokens)
    ids: np.ndarray = np.empty(len(place), np.int32)
    for k, side in enumerate(sides):
        mine = np.repeat(corpus == k, tokens)
        ids[mine] = side.ids[place[mine]]
    return Sentences(ids, tokens)


def pair_weights(corpora: Sequence[Corpus], corpus: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return the weights of pairs in the loss, float32: of pair `index[i]` of corpus `corpus[i]`, for each i."""
    found: np.ndarray = np.ones(len(index), np.float32)
    for k, each in enumerate(corpora):
        if each.weights is not None:
            mine = corpus == k
            found[mine] = each.weights[index[mine]]
    return found


def count_up(sizes: np.ndarray) -> np.ndarray:
    """Return 0..size-1 for each size, one after another: [2, 3] gives [0, 1, 0, 1, 2]."""
    return np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
