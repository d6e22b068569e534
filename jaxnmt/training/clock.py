"""Measure training time, input wait and tokens of a session."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import NamedTuple


class Window(NamedTuple):
    """Time and tokens between two log lines.

    Attributes:
        trained: seconds of training, earlier sessions included.
        seconds: seconds of training in this session. The attributes below are of this session, too.
        waited: seconds spent waiting for input.
    """

    trained: float
    seconds: float
    waited: float
    source_tokens: int
    target_tokens: int
    steps: int


class Clock:
    """Counts the time spent training and waiting for input, without validating and saving, and the tokens in that time."""

    def __init__(self, before: float = 0.0, unlogged: float = 0.0, most: float = 0.0) -> None:
        """Start the clock of a session.

        Args:
            before: seconds of training in earlier sessions.
            unlogged: the part of `before` since the last log line.
            most: limit on the seconds of all sessions together; 0: no limit.
        """
        self._most = most
        now = time.perf_counter()
        self._window_start, self._before_window = now, unlogged
        self._start, self._paused, self._waited = now - before, 0.0, 0.0
        self._source = self._target = self._steps = 0

    def waiting(self, stream: Iterator) -> Iterator:
        """Yield the items of a stream and count the time that each takes to arrive."""
        while True:
            start = time.perf_counter()
            item = next(stream, None)
            self._waited += time.perf_counter() - start
            if item is None:
                return
            yield item

    @contextlib.contextmanager
    def paused(self):
        """Stop the clock within the block."""
        start = time.perf_counter()
        yield
        pause = time.perf_counter() - start
        self._paused, self._start = self._paused + pause, self._start + pause

    def count(self, source: int, target: int) -> None:
        """Count one step and its tokens."""
        self._source, self._target, self._steps = self._source + source, self._target + target, self._steps + 1

    def take_window(self) -> Window:
        """Return time and tokens since the last call, or since the start of the session."""
        now, unlogged = time.perf_counter(), self.unlogged
        window = Window(unlogged, max(unlogged - self._before_window, 1e-9), self._waited, self._source, self._target, self._steps)
        self._window_start, self._before_window, self._paused, self._waited = now, 0.0, 0.0, 0.0
        self._source = self._target = self._steps = 0
        return window

    @property
    def unlogged(self) -> float:
        """Seconds of training since the last call of `take_window`, which may have been in an earlier session."""
        return self._before_window + time.perf_counter() - self._window_start - self._paused

    @property
    def trained(self) -> float:
        """Seconds of training in all sessions."""
        return time.perf_counter() - self._start

    @property
    def is_over(self) -> bool:
        """Whether the limit is reached."""
        return bool(self._most) and self.trained >= self._most

    def seconds_left(self, by_steps: float) -> float:
        """Return the remaining training time in seconds: `by_steps`, or less if the limit comes first."""
        return min(by_steps, max(self._most - self.trained, 0.0)) if self._most else by_steps
