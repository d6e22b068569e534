"""The interface of all sources of sentence pairs."""

from __future__ import annotations

import abc
import hashlib
from collections.abc import Iterator

from jaxnmt.data.stat_cache import StatCache


class Source(abc.ABC):
    """Sentence pairs in a fixed order.

    Attributes:
        name: what the user wrote, without the weight.
        weight: the share in a mixture, relative to the weights of the other sources.
        source_language, target_language: codes such as "de"; "" if unknown.

    Args:
        kept: results of reading the same files earlier.
    """

    def __init__(self, name: str, weight: float, source_language: str, target_language: str, kept: StatCache) -> None:
        self.name = name
        self.weight = weight
        self.source_language = source_language
        self.target_language = target_language
        self._kept = kept

    @abc.abstractmethod
    def __len__(self) -> int:
        """Return the number of pairs."""

    @abc.abstractmethod
    def pairs(self, start: int = 0) -> Iterator[tuple[bytes, bytes]]:
        """Yield the raw lines of both sides from pair `start` on, without b"\\n"; any other byte may occur."""

    @abc.abstractmethod
    def where(self, index: int) -> str:
        """Return where a user finds pair `index`: `a.en:17 / a.de:17`."""

    def fingerprint(self) -> str:
        """Return the SHA-256 of the text: the same for the same pairs in the same order, whatever files hold them.

        The text is read only if the files have changed since the fingerprint was last computed.
        """
        return self._kept.get("digest", self._read_digest)

    def _read_digest(self) -> str:
        digest = hashlib.sha256()
        for source, target in self.pairs():
            digest.update(b"%b\n%b\n" % (source, target))
        return digest.hexdigest()
