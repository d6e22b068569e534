"""Call Orbax without side effects, report disk errors in a sentence, and remove checkpoints."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import errno
import functools
import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from jaxnmt.errors import UserError
from jaxnmt.io import files
from jaxnmt.io.literal_paths import LiteralPath
from jaxnmt.runs import directory

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


def with_orbax(method: Callable) -> Callable:
    """Let a method call Orbax without side effects on the process, and raise UserError if the disk is full.

    The method's object has the run's folder as `_run`.

    Orbax's log lines are dropped: what fails is raised. If this thread runs an event loop, as a notebook's does, the method runs in another
    one: there Orbax would need nest_asyncio, which changes asyncio for the whole process.
    """

    @functools.wraps(method)
    def call(self: Any, *args: Any) -> Any:
        not_orbax = lambda record: "orbax" not in record.pathname  # noqa: E731
        logger = logging.getLogger("absl")
        logger.addFilter(not_orbax)
        try:
            with disk_errors(self._run), concurrent.futures.ThreadPoolExecutor(1) as pool:
                if asyncio._get_running_loop() is None:
                    return method(self, *args)
                return pool.submit(method, self, *args).result()
        finally:
            logger.removeFilter(not_orbax)

    return call


def remove(place: LiteralPath) -> None:
    """Remove a checkpoint so that no part of it passes for a whole one. If this process is killed, the next session removes the rest."""
    if files.in_bucket(place):
        (place / directory.COMMITTED).unlink()
    else:
        place = place.rename(place.with_name(f"{place.name}{ocp.utils.TMP_DIR_SUFFIX}removed"))
    with contextlib.suppress(OSError):  # an NFS server may hold a file back
        place.rmtree()


@contextlib.contextmanager
def disk_errors(run: Path) -> Iterator[None]:
    """Raise UserError for a full or read-only disk. TensorStore hides the system's error number in a ValueError's text."""
    try:
        yield
    except (OSError, ValueError) as error:
        hidden = re.search(r"os_error_code='(\d+)'", str(error))
        number = int(hidden[1]) if hidden else getattr(error, "errno", None)
        if number not in _DISK:
            raise
        raise UserError(
            f"{getattr(error, 'filename', None) or run} cannot be written ({os.strerror(number)}): free or repair the disk, "
            f"then `jaxnmt resume {run}` resumes from the last complete checkpoint"
        ) from error
