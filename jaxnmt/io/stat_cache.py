"""Keep what reading whole files gave (pairs, digest), so that the next start need not read files that have not changed.

As in git's index, a file is unchanged if its path, size, times of change and inode are. Another file at that path, or the same text at
another path, is read again.
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

from etils import epath

from jaxnmt.io import whole_files

_FORMAT = 1
"""Raise when reading the same files would give other results."""
_RACY = 2.0
"""Seconds, at least a file system's granularity of time stamps. A file that changed so shortly before it is read may change again and keep
its time stamp (git's racy rule): what it gave is not kept."""

T = TypeVar("T")


class StatCache:
    """Results of reading some files, by name, kept while the files do not change.

    Args:
        folder: where results are kept, in one small file for each set of files; None: nowhere.
        what: how the files are read, where the results depend on it.
        files: in their order; they exist.
    """

    def __init__(self, folder: Path | None, what: str, files: Sequence[epath.Path]) -> None:
        self._path: Path | None = None
        if folder is None:
            return
        now = time.time()
        stats = [_stat(file) for file in files]  # before anything is read: what changes later no longer has this stat
        self._stats = [list(stat) for stat in stats if stat]
        if all(stat and max(stat[:2]) < (now - _RACY) * 1e9 for stat in stats):
            names = [file if whole_files.in_bucket(file) else os.path.abspath(file) for file in map(os.fspath, files)]
            self._path = folder / f"{hashlib.sha256(json.dumps([what, *names]).encode()).hexdigest()[:32]}.json"

    def get(self, name: str, read: Callable[[], T]) -> T:
        """Return the result of `read`, which reads the files, without calling it if the result is kept.

        Args:
            name: of the result, which JSON can hold.
        """
        known = self._known()
        if name in known:
            return known[name]
        result = read()
        if self._path:
            with contextlib.suppress(OSError):  # a cache that cannot be written costs time alone
                self._path.parent.mkdir(parents=True, exist_ok=True)
                whole_files.write(self._path, json.dumps({"format": _FORMAT, "files": self._stats, "results": known | {name: result}}))
        return result

    def _known(self) -> dict[str, Any]:
        """Return the results that are kept of the files as they are; {} if there are none, or they are damaged."""
        try:
            kept = json.loads(self._path.read_bytes()) if self._path else {}
            return dict(kept["results"]) if (kept["format"], kept["files"]) == (_FORMAT, self._stats) else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}


def _stat(file: epath.Path) -> tuple[int, ...] | None:
    """Return what tells whether a file has changed, two times of its last change in ns first; None if its storage does not say."""
    if whole_files.in_bucket(file):
        remote = file.stat()
        return (remote.mtime * 10**9, remote.mtime * 10**9, remote.length) if remote.mtime and remote.length else None
    if not os.path.isfile(file):  # such as a pipe
        return None
    with open(file, "rb") as opened:  # on NFS, only opening asks the server
        stat = os.fstat(opened.fileno())
    return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino
