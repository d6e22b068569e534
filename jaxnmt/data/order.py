"""The order of training pairs: seeded permutations and weighted mixtures, both open to random access.

Nothing here keeps state or grows with the corpus: position 10⁹ of the stream costs what position 0 does. Every
number comes from integer arithmetic of our own, so that the order is the same on any machine and numpy version.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from jaxnmt.errors import UserError

HALF_ROUNDS = 8
LONGEST_PATTERN = 1 << 16


def mix(*words) -> np.ndarray:
    """A well-spread uint64 hash of integers (arrays broadcast), splitmix64's finaliser chained over `words`."""
    with np.errstate(over="ignore"):
        state: np.ndarray = np.zeros((), np.uint64)
        for word in words:
            state = state * np.uint64(0xD1342543DE82EF95) + np.asarray(word).astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return state


def shuffled(size: int, *key: int) -> np.ndarray:
    """A random order of 0..size-1 (int64), set by `key` alone; for sizes that fit in memory."""
    return np.argsort(mix(mix(*key), np.arange(size)), kind="stable")


def permuted(positions: np.ndarray, size: int, keys: np.ndarray | int) -> np.ndarray:
    """Where a seeded permutation of 0..size-1 sends `positions`, without building the permutation.

    A Feistel network permutes the next power of two; values that land outside are sent through again until they
    land inside (cycle walking), which keeps it a permutation.

    Args:
        positions: integers in [0, size).
        keys: the permutation's name: one integer, or one for each position.

    Returns:
        int64 array like `positions`.
    """
    bits = max(4, (size - 1).bit_length())
    low_bits = np.uint64(bits // 2)
    low_mask, high_mask = np.uint64((1 << bits // 2) - 1), np.uint64((1 << (bits - bits // 2)) - 1)
    values = np.array(positions, np.uint64)
    keys = np.broadcast_to(np.asarray(keys).astype(np.uint64), values.shape)
    rounds = [mix(keys, i) for i in range(HALF_ROUNDS)]
    outside = np.arange(len(values))
    while len(outside):
        low, high = values[outside] & low_mask, values[outside] >> low_bits
        for i, round_keys in enumerate(rounds):
            if i % 2:
                high = high ^ (mix(round_keys[outside] ^ low) & high_mask)
            else:
                low = low ^ (mix(round_keys[outside] ^ high) & low_mask)
        values[outside] = (high << low_bits) | low
        outside = outside[values[outside] >= size]
    return values.astype(np.int64)


def _shares(weights: Sequence[float]) -> np.ndarray:
    """Whole numbers (int64, each at least 1) in the ratio of `weights`: exact where that is short, else to about 1/65536."""
    total = sum(Fraction(w) for w in weights)
    fractions = [(Fraction(w) / total).limit_denominator(1024) for w in weights]
    period = math.lcm(*(f.denominator for f in fractions))
    exact = all(abs(float(f) - w / float(total)) < 1e-12 for f, w in zip(fractions, weights, strict=True))
    if exact and sum(fractions) == 1 and period <= LONGEST_PATTERN:
        return np.array([int(f * period) for f in fractions], np.int64)
    return np.maximum(1, np.rint(np.array(weights) / float(total) * LONGEST_PATTERN)).astype(np.int64)


class Mixture:
    """An endless stream of pairs from several corpora, by weight; each corpus passes through epochs of its own.

    The corpora take turns in a fixed pattern, so any prefix of the stream honours the weights to within about a
    pair. Within a corpus every pass is a fresh permutation: no pair is skipped, none comes twice in a pass.

    Raises:
        UserError: an empty corpus, or a weight that is not positive.
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], seed: int):
        if len(sizes) != len(weights) or not sizes:
            raise UserError(
                f"data.train: {len(sizes)} corpora with {len(weights)} weights; give at least one source, each with one weight."
            )
        for i, (size, weight) in enumerate(zip(sizes, weights, strict=True)):
            if size < 1:
                raise UserError(f"data.train: source {i + 1} has no pairs left after cleaning and data.max_length; drop it or relax them.")
            if not (weight > 0 and math.isfinite(weight)):
                raise UserError(f"data.train: source {i + 1} has weight {weight}; the number after @ must be above 0.")
        self.sizes, self.seed = tuple(int(n) for n in sizes), seed
        shares = _shares(weights)
        turns = np.concatenate([(np.arange(q) + 0.5) / q for q in shares])
        which: np.ndarray = np.repeat(np.arange(len(shares)), shares)
        self._pattern = which[np.argsort(turns, kind="stable")]
        self._shares = shares

    def pairs(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Corpus (int32) and index in it (int64) of stream positions start..stop-1."""
        positions = np.arange(start, stop)
        period = len(self._pattern)
        corpus = self._pattern[positions % period].astype(np.int32)
        index: np.ndarray = np.empty(stop - start, np.int64)
        for k, size in enumerate(self.sizes):
            mine = np.flatnonzero(corpus == k)
            before = start // period * int(self._shares[k]) + int((self._pattern[: start % period] == k).sum())
            turn: np.ndarray = before + np.arange(len(mine))
            index[mine] = permuted(turn % size, size, mix(self.seed, k, turn // size))
        return corpus, index
