"""What one process makes and others wait for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

Say = Callable[[str], None]


@contextlib.contextmanager
def locked(path: Path, say: Say) -> Iterator[None]:
    """Held by one process at a time; freed by the system if that process is killed."""
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process is preparing the same data: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            say(f"{path} cannot be locked ({error.strerror}): do not prepare the same data in two processes at once")
        yield
