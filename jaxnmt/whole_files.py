"""Files that are whole if they are there, on this computer and in a bucket (gs://)."""

from __future__ import annotations

import os
import pathlib
import secrets


def in_bucket(path: os.PathLike[str] | str) -> bool:
    """Whether a path is not one of this computer's."""
    return "://" in os.fspath(path)


def write(path: pathlib.Path, content: str | bytes) -> None:
    """Write a file, whole or not at all: beside its place, and put there by one act of the file system. A bucket does so by itself.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    data = content.encode() if isinstance(content, str) else content
    if in_bucket(path):
        path.write_bytes(data)
        return
    beside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")  # workers on several computers may have one number
    try:
        beside.write_bytes(data)
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
