"""Sentence pairs from a file that a reader knows how to read: what is counted, left out and remembered is the same for every format."""

from __future__ import annotations

import abc
import itertools
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jaxnmt.data.source import Source, StatCache
from jaxnmt.errors import UserError
from jaxnmt.io.text import existing_file

LONGEST = 1 << 20
"""The most characters of one side of a pair. Real ones are far below; a hostile file may promise any number."""

LARGEST_WEIGHT = 1_000_000
"""The largest weight of a pair: sums of a batch must be finite in float32."""


class Request(NamedTuple):
    """What a user asks for.

    Attributes:
        name: the file or folder, as the user wrote it.
        field: the setting that names it, for messages.
        languages: codes of source and target; "" if the user has not said.
        min_score: pairs with a lower score are left out. None: all are read.
        weighs: whether a pair's score is its weight in the loss.
    """

    name: str
    field: str
    languages: tuple[str, str] = ("", "")
    min_score: float | None = None
    weighs: bool = False

    @property
    def needs_scores(self) -> bool:
        """Whether each pair must have a score."""
        return self.min_score is not None or self.weighs

    @property
    def where(self) -> str:
        """The beginning of a message."""
        return f"{self.field}: {self.name}"


class Entry(NamedTuple):
    """A pair, or what stands in the place of one.

    Attributes:
        place: where it is in the file, such as ":12".
        source, target: the text in UTF-8; line ends are still in it.
        left_out: why it is left out; empty if it is a pair.
        weight: in the loss.
    """

    place: str
    source: bytes
    target: bytes
    left_out: str = ""
    weight: float = 1.0


def scored(request: Request, place: str, source: bytes, target: bytes, score: float) -> Entry:
    """Return the entry of a pair with a score. It is marked as left out if the score is too low or 0.

    Raises:
        UserError: the score must be a weight, and is negative, NaN or too large.
    """
    if request.min_score is not None and score < request.min_score:
        return Entry(place, source, target, f"with a score below {request.min_score:g}")
    if not request.weighs:
        return Entry(place, source, target)
    if not 0 <= score <= LARGEST_WEIGHT:
        wanted = f"a number from 0 to {LARGEST_WEIGHT:,}"
        raise UserError(f"{request.where}{place} has the score {score:g}; with data.weigh_by_score, a score must be {wanted}")
    (weight,) = struct.unpack("<f", struct.pack("<f", score))  # float32, in which very small scores are 0
    return Entry(place, source, target, "" if weight else "with a score of 0", weight)


class Reader(abc.ABC):
    """Reads a file from the beginning, as a stream.

    Attributes:
        files: the files that are read.
        has_scores: whether a pair may have a score.
    """

    files: list[Path]
    has_scores = False

    def __init__(self, request: Request) -> None:
        self.request, self.files = request, self.find_files(request)

    def find_files(self, request: Request) -> list[Path]:
        """Return the files to read: the one that the request names."""
        return [existing_file(request.name, request.field)]

    def languages(self) -> tuple[str, str]:
        """Return the codes of source and target; "" if unknown. Only the head of the file is read."""
        return self.request.languages

    @abc.abstractmethod
    def entries(self, languages: tuple[str, str]) -> Iterator[Entry]:
        """Yield the file's entries in order.

        Args:
            languages: what `languages` returned.

        Raises:
            UserError: the file is damaged, or is not what its name says.
        """


class Units(Source):
    """The pairs of a reader. The file is read only if it has changed since it was last read."""

    def __init__(self, reader: Reader, cache: Path | None) -> None:
        request = reader.request
        kept = StatCache(cache, [type(reader).__name__, *request], reader.files)
        languages = kept.get("languages", reader.languages)
        super().__init__(request.name, (languages[0], languages[1]), kept)
        self._reader = reader

    def _entries(self) -> Iterator[Entry]:
        for entry in self._reader.entries(self.languages):
            if max(len(entry.source), len(entry.target)) > LONGEST:
                raise UserError(f"{self._reader.request.where}{entry.place} has more than {LONGEST:,} bytes on a side: split or remove it")
            yield entry

    @property
    def has_scores(self) -> bool:
        """Whether a pair may have a score."""
        return self._reader.has_scores

    def _counts(self) -> dict[str, int]:
        """Return the number of entries for each reason to leave them out; under "" the number of pairs."""
        return self._kept.get("entries", lambda: Counter(entry.left_out for entry in self._entries()))

    def _count(self) -> int:
        return self._counts().get("", 0)

    def left_out(self) -> dict[str, int]:
        return {reason: count for reason, count in self._counts().items() if reason}

    def _kept_entries(self, start: int) -> Iterator[Entry]:
        return itertools.islice((entry for entry in self._entries() if not entry.left_out), start, None)

    def pairs(self, start: int = 0) -> Iterator[tuple[bytes, bytes]]:
        for entry in self._kept_entries(start):
            yield entry.source.replace(b"\n", b" "), entry.target.replace(b"\n", b" ")

    def pair_weights(self, start: int = 0) -> Iterator[float] | None:
        return (entry.weight for entry in self._kept_entries(start)) if self._reader.request.weighs else None

    def where(self, index: int) -> str:
        return f"{self.name}{next(self._kept_entries(index)).place}"
