"""What asks training to save and leave: Ctrl-C, SIGTERM, SIGHUP, or stderr that cannot be written. Answered between two steps."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Callable
from typing import Any, NoReturn

from jaxnmt.errors import SAVED, UserError
from jaxnmt.parallel import distributed


class Signals:
    """The first request is answered after the step: the loop saves and leaves. Ctrl-C after that leaves at once. Other signals after it
    change nothing: schedulers send SIGTERM to a process and to those that would pass it on.

    SIGHUP that was ignored when the process started (`nohup`) stays ignored.

    With several processes, SIGTERM is JAX's: it tells all of them, and they agree on a step. Any other request to one process becomes
    SIGTERM to all, so that they leave together and with one status.
    """

    def __init__(self) -> None:
        self.received: int | OSError = 0  # a signal's number, or why stderr cannot be written
        self._old: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        numbers = {signal.SIGINT, signal.SIGHUP, signal.SIGTERM}
        if distributed.is_distributed():
            numbers.remove(signal.SIGTERM)
        if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
            numbers.remove(signal.SIGHUP)
        for number in numbers:
            with contextlib.suppress(ValueError):  # not in the main thread: then signals are not ours
                self._old[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def stderr_lost(self, error: OSError) -> None:
        """Ask for a stop because progress cannot be shown. A closed pipe counts as SIGPIPE, a terminal that is gone as SIGHUP."""
        if error.errno == errno.EIO:
            os.kill(os.getpid(), signal.SIGHUP)
        else:
            self._ask(signal.SIGPIPE if error.errno == errno.EPIPE else error)

    def stop_after(self, step: int) -> bool:
        """Return whether this step is the last; asked after each."""
        if not distributed.is_distributed():
            return bool(self.received)
        if stop := distributed.reached_preemption(step):
            self.received = signal.SIGTERM
        return stop

    def leave(self, saved: str, say: Callable[[str], None]) -> NoReturn:
        """Say where the run stands and end the process.

        Raises:
            KeyboardInterrupt: Ctrl-C. SystemExit: another signal or a closed pipe, with the status `SAVED`. UserError: stderr cannot be
                written for another reason.
        """
        if isinstance(self.received, OSError):
            raise UserError(f"stderr cannot be written ({self.received.strerror}): {saved}")
        if self.received == signal.SIGINT:
            raise KeyboardInterrupt(saved)
        say(saved)
        raise SystemExit(SAVED)

    def _handle(self, number: int, _frame: Any) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._ask(number)

    def _ask(self, reason: int | OSError) -> None:
        if self.received:
            return
        self.received = reason
        if distributed.is_distributed():
            os.kill(os.getpid(), signal.SIGTERM)
