"""Decide whether opening a run may execute the code in it.

A run with a user's own model has a copy of that model's code, and opening the run executes the code. So that a downloaded run cannot
execute anything, this is allowed only if this computer has trained a run with the same code, if the user names the code in this command, or
with `--trust`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
from collections.abc import Iterator

from jaxnmt.errors import UserError

_named: set[str] = set()
_all = False


@contextlib.contextmanager
def everything(wanted: bool = True) -> Iterator[None]:
    """Allow all code within the block, if `wanted`: for `--trust`, and for a process of ours whose parent has checked."""
    global _all
    before, _all = _all, wanted or _all
    try:
        yield
    finally:
        _all = before


def name(code: bytes) -> None:
    """Allow code in this process that the user has named, such as a config file."""
    _named.add(_key(code))


def record(code: bytes) -> None:
    """Record on this computer that it has started a run with this code. If the home folder cannot be written, nothing is recorded."""
    with contextlib.suppress(OSError, RuntimeError):  # Path.home() raises RuntimeError if there is no home
        _folder().mkdir(parents=True, exist_ok=True)
        (_folder() / _key(code)).touch()


def check(code: bytes, run: pathlib.Path, what: str) -> None:
    """Refuse to execute unknown code.

    Args:
        code: a file's content, or the name `module:Class` of a class that is imported.
        run: the folder that is opened.
        what: the code's name in the message.

    Raises:
        UserError: the code may not be executed.
    """
    if not (_all or _key(code) in _named or _is_recorded(code)):
        raise UserError(
            f"opening {run} would execute {what}, and this computer has trained no run with that code: "
            "read it, then repeat the command with --trust"
        )


def _is_recorded(code: bytes) -> bool:
    with contextlib.suppress(OSError, RuntimeError):
        return (_folder() / _key(code)).exists()
    return False


def _key(code: bytes) -> str:
    return hashlib.sha256(code).hexdigest()


def _folder() -> pathlib.Path:
    """Return the folder of trusted code: empty files named by hash (XDG Base Directory Specification: relative paths are ignored)."""
    state = os.environ.get("XDG_STATE_HOME", "")
    return (pathlib.Path(state) if os.path.isabs(state) else pathlib.Path.home() / ".local" / "state") / "jaxnmt" / "trusted"
