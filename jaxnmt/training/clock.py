"""Where a session's time goes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import NamedTuple


class Window(NamedTuple):
    """What lies between two log lines.

    Attributes:
        trained: seconds of training, earlier sessions' too.
        seconds: of this session, which all that follows is of.
        waited: of these, waiting for input.
    """

    trained: float
    seconds: float
    waited: float
    source_tokens: int
    target_tokens: int
    steps: int


class Clock:
    """Time spent training and waiting for input, not validating or saving; and tokens in that time."""

    def __init__(self, before: float = 0.0, unlogged: float = 0.0, most: float = 0.0) -> None:
        """Start the clock of a session.

        Args:
            before: seconds that earlier sessions have trained.
            unlogged: seconds of them since their last log line.
            most: seconds that all sessions together may train; 0: no limit.
        """
        self._most = most
        now = time.perf_counter()
        self._window_start, self._before_window = now, unlogged
        self._start, self._paused, self._waited = now - before, 0.0, 0.0
        self._source = self._target = self._steps = 0

    def waiting(self, stream: Iterator) -> Iterator:
        """The same stream, the time it takes counted."""
        while True:
            start = time.perf_counter()
            item = next(stream, None)
            self._waited += time.perf_counter() - start
            if item is None:
                return
            yield item

    @contextlib.contextmanager
    def paused(self):
        """Time in here is not training."""
        start = time.perf_counter()
        yield
        pause = time.perf_counter() - start
        self._paused, self._start = self._paused + pause, self._start + pause

    def count(self, source: int, target: int) -> None:
        """A step was done."""
        self._source, self._target, self._steps = self._source + source, self._target + target, self._steps + 1

    def take_window(self) -> Window:
        """The time since the last call, or in this session."""
        now, unlogged = time.perf_counter(), self.unlogged
        window = Window(unlogged, max(unlogged - self._before_window, 1e-9), self._waited, self._source, self._target, self._steps)
        self._window_start, self._before_window, self._paused, self._waited = now, 0.0, 0.0, 0.0
        self._source = self._target = self._steps = 0
        return window

    @property
    def unlogged(self) -> float:
        """Seconds of training since `take_window` was called last, in whatever session."""
        return self._before_window + time.perf_counter() - self._window_start - self._paused

    @property
    def trained(self) -> float:
        """Seconds of training, all sessions together."""
        return time.perf_counter() - self._start

    @property
    def is_over(self) -> bool:
        """Return whether the limit is reached."""
        return bool(self._most) and self.trained >= self._most

    def seconds_left(self, by_steps: float) -> float:
        """Return the training time that is left: `by_steps`, or less if the limit comes first."""
        return min(by_steps, max(self._most - self.trained, 0.0)) if self._most else by_steps
