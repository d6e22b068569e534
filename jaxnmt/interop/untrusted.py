"""Read files that others made: bounded in size, and refused by name. Nothing in them is executed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jaxnmt.errors import UserError

MIB = 2**20
SETTINGS_SIZE, VOCABULARY_SIZE = 1 * MIB, 16 * MIB
"""Bytes that a file of settings and one of a vocabulary may have. JSON takes up to twenty times as much when it is read."""


def read_bytes(path: Path, most: int) -> bytes:
    """Return the content of a file.

    Raises:
        UserError: it is missing, is not a regular file, cannot be read, or has more than `most` bytes.
    """
    if not path.exists():
        raise UserError(f"{path.parent} has no {path.name}")
    if not path.is_file():
        raise UserError(f"{path} is not a file")
    if (size := path.stat().st_size) > most:
        raise UserError(f"{path} has {size:,} bytes, and such a file has at most {most:,}")
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error


def read_json(path: Path, most: int = SETTINGS_SIZE) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Raises:
        UserError: as `read_bytes`; or it is not JSON in UTF-8, nests too deeply, has a name twice, or holds something else.
    """
    data = read_bytes(path, most)
    try:
        found = json.loads(data.decode(), object_pairs_hook=_unique)
        json.dumps(found, ensure_ascii=False).encode()  # half a surrogate pair has no UTF-8
    except RecursionError:
        raise UserError(f"{path} is not what it should be: its JSON nests too deeply") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON as it should be: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} holds a JSON {type(found).__name__}, not an object")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the name {name[:50]!r} occurs twice")
        found[name] = value
    return found
