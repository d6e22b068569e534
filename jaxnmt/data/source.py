"""What every source of sentence pairs offers."""

from __future__ import annotations

import abc
import functools
import hashlib
from collections.abc import Iterator

from jaxnmt.io.stat_cache import StatCache


class Source(abc.ABC):
    """Sentence pairs in a fixed order.

    Attributes:
        name: what the user wrote, without the weight.
        weight: its share in a mixture, relative to the other sources' weights.
        source_language, target_language: codes such as "de"; "" if unknown.

    Args:
        kept: what an earlier start has found by reading the same files.
    """

    def __init__(self, name: str, weight: float, source_language: str, target_language: str, kept: StatCache) -> None:
        self.name = name
        self.weight = weight
        self.source_language = source_language
        self.target_language = target_language
        self._kept = kept

    @abc.abstractmethod
    def __len__(self) -> int:
        """Number of pairs."""

    @abc.abstractmethod
    def pairs(self, start: int = 0) -> Iterator[tuple[bytes, bytes]]:
        """The raw lines of both sides from pair `start` on, without b"\\n"; any other byte may occur."""

    @abc.abstractmethod
    def where(self, index: int) -> str:
        """Where a person finds pair `index`: `a.en:17 / a.de:17`."""

    def _read_digest(self) -> str:
        digest = hashlib.sha256()
        for source, target in self.pairs():
            digest.update(b"%b\n%b\n" % (source, target))
        return digest.hexdigest()

    @functools.cached_property
    def _digest(self) -> str:
        return self._kept.get("digest", self._read_digest)

    def fingerprint(self) -> str:
        """Return the SHA-256 of the text itself: the same for the same pairs in the same order, whatever files hold them.

        Reads all the text, but only if the files have changed since it was last computed.
        """
        return self._digest
