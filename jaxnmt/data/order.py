"""The order of training pairs: seeded permutations and weighted mixtures, both with random access.

Nothing here keeps state or grows with the corpus: position 10⁹ of the stream costs what position 0 does. All numbers come from integer
arithmetic defined here, so that the order is the same on any machine and with any version of numpy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

HALF_ROUNDS = 8
"""Half-rounds of the Feistel network."""
LONGEST_PATTERN = 1 << 16
"""Most turns in the pattern in which corpora alternate."""


def hash64(*words) -> np.ndarray:
    """Return a uint64 hash of integers; arrays broadcast. It is the finaliser of splitmix64, chained over `words`."""
    with np.errstate(over="ignore"):
        state: np.ndarray = np.zeros((), np.uint64)
        for word in words:
            state = state * np.uint64(0xD1342543DE82EF95) + np.asarray(word).astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return state


def shuffled(size: int, *key: int) -> np.ndarray:
    """Return a random order of 0..size-1 (int64) that depends on `key` only, for sizes that fit in memory."""
    return np.argsort(hash64(hash64(*key), np.arange(size)), kind="stable")


def permuted(positions: np.ndarray, size: int, keys: np.ndarray) -> np.ndarray:
    """Apply a seeded permutation of 0..size-1 to `positions` without building the permutation.

    A Feistel network permutes the next power of two. Values that land outside go through it again until they land inside (cycle walking),
    so that it stays a permutation.

    Args:
        positions: integers in [0, size).
        keys: which permutation, for each position.

    Returns:
        int64 array like `positions`.
    """
    bits = max(4, (size - 1).bit_length())
    low_bits = np.uint64(bits // 2)
    low_mask, high_mask = np.uint64((1 << bits // 2) - 1), np.uint64((1 << (bits - bits // 2)) - 1)
    values = np.array(positions, np.uint64)
    rounds = [hash64(keys, i) for i in range(HALF_ROUNDS)]
    outside = np.arange(len(values))
    while len(outside):
        low, high = values[outside] & low_mask, values[outside] >> low_bits
        for i, round_keys in enumerate(rounds):
            if i % 2:
                high = high ^ (hash64(round_keys[outside] ^ low) & high_mask)
            else:
                low = low ^ (hash64(round_keys[outside] ^ high) & low_mask)
        values[outside] = (high << low_bits) | low
        outside = outside[values[outside] >= size]
    return values.astype(np.int64)


def _shares(weights: Sequence[float]) -> np.ndarray:
    """Return integers (int64, each at least 1) in the ratio of `weights`: exact if they are small enough, otherwise to about 1/65536."""
    total = sum(Fraction(w) for w in weights)
    fractions = [(Fraction(w) / total).limit_denominator(1024) for w in weights]
    period = math.lcm(*(f.denominator for f in fractions))
    exact = all(abs(float(f) - w / float(total)) < 1e-12 for f, w in zip(fractions, weights, strict=True))
    if exact and period <= LONGEST_PATTERN:
        return np.array([int(f * period) for f in fractions], np.int64)
    return np.maximum(1, np.rint(np.array(weights) / float(total) * LONGEST_PATTERN)).astype(np.int64)


class Mixture:
    """An endless stream of pairs from several corpora by weight, in which each corpus has epochs of its own.

    The corpora alternate in a fixed pattern, so that any prefix of the stream honours the weights to within about one pair. Each epoch of a
    corpus is a new permutation: no pair is skipped, and none comes twice in an epoch.

    Args:
        sizes: pairs in each corpus, at least 1.
        weights: their relative shares, above 0.
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], seed: int):
        self.sizes, self.seed = tuple(int(n) for n in sizes), seed
        self._shares = _shares(weights)
        turns = np.concatenate([(np.arange(share) + 0.5) / share for share in self._shares])
        which: np.ndarray = np.repeat(np.arange(len(self._shares)), self._shares)
        self._pattern = which[np.argsort(turns, kind="stable")]

    def pairs(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the corpus (int32) and the index in it (int64) of stream positions start..stop-1."""
        positions = np.arange(start, stop)
        period = len(self._pattern)
        corpus = self._pattern[positions % period].astype(np.int32)
        index: np.ndarray = np.empty(stop - start, np.int64)
        for k, size in enumerate(self.sizes):
            mine = np.flatnonzero(corpus == k)
            before = start // period * int(self._shares[k]) + int((self._pattern[: start % period] == k).sum())
            turn: np.ndarray = before + np.arange(len(mine))
            index[mine] = permuted(turn % size, size, hash64(self.seed, k, turn // size))
        return corpus, index
