"""Decide which training pairs are kept. `check` reports it for `jaxnmt data check`."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

import numpy as np

from jaxnmt.config import Cleaning, Experiment
from jaxnmt.data.source import Source
from jaxnmt.io.text import canonical, normalise

RATIO_FLOOR = 20
"""If both sides have fewer characters than this, their ratio is not checked: "No." may well be "Ich glaube nicht."."""

SLICE = 1 << 20
"""About the number of hashes that are sorted at a time."""
EXAMPLES = 5
"""Examples that `data check` shows for each reason."""


class Reason(enum.StrEnum):
    """Why a pair is dropped."""

    INVALID_UTF8 = "invalid UTF-8"
    EMPTY = "empty side"
    TOO_LONG = "too many characters"
    RATIO = "length ratio"
    DUPLICATE = "duplicate"


def rules_of(experiment: Experiment) -> Cleaning:
    """Return an experiment's rules. A label may be much shorter than its text, and the name of a picture than its caption."""
    rules, task = experiment.data.cleaning, experiment.task
    return dataclasses.replace(rules, max_ratio=math.inf) if task.is_label or task.vectors else rules


def clean(pair: tuple[bytes, bytes], rules: Cleaning, normalization: str = "none") -> tuple[str, str] | Reason:
    """Return a training pair as text, or the first reason to drop it. Duplicates are not looked for here.

    Args:
        pair: the raw lines of both sides, without line ends.
        normalization: the Unicode form in which characters are counted, see `text.canonical`.
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


def digest(text: str) -> bytes:
    """Return a 64-bit hash of a text as 8 bytes."""
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def hashes(texts: Iterable[str]) -> np.ndarray:
    """Return the 64-bit hashes of texts, uint64."""
    return np.frombuffer(b"".join(map(digest, texts)), "<u8")


def pair_key(pair: tuple[str, str]) -> str:
    """Return the text by which duplicates of a cleaned pair are found."""
    return "\n".join(pair)


def first_occurrences(keys: np.ndarray) -> np.ndarray:
    """Return a mask of the 64-bit hashes that no earlier one equals.

    Among 40 million different pairs, the chance that two have the same hash is 1 in 20,000. Memory beyond `keys` is 1 byte a pair, and some
    tens of MB for the slice that is sorted at a time.
    """
    first: np.ndarray = np.zeros(len(keys), bool)
    slices = len(keys) // SLICE + 1
    blocks = range(0, len(keys) + 1, SLICE)
    for number in range(slices):
        places = np.concatenate([start + np.flatnonzero(keys[start : start + SLICE] % np.uint64(slices) == number) for start in blocks])
        first[places[np.unique(keys[places], return_index=True)[1]]] = True
    return first


@dataclasses.dataclass
class Report:
    """Number of pairs read; for each reason the number of pairs dropped, and where the first of them are. `str` is for the user."""

    pairs: int = 0
    dropped: Counter[Reason] = dataclasses.field(default_factory=Counter)
    examples: dict[Reason, list[str]] = dataclasses.field(default_factory=lambda: defaultdict(list))

    @property
    def kept(self) -> int:
        return self.pairs - sum(self.dropped.values())

    def __str__(self) -> str:
        lines = [f"{self.pairs:,} pairs, {self.kept:,} kept, {self.pairs - self.kept:,} dropped"]
        for reason in Reason:
            count = self.dropped[reason]
            lines.append(f"  {reason:<20} {count:>12,}")
            lines += [f"      {where}" for where in self.examples[reason]]
            if count > EXAMPLES:
                lines.append(f"      and {count - EXAMPLES:,} more")
        return "\n".join(lines)


def check(sources: Iterable[Source], rules: Cleaning, normalization: str = "none") -> Report:
    """Read all pairs and report which of them `rules` drops. As in training, duplicates are found within a source, not across sources."""
    report = Report()
    for source in sources:
        report.pairs += len(source)
        for reason, index in _drops(source, rules, normalization):
            report.dropped[reason] += 1
            if report.dropped[reason] <= EXAMPLES:
                report.examples[reason].append(source.where(index))
    return report


def _drops(source: Source, rules: Cleaning, normalization: str) -> Iterator[tuple[Reason, int]]:
    keys = bytearray()
    is_clean: np.ndarray = np.zeros(len(source), bool)
    for index, pair in enumerate(source.pairs()):
        cleaned = clean(pair, rules, normalization)
        if isinstance(cleaned, Reason):
            yield cleaned, index
        else:
            is_clean[index] = True
            keys += digest(pair_key(cleaned))
    if rules.drop_duplicates:
        for index in np.flatnonzero(is_clean)[~first_occurrences(np.frombuffer(keys, "<u8"))].tolist():
            yield Reason.DUPLICATE, index
