"""Stop training between two steps, save and exit: at Ctrl-C, SIGTERM, SIGHUP, or when stderr cannot be written."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from typing import Any, NoReturn

from jaxnmt.errors import Stopped, UserError
from jaxnmt.parallel import distributed


class Signals:
    """Handles signals while training runs.

    The first signal stops training after the current step; the loop then saves and exits. A second Ctrl-C exits at once. Any other second
    signal is ignored, because schedulers send SIGTERM to a process and also to the processes that forward it.

    SIGHUP stays ignored if it was ignored when the process started (`nohup`).

    With several processes, JAX handles SIGTERM: it informs all of them, and they agree on a step. Any other signal to one process is sent
    on as SIGTERM, so that all processes exit together and with the same status.
    """

    def __init__(self, catch: bool) -> None:
        """Make the object; `catch` says whether it handles signals at all. A call from Python does not."""
        self._catch = catch
        self.received: int | OSError = 0  # the number of a signal, or the error of writing to stderr

    def __enter__(self) -> Signals:
        numbers = [signal.SIGINT] if self._catch else []
        if self._catch and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        if self._catch and not distributed.is_distributed():
            numbers.append(signal.SIGTERM)
        self._old = {number: signal.signal(number, self._handle) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def stderr_lost(self, error: OSError) -> None:
        """Stop because stderr cannot be written. A closed pipe or terminal counts as SIGHUP; of a terminal, SIGHUP may be ignored."""
        if error.errno == errno.EIO and self._catch:
            os.kill(os.getpid(), signal.SIGHUP)
        else:
            self._ask(signal.SIGHUP if error.errno in (errno.EPIPE, errno.EIO) else error)

    def stop_after(self, step: int) -> bool:
        """Return whether training must stop after this step. Call it after each step."""
        if not distributed.is_distributed():
            return bool(self.received)
        if stop := distributed.reached_preemption(step):
            self.received = signal.SIGTERM
        return stop

    def leave(self, saved: str, say: Callable[[str], None]) -> NoReturn:
        """Report where the run was saved and end the training.

        Raises:
            KeyboardInterrupt: Ctrl-C. Stopped: another signal or a closed pipe. UserError: stderr cannot be written for another reason.
        """
        if isinstance(self.received, OSError):
            raise UserError(f"stderr cannot be written ({self.received.strerror}): {saved}")
        if self.received == signal.SIGINT:
            raise KeyboardInterrupt(saved)
        say(saved)
        raise Stopped(saved)

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
