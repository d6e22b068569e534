"""The logger `jaxnmt`: lines for people. A library call prints nothing; the command, and `progress=True`, print them to stderr."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator

from jaxnmt.parallel.distributed import is_leader

_logger = logging.getLogger("jaxnmt")
_logger.addHandler(logging.NullHandler())  # Python prints the warnings of a logger that has no handler


class _Stderr(logging.Handler):
    """Prints to the current `sys.stderr`. Unlike logging's own handlers it raises an error if that cannot be written."""

    def emit(self, record: logging.LogRecord) -> None:
        print(record.getMessage(), file=sys.stderr, flush=True)


def say(line: str) -> None:
    """Log a line at level INFO; of several processes, process 0 does."""
    if is_leader():
        _logger.info("%s", line)


def warn(line: str) -> None:
    """Log a line at level WARNING; of several processes, process 0 does."""
    if is_leader():
        _logger.warning("%s", line)


def silence_libraries() -> None:
    """Print nothing of what fails in Orbax's threads: it is raised again in ours, as one error instead of thirty."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


@contextlib.contextmanager
def printed(wanted: bool = True) -> Iterator[None]:
    """Print the log to stderr within the block, if `wanted` and if no block around it does."""
    if not wanted or any(isinstance(handler, _Stderr) for handler in _logger.handlers):
        yield
        return
    handler, level, propagate = _Stderr(), _logger.level, _logger.propagate
    _logger.addHandler(handler)
    _logger.setLevel(logging.INFO)
    _logger.propagate = False  # a library may give the root logger a handler that prints to stderr, too
    try:
        yield
    finally:
        _logger.removeHandler(handler)
        _logger.setLevel(level)
        _logger.propagate = propagate
