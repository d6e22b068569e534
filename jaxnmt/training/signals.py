"""Ctrl-C and SIGTERM, answered between two steps."""

from __future__ import annotations

import contextlib
import signal
from typing import Any


class Signals:
    """Ctrl-C and SIGTERM ask the loop to save and leave; a second one leaves at once."""

    def __init__(self) -> None:
        self.received = 0
        self._old: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(ValueError):  # not in the main thread: then signals are not ours
                self._old[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: Any) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = number
