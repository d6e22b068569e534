"""Pairs from the files of translators and of corpora: for each suffix a module with one reader."""

from __future__ import annotations

import pkgutil
from pathlib import Path

from jaxnmt.data.formats.units import Request, Units
from jaxnmt.io.table_folders import SUFFIXES, folder_and_split
from jaxnmt.io.text import suffix_of

_READERS = {
    ".tmx": "tmx:Tmx",
    ".po": "gettext:Gettext",
    ".mo": "gettext:Gettext",
    ".xlf": "xliff:Xliff",
    ".xliff": "xliff:Xliff",
    ".zip": "archive:Archive",
    ".tsv": "scored:Scored",
    **dict.fromkeys(SUFFIXES, "parquet:Parquet"),
}


def is_format(text: str) -> bool:
    """Return whether a word names a file of one of these formats, also a compressed one, or a folder of a dataset."""
    return "," not in text and (suffix_of(text) in _READERS or folder_and_split(text) is not None)


def open_format(request: Request, cache: Path | None) -> Units:
    """Open the file that a request names.

    Args:
        cache: what was found by reading the file is kept in this folder. None: nothing is kept.

    Raises:
        UserError: the file is missing, damaged, or of other languages than the requested ones.
    """
    reader = pkgutil.resolve_name(f"{__name__}.{_READERS.get(suffix_of(request.name), 'parquet:Parquet')}")
    return Units(reader(request), cache)
