"""Write files atomically, lock them, and tell paths in a bucket (gs://) from paths on this computer."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import secrets
from collections.abc import Callable, Iterator
from typing import IO


def in_bucket(path: os.PathLike[str] | str) -> bool:
    """Return whether a path is in a bucket."""
    return "://" in os.fspath(path)


def to_path(name: str | os.PathLike[str]) -> pathlib.Path:
    """Return the path of a name, on this computer or in a bucket. `~` is the home folder. A path is returned as it is."""
    if isinstance(name, pathlib.PurePath):
        return name  # type: ignore[return-value]
    if not in_bucket(name):
        return pathlib.Path(os.path.expanduser(name))
    from jaxnmt.io.literal_paths import LiteralPath  # etils takes a quarter of a second to import

    return LiteralPath(name)  # type: ignore[return-value]


def write(path: pathlib.Path, content: str | bytes) -> None:
    """Write a file atomically: readers see the old content or the new one.

    Raises:
        OSError: the file cannot be written. No partial file is left.
    """
    data = content.encode() if isinstance(content, str) else content
    if in_bucket(path):
        path.write_bytes(data)  # an upload is atomic
        return
    with open_atomic(path) as file:
        file.write(data)


@contextlib.contextmanager
def open_atomic(path: pathlib.Path) -> Iterator[IO[bytes]]:
    """Open a temporary file on this computer for writing; when the block ends, sync it to disk and rename it to `path`.

    If the block raises, the temporary file is removed and `path` stays as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")  # process ids may repeat across computers
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def replace(source: pathlib.Path, target: pathlib.Path) -> None:
    """Rename a file or a folder and sync the parent folder, so that a power cut does not undo the rename."""
    os.replace(source, target)
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:  # not every folder can be opened and synced
        folder = os.open(target.parent, os.O_RDONLY)
        stack.callback(os.close, folder)
        os.fsync(folder)


@contextlib.contextmanager
def lock(path: pathlib.Path, say: Callable[[str], object], when_held: str | Exception) -> Iterator[None]:
    """Hold an exclusive lock on a file while the block runs. The system releases the lock when the process ends, even if it is killed.

    Args:
        path: the lock file on this computer. It is created, and stays.
        say: receives lines for the user. If the file system does not support locks, it receives a warning, and the block runs without one.
        when_held: what to do if another process holds the lock: raise this exception, or say this line and wait.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if isinstance(when_held, Exception):
                raise when_held from None
            say(when_held)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            say(f"{path} cannot be locked ({error.strerror}): do not start the same command twice at the same time")
        yield
