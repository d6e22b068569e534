"""The interface of all sources of sentence pairs, and the memory of what reading their files gave."""

from __future__ import annotations

import abc
import contextlib
import hashlib
import json
import os
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxnmt.io import files

_RACY = 2.0
"""Seconds; at least the granularity of a file system's time stamps. A file that changed so recently may change again within the same time
stamp (git's racy rule), so what it gave is not kept."""


class StatCache:
    """Results of reading a list of files (number of pairs, digest), kept by name, so that unchanged files are not read again.

    As in git's index, a file is unchanged if its path, size, inode and times of change are the same.

    Args:
        folder: the results of each list of unchanged files are kept in one small file in this folder. None: nothing is kept.
        kind: how the files are read (JSON).
        paths: the files, in order. They exist.
    """

    def __init__(self, folder: Path | None, kind: object, paths: Sequence[Path]) -> None:
        self._path: Path | None = None
        self._results: dict[str, Any] = {}
        settled = (time.time() - _RACY) * 1e9
        # Before anything is read: what changes later has another stat.
        stats = [_stat(path) for path in paths] if folder else []
        if folder and all(stat and max(stat[:2]) < settled for stat in stats):
            names = [name if files.in_bucket(name) else os.path.abspath(name) for name in map(os.fspath, paths)]
            key = json.dumps([kind, names, stats])
            self._path = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
            # It is missing or damaged.
            with contextlib.suppress(OSError, ValueError, TypeError):
                self._results = dict(json.loads(self._path.read_bytes()))

    def get(self, name: str, read: Callable[[], Any]) -> Any:
        """Return the kept result of this name, or call `read`, which reads the files, and keep its result (JSON)."""
        if name not in self._results:
            self._results[name] = read()
            if self._path:
                # Without the cache, the next start only takes longer.
                with contextlib.suppress(OSError):
                    self._path.parent.mkdir(parents=True, exist_ok=True)
                    files.write(self._path, json.dumps(self._results))
        return self._results[name]


def _stat(path: Path) -> tuple[int, ...] | None:
    """Return what changes when a file does, two times of change in ns (or 0) first; None if the storage does not tell."""
    if files.in_bucket(path):
        remote: Any = path.stat()
        return (remote.mtime * 10**9, 0, remote.length) if remote.mtime and remote.length else None
    # On NFS, only opening a file asks the server.
    with open(path, "rb") as opened:
        stat = os.fstat(opened.fileno())
    return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino


class Source(abc.ABC):
    """Sentence pairs in a fixed order.

    Attributes:
        name: what the user wrote, without the weight.
        languages: codes of source and target, such as "de"; "" if unknown.
        weight: the share in a mixture, relative to the weights of the other sources.

    Args:
        kept: results of reading the same files earlier.
    """

    weight = 1.0

    def __init__(self, name: str, languages: tuple[str, str], kept: StatCache) -> None:
        self.name = name
        self.languages = languages
        self._kept = kept

    def __len__(self) -> int:
        """Return the number of pairs. The text is read only if the files have changed since it was last counted."""
        return self._kept.get("pairs", self._count)

    def fingerprint(self) -> str:
        """Return the SHA-256 of the text and its weights: the same for the same pairs in the same order, whatever files hold them.

        The text is read only if the files have changed since the fingerprint was last computed.
        """
        return self._kept.get("digest", self._read_digest)

    @abc.abstractmethod
    def pairs(self, start: int = 0) -> Iterator[tuple[bytes, bytes]]:
        """Yield the raw lines of both sides from pair `start` on, without b"\\n"; any other byte may occur."""

    def pair_weights(self, start: int = 0) -> Iterator[float] | None:
        """Yield the weight of each pair in the loss, from pair `start` on; None: every pair has weight 1."""
        return None

    @abc.abstractmethod
    def where(self, index: int) -> str:
        """Return where a user finds pair `index`: `a.en:17 / a.de:17`."""

    def left_out(self) -> dict[str, int]:
        """Return how many entries of the file are no pairs of this source, by reason: `{"fuzzy": 12}`."""
        return {}

    @abc.abstractmethod
    def _count(self) -> int:
        """Return the number of pairs."""

    def _read_digest(self) -> str:
        digest = hashlib.sha256()
        for source, target in self.pairs():
            digest.update(b"%b\n%b\n" % (source, target))
        for weight in self.pair_weights() or ():
            digest.update(struct.pack("<f", weight))
        return digest.hexdigest()


class Changed(Source):
    """A source that applies a function to each pair of another.

    Args:
        change: returns what takes a pair's place.
        digest: the changed text has a fingerprint of its own, which is kept under this name. "": it has the other source's.
    """

    def __init__(self, whole: Source, change: Callable[[tuple[bytes, bytes]], tuple[bytes, bytes]], digest: str = "") -> None:
        super().__init__(whole.name, whole.languages, whole._kept)
        self._whole, self._change, self._digest, self.weight = whole, change, digest, whole.weight

    def fingerprint(self) -> str:
        return self._kept.get(self._digest, self._read_digest) if self._digest else self._whole.fingerprint()

    def pairs(self, start: int = 0) -> Iterator[tuple[bytes, bytes]]:
        return map(self._change, self._whole.pairs(start))

    def pair_weights(self, start: int = 0) -> Iterator[float] | None:
        return self._whole.pair_weights(start)

    def where(self, index: int) -> str:
        return self._whole.where(index)

    def left_out(self) -> dict[str, int]:
        return self._whole.left_out()

    def _count(self) -> int:
        return len(self._whole)
