"""Lines from stdin or a file, lines to stdout or a file, and standard streams that can no longer be written."""

from __future__ import annotations

import contextlib
import itertools
import os
import pathlib
import select
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any, TextIO

from jaxnmt.errors import UserError
from jaxnmt.io import files, text

STANDARD = ("", "-")
"""File names that mean stdin or stdout."""
GATHER = 0.1
"""Seconds to wait for more lines of a pipe after the first one."""


def line_batches(name: str, size: int, pauses: bool = False, decode: Callable[[bytes], str] = text.decode) -> Iterator[list[str]]:
    """Yield the lines of a file, plain or compressed, or of stdin if `name` is in `STANDARD`, up to `size` at a time.

    A terminal, or a pipe that pauses, yields fewer: its writer may be waiting for an answer.

    Args:
        name: the file.
        size: the most lines of a batch.
        pauses: yield an empty batch whenever a pipe has brought nothing for `GATHER` seconds, so that the caller can do something else.
        decode: returns a line's text; `text.decode_columns` keeps its tabs.

    Raises:
        UserError: the file cannot be read, or is not text. A file raises at once, a pipe when the first batch is taken, a damaged file when
            the damage is reached.
    """
    try:
        file: Any = sys.stdin.buffer if name in STANDARD else files.to_path(name).open("rb")
    except OSError as error:
        raise UserError(f"--input {name} cannot be read: {error.strerror or error}") from None
    shown = "stdin" if name in STANDARD else name
    if file.seekable():
        batches = _file_batches(text.decompressed(file, shown, "--input"), size)
    else:
        batches = _stream_batches(file, shown, size, pauses)
    return ([decode(line) for line in batch] for batch in batches)


def _file_batches(file: Iterable[bytes], size: int) -> Iterator[list[bytes]]:
    rows = iter(file)  # binary files break lines at b"\n" alone
    while lines := list(itertools.islice(rows, size)):
        yield [line.removesuffix(b"\n") for line in lines]


def _stream_batches(stream: Any, name: str, size: int, pauses: bool) -> Iterator[list[bytes]]:
    yield from _until_readable(stream, pauses)
    content = text.decompressed(stream, name, "--input")  # waits for the first bytes
    yield from _arriving(stream, size, pauses) if content is stream else _file_batches(content, size)


def _until_readable(file: Any, pauses: bool) -> Iterator[list[bytes]]:
    """Wait until a file has something to read, or has ended. Yield an empty batch every `GATHER` seconds, if `pauses`."""
    while not select.select([file], [], [], GATHER if pauses else None)[0]:
        yield []


def _arriving(file: Any, size: int, pauses: bool) -> Iterator[list[bytes]]:
    """Yield batches of lines. A batch ends when it is full, or `GATHER` seconds after its first line arrived."""
    lines: list[bytes] = []
    unfinished: list[bytes] = []  # blocks of a line whose end has not arrived; joined once, when it has
    deadline = 0.0
    block = file.read1()  # at most one read of the pipe, and nothing stays in Python's buffer, which `select` does not see
    while block:
        if not lines:
            deadline = time.monotonic() + GATHER
        first, *others = block.split(b"\n")
        unfinished.append(first)
        if others:
            *whole, rest = others
            lines += [b"".join(unfinished), *whole]
            unfinished = [rest]
        while len(lines) >= size or (lines and not select.select([file], [], [], max(0.0, deadline - time.monotonic()))[0]):
            yield lines[:size]
            lines, deadline = lines[size:], time.monotonic() + GATHER
        yield from _until_readable(file, pauses)  # a pipe that does not block has nothing to read before its end, too
        block = file.read1()
    if last := b"".join(unfinished):
        lines.append(last)
    if lines:
        yield lines


@contextlib.contextmanager
def line_writer(name: str, flag: str = "--output") -> Iterator[Callable[[str], object]]:
    """Yield a function that writes a line to a file, or to stdout if `name` is in `STANDARD`.

    The file appears when the block ends. A device such as /dev/null or a named pipe is written in place, and a link stays a link.

    Args:
        flag: the setting that names the file, for messages.

    Raises:
        UserError: the file cannot be written.
    """
    if name in STANDARD:
        yield lambda line: write_stdout(f"{line}\n")
        return
    target = pathlib.Path(os.path.realpath(name))
    in_place = target.exists() and not target.is_file()

    @contextlib.contextmanager
    def writing() -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:  # of a named pipe
            raise
        except OSError as error:
            raise UserError(f"{flag} {name} cannot be written: {error.strerror}") from None

    def write(line: str) -> None:
        with writing():
            file.write(line.encode() + b"\n")

    with contextlib.ExitStack() as stack:
        with writing():
            file = stack.enter_context(_device(target) if in_place else files.open_atomic(target))
        yield write
        with writing():
            file.flush()


@contextlib.contextmanager
def _device(path: pathlib.Path) -> Iterator[IO[bytes]]:
    """Open a device or a named pipe for writing. The caller flushes it: to close it raises nothing."""
    file = path.open("wb")
    try:
        yield file
    finally:
        with contextlib.suppress(OSError):
            file.close()


def write_stdout(text: str) -> None:
    """Write text to stdout at once."""
    sys.stdout.buffer.write(text.encode())  # UTF-8 whatever the locale
    sys.stdout.buffer.flush()


def discard(stream: TextIO) -> None:
    """Redirect a stream to /dev/null. Otherwise Python's flush at exit fails and changes the exit status."""
    with contextlib.suppress(ValueError):  # not a file, or closed
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def is_closed_pipe(stream: TextIO) -> bool:
    """Return whether a stream is a pipe that nobody reads any more, without writing to it."""
    poll = select.poll()
    with contextlib.suppress(ValueError):  # not a file, or closed
        poll.register(stream, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


class TolerantStream:
    """A text stream that never raises OSError: it calls `on_error` with the first one, and discards what is written later."""

    def __init__(self, stream: TextIO, on_error: Callable[[OSError], None]):
        self._stream, self._on_error, self._failed = stream, on_error, False

    def write(self, text: str) -> int:
        """Write text."""
        self._try(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        self._try(self._stream.flush)

    def _try(self, call: Callable[..., Any], *arguments: str) -> None:
        if self._failed:
            return
        try:
            call(*arguments)
        except OSError as error:
            self._failed = True
            discard(self._stream)
            self._on_error(error)

    def __getattr__(self, name: str) -> Any:  # isatty, fileno, encoding
        return getattr(self._stream, name)
