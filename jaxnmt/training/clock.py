"""Where a session's time goes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator


class Clock:
    """Time spent training and waiting for input, not validating or saving; and tokens in that time."""

    def __init__(self, before: float = 0.0) -> None:
        """`before`: seconds that earlier sessions have trained."""
        now = time.perf_counter()
        self._window_start = now
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

    def take_window(self) -> tuple[float, float, int, int, int]:
        """(seconds, of them waiting, source tokens, target tokens, steps) since the last call."""
        now = time.perf_counter()
        result = (max(now - self._window_start - self._paused, 1e-9), self._waited, self._source, self._target, self._steps)
        self._window_start, self._paused, self._waited = now, 0.0, 0.0
        self._source = self._target = self._steps = 0
        return result

    @property
    def trained(self) -> float:
        """Seconds of training, all sessions together."""
        return time.perf_counter() - self._start
