"""Ctrl-C and SIGTERM, answered between two steps; by all processes after the same one."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any

from jaxnmt.parallel import distributed


class Signals:
    """Ctrl-C and SIGTERM ask the loop to save and leave; Ctrl-C after that leaves at once. SIGTERM again changes nothing: schedulers send
    it to a process and to those that would pass it on.

    Among several processes SIGTERM is JAX's to catch: it tells all of them, and they agree on a step. Ctrl-C in one becomes SIGTERM
    for all, so that they leave together and with one status.
    """

    def __init__(self) -> None:
        self.received = 0
        self._old: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        for number in (signal.SIGINT,) if distributed.several() else (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(ValueError):  # not in the main thread: then signals are not ours
                self._old[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def stop_after(self, step: int) -> bool:
        """Whether this step is the last; asked after each."""
        if not distributed.several():
            return bool(self.received)
        if stop := distributed.reached_preemption(step):
            self.received = signal.SIGTERM
        return stop

    def _handle(self, number: int, _frame: Any) -> None:
        if self.received:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self.received = number
        if distributed.several():
            os.kill(os.getpid(), signal.SIGTERM)
