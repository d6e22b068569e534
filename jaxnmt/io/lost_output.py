"""Standard streams that cannot be written any more: a closed pipe, a terminal that is gone, a full disk."""

from __future__ import annotations

import contextlib
import io
import os
import select
import stat
from collections.abc import Callable
from typing import Any, TextIO


def discard(stream: TextIO) -> None:
    """Send what is written to a stream from now on to /dev/null. Otherwise Python's flush at exit fails and changes the exit status."""
    with contextlib.suppress(io.UnsupportedOperation, ValueError):  # it is not a file, or closed
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def is_closed_pipe(stream: TextIO) -> bool:
    """Return whether a stream is a pipe that nobody reads any more, without writing to it."""
    try:
        if not stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode):
            return False
    except (io.UnsupportedOperation, ValueError):  # it is not a file, or closed
        return False
    poll = select.poll()
    poll.register(stream, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


class Watched:
    """A text stream that raises nothing: `lost` is called with the first error, and what is written after it goes nowhere."""

    def __init__(self, stream: TextIO, lost: Callable[[OSError], None]):
        self._stream, self._report, self._lost = stream, lost, False

    def write(self, text: str) -> int:
        """Write text; see the class."""
        self._try(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Flush; see the class."""
        self._try(self._stream.flush)

    def _try(self, act: Callable[..., Any], *arguments: str) -> None:
        if self._lost:
            return
        try:
            act(*arguments)
        except OSError as error:
            self._lost = True
            discard(self._stream)
            self._report(error)

    def __getattr__(self, name: str) -> Any:  # isatty, fileno, encoding
        return getattr(self._stream, name)
