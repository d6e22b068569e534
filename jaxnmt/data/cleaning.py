"""Which training pairs are kept."""

from __future__ import annotations

import enum
import hashlib

import numpy as np

from jaxnmt.config import Cleaning
from jaxnmt.io.lines import canonical, normalise

RATIO_FLOOR = 20
"""Sides with fewer characters than this pass the ratio test: "No." may well be "Ich glaube nicht."."""


class Reason(enum.StrEnum):
    """Why a pair is dropped."""

    INVALID_UTF8 = "invalid UTF-8"
    EMPTY = "empty side"
    TOO_LONG = "too many characters"
    RATIO = "length ratio"
    DUPLICATE = "duplicate"


def clean(pair: tuple[bytes, bytes], rules: Cleaning, normalization: str = "none") -> tuple[str, str] | Reason:
    """Return a training pair as text, or the first reason to drop it.

    Args:
        pair: the raw lines of both sides, without line ends.
        rules: the limits. `drop_duplicates` is not looked at here: it needs memory, see `Duplicates`.
        normalization: the Unicode form in which characters are counted and duplicates found, see `canonical`.
    """
    try:
        source, target = (canonical(normalise(side.decode("utf-8")), normalization) for side in pair)
    except UnicodeDecodeError:
        return Reason.INVALID_UTF8
    if not source or not target:
        return Reason.EMPTY
    shorter, longer = sorted((len(source), len(target)))
    if longer > rules.max_characters:
        return Reason.TOO_LONG
    if longer >= RATIO_FLOOR and longer > rules.max_ratio * shorter:
        return Reason.RATIO
    return source, target


class Duplicates:
    """Remembers pairs by 64-bit hashes, 8 bytes a pair: among 40 million pairs a false alarm has a chance of 1 in 20,000."""

    _RECENT = 1 << 18

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._sorted: np.ndarray = np.empty(0, np.uint64)

    def seen(self, pair: tuple[str, str]) -> bool:
        """Whether this very pair came before; it is remembered from now on."""
        digest = hashlib.blake2b("\n".join(pair).encode(), digest_size=8).digest()
        key = int.from_bytes(digest, "little")
        if key in self._recent or self._is_sorted_in(key):
            return True
        self._recent.add(key)
        if len(self._recent) >= self._RECENT:
            new = np.fromiter(self._recent, np.uint64, len(self._recent))
            self._sorted = np.sort(np.concatenate([self._sorted, new]), kind="stable")
            self._recent.clear()
        return False

    def _is_sorted_in(self, key: int) -> bool:
        place = int(np.searchsorted(self._sorted, np.uint64(key)))
        return place < len(self._sorted) and int(self._sorted[place]) == key
