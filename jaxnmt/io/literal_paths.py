"""Paths in which `*`, `?` and `[` are ordinary characters."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator

from etils.epath.gpath import PosixGPath


class LiteralPath(PosixGPath):
    """An `epath.Path`, on this computer or in a bucket, whose `glob` takes the folder's own name literally.

    etils joins the folder and the pattern and treats both as a pattern. Orbax finds its checkpoints by such a glob: in a folder named `[1]`
    it finds nothing, reports nothing, and the checkpoint cannot be read. etils and Orbax preserve the class of a path.
    """

    def glob(self, pattern: str) -> Iterator[LiteralPath]:
        """Yield the paths below this folder that match a pattern; `**` is not supported."""
        found = [self]
        for part in pattern.split("/"):
            found = [path for folder in found if folder.is_dir() for path in folder.iterdir() if fnmatch.fnmatchcase(path.name, part)]
        yield from found
