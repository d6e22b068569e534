"""Lines of text in and out: stdin and stdout, or files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import pathlib
import select
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from jaxnmt.errors import UserError
from jaxnmt.io import whole_files

STANDARD = ("", "-")
"""Names of stdin, or stdout, where a file is expected."""
GATHER = 0.1
"""Seconds that more lines of a pipe are waited for, once there is one."""


def windows(name: str, size: int) -> Iterator[list[str]]:
    """Yield the lines of a file, plain or compressed, or of stdin if `name` is in `STANDARD`, up to `size` at a time.

    A terminal or a pipe that pauses gives fewer, since whoever writes there may be waiting for an answer.

    Raises:
        UserError: the file cannot be read, or is not text; at once, not when the first line is asked for. Of a pipe, and where a file is
            damaged: when it is read.
    """
    from etils import epath  # these take a quarter of a second to import: not before the user's words are checked

    from jaxnmt.io.lines import decode
    from jaxnmt.io.text_files import decompressed

    try:
        file: Any = epath.Path(name).expanduser().open("rb") if name not in STANDARD else sys.stdin.buffer
    except OSError as error:
        raise UserError(f"--input {name} cannot be read: {error.strerror or error}") from None
    read = functools.partial(decompressed, file, "stdin" if name in STANDARD else name, "--input")
    lines = _of_stream(file, read, size) if _is_stream(file) else _at_hand(read(), size)
    return ([decode(line) for line in window] for window in lines)


def _of_stream(stream: Any, read: Callable[[], Any], size: int) -> Iterator[list[bytes]]:
    if stream.peek(1):  # waits for the first bytes
        text = read()
        yield from _arriving(stream, size) if text is stream else _at_hand(text, size)


def _at_hand(file: Iterable[bytes], size: int) -> Iterator[list[bytes]]:
    rows = iter(file)  # a bytes file breaks lines at b"\n" alone
    while lines := list(itertools.islice(rows, size)):
        yield [line.removesuffix(b"\n") for line in lines]


def _is_stream(file: Any) -> bool:
    """Whether it is a terminal, a pipe or a socket."""
    try:
        return not stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    except (AttributeError, OSError):  # it is of Python's making
        return False


def _arriving(file: Any, size: int) -> Iterator[list[bytes]]:
    """A window ends when it is full, or `GATHER` seconds after its first line. What comes while it is translated is the next one."""
    lines: list[bytes] = []
    begun: list[bytes] = []  # blocks of a line whose end has not come; joined once, when it has
    until = 0.0
    first = file.read1(1 << 16)  # what is in Python's buffer, which `select` does not see; from here on nothing is put there
    while True:
        left = max(0.0, until - time.monotonic()) if lines else None  # None: for ever
        if not first and (len(lines) >= size or not select.select([file], [], [], left)[0]):
            yield lines[:size]
            lines, until = lines[size:], time.monotonic() + GATHER
        elif block := first or os.read(file.fileno(), 1 << 16):
            first = b""
            if not lines:
                until = time.monotonic() + GATHER
            *ends, rest = block.split(b"\n")
            if ends:
                lines += [b"".join([*begun, ends[0]]), *ends[1:]]
                begun = []
            begun += [rest] if rest else []
        else:
            break
    if last := [*lines, b"".join(begun)] if begun else lines:
        yield last


@contextlib.contextmanager
def writer(name: str, flag: str = "--output") -> Iterator[Callable[[str], object]]:
    """Yield a function that writes a line to a file, which appears when all is written, or to stdout if `name` is in `STANDARD`.

    A device such as /dev/null or a named pipe is written to in place; of a link, the file that it points to.

    Args:
        flag: the setting that named the file, for messages.

    Raises:
        UserError: the file cannot be written.
    """
    if name in STANDARD:
        yield _to_stdout
        return
    target = pathlib.Path(os.path.realpath(name))
    in_place = target.exists() and not target.is_file()
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open(target, "wb") if in_place else whole_files.writing(target))
        except OSError as error:
            raise UserError(f"{flag} {name} cannot be written: {error.strerror}") from None
        yield lambda line: file.write(line.encode() + b"\n")


def _to_stdout(line: str) -> None:
    sys.stdout.buffer.write(line.encode() + b"\n")  # UTF-8 whatever the locale
    sys.stdout.buffer.flush()
