"""Files that are whole if they are there, on this computer and in a bucket (gs://)."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import secrets
from collections.abc import Iterator
from typing import IO


def in_bucket(path: os.PathLike[str] | str) -> bool:
    """Return whether a path is in a bucket and not on this computer."""
    return "://" in os.fspath(path)


def write(path: pathlib.Path, content: str | bytes) -> None:
    """Write a file, whole or not at all. A bucket does so by itself.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    data = content.encode() if isinstance(content, str) else content
    if in_bucket(path):
        path.write_bytes(data)
        return
    with writing(path) as file:
        file.write(data)


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[IO[bytes]]:
    """Open a file on this computer that appears under its name when the block ends, whole and on disk.

    Raises:
        OSError: it cannot be written. After this or any other error in the block, nothing is left behind.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")  # two computers may have processes of one number
    try:
        with beside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        put(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def put(made: pathlib.Path, place: pathlib.Path) -> None:
    """Rename a whole file or folder to its place, so that a power cut does not undo it."""
    os.replace(made, place)
    try:
        folder = os.open(place.parent, os.O_RDONLY)
    except PermissionError:  # it may be written and not read
        return
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot sync a folder
            raise
    finally:
        os.close(folder)
