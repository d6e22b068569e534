"""Remember what reading whole files gave (number of pairs, digest), so that unchanged files are not read again.

As in git's index, a file is unchanged if its path, size, inode and times of change are the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from jaxnmt.io import files

_FORMAT = 1
"""Increase it when reading the same files would give other results."""
_RACY = 2.0
"""Seconds; at least the granularity of a file system's time stamps. A file that changed so recently may change again within the same time
stamp (git's racy rule), so what it gave is not kept."""

T = TypeVar("T")


class StatCache:
    """Results of reading a list of files, kept by name while the files do not change.

    Args:
        folder: the results of each list of files are kept in one small file in this folder. None: nothing is kept.
        kind: how the files are read, if the results depend on it.
        paths: the files, in order. They exist.
    """

    def __init__(self, folder: Path | None, kind: str, paths: Sequence[Path]) -> None:
        self._path: Path | None = None
        self._results: dict[str, Any] = {}
        if folder is None:
            return
        now = time.time()
        stats = [_stat(path) for path in paths]  # before anything is read: what changes later has another stat
        self._stats = [list(stat) for stat in stats if stat]
        if all(stat and max(stat[:2]) < (now - _RACY) * 1e9 for stat in stats):
            names = [name if files.in_bucket(name) else os.path.abspath(name) for name in map(os.fspath, paths)]
            self._path = folder / f"{hashlib.sha256(json.dumps([kind, *names]).encode()).hexdigest()[:32]}.json"
            self._results = self._read(self._path)

    def get(self, name: str, read: Callable[[], T]) -> T:
        """Return the kept result of this name, or call `read`, which reads the files, and keep its result (JSON)."""
        if name not in self._results:
            self._results[name] = read()
            if self._path:
                with contextlib.suppress(OSError):  # without the cache, the next start only takes longer
                    self._path.parent.mkdir(parents=True, exist_ok=True)
                    files.write(self._path, json.dumps({"format": _FORMAT, "files": self._stats, "results": self._results}))
        return self._results[name]

    def _read(self, path: Path) -> dict[str, Any]:
        """Return the results in a cache file; {} if it is missing or damaged, or the files have changed."""
        try:
            kept = json.loads(path.read_bytes())
            return dict(kept["results"]) if (kept["format"], kept["files"]) == (_FORMAT, self._stats) else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}


def _stat(path: Path) -> tuple[int, ...] | None:
    """Return what changes when a file does, two times of change in ns first; None if the storage does not tell."""
    if files.in_bucket(path):
        remote: Any = path.stat()
        return (remote.mtime * 10**9, remote.mtime * 10**9, remote.length) if remote.mtime and remote.length else None
    with open(path, "rb") as opened:  # on NFS, only opening a file asks the server
        stat = os.fstat(opened.fileno())
    return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino
