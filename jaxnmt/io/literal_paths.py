"""Paths in which `*`, `?` and `[` are ordinary characters."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator

from etils.epath.gpath import PosixGPath


class LiteralPath(PosixGPath):
    """An `epath.Path`, on this computer or in a bucket, whose `glob` takes the folder's own name as it is.

    etils joins folder and pattern and takes both for a pattern. By such a glob Orbax finds what its processes have written: in a folder
    called `[1]` it finds nothing, reports nothing, and the checkpoint cannot be read. etils and Orbax keep the class of a path.
    """

    def glob(self, pattern: str) -> Iterator[LiteralPath]:
        """Yield the paths below this folder that match, part by part; `**` is not supported."""
        found = [self]
        for part in pattern.split("/"):
            found = [path for folder in found if folder.is_dir() for path in folder.iterdir() if fnmatch.fnmatchcase(path.name, part)]
        yield from found
