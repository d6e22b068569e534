"""Lines of text in and out: stdin and stdout, or files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import os
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import IO

from jaxnmt.config import UserError
from jaxnmt.data.cleaning import decode


def windows(name: str, size: int) -> Iterator[list[str]]:
    """Lines of a file (`.gz` too), or of stdin when `name` is empty, up to `size` at a time; one at a time from a terminal.

    Raises:
        UserError: the file cannot be read; at once, not when the first line is asked for.
    """
    if not name:
        return _windows(sys.stdin.buffer, 1 if sys.stdin.isatty() else size)
    try:
        file: IO[bytes] = gzip.open(name) if name.endswith(".gz") else open(name, "rb")
    except OSError as error:
        raise UserError(f"--input {name} cannot be read: {error.strerror}") from None
    return _windows(file, size)


def _windows(file: IO[bytes], size: int) -> Iterator[list[str]]:
    with file:
        while lines := list(itertools.islice(file, size)):  # a bytes file breaks lines at b"\n" alone
            yield [decode(line.removesuffix(b"\n")) for line in lines]


@contextlib.contextmanager
def writer(name: str) -> Iterator[Callable[[str], None]]:
    """A function that writes a line to the file `name` (stdout when empty). The file appears when all is written.

    Raises:
        UserError: the file cannot be written.
    """
    if not name:
        yield lambda line: (sys.stdout.buffer.write(f"{line}\n".encode()), sys.stdout.buffer.flush())[0] and None
        return
    target = pathlib.Path(name)
    temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        file = open(temporary, "w", encoding="utf-8", newline="\n")
    except OSError as error:
        raise UserError(f"--output {name} cannot be written: {error.strerror}") from None
    try:
        with file:
            yield lambda line: print(line, file=file)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
