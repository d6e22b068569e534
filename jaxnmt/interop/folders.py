"""Folders that an export or an import makes: whole, or not at all."""

from __future__ import annotations

import contextlib
import os
import pathlib
import secrets
import shutil
from collections.abc import Iterator

from jaxnmt.errors import UserError
from jaxnmt.io import files


def check_new(place: pathlib.Path) -> None:
    """Check that a folder can be made.

    Raises:
        UserError: it exists, or it is in a bucket.
    """
    if files.in_bucket(place):
        raise UserError(f"{place} is in a bucket: choose a folder of this computer, and copy it there")
    if place.exists():
        raise UserError(f"{place} exists: choose another folder, or remove it")


@contextlib.contextmanager
def new_folder(place: pathlib.Path) -> Iterator[pathlib.Path]:
    """Make a temporary folder beside `place`; when the block ends, rename it to `place`. If the block raises, remove it.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    temporary = place.with_name(f".{place.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        files.replace(temporary, place)
    except OSError as error:
        raise UserError(f"{place} cannot be written ({error.strerror or error}): repair that, or choose another folder") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
