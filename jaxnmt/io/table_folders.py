"""Find folders of Parquet or Arrow files, in which Hugging Face keeps datasets, and their splits."""

from __future__ import annotations

import contextlib
import pathlib
import re

from jaxnmt.io import files

SUFFIXES = (".parquet", ".arrow")


def splits_of(folder: str) -> dict[str, list[pathlib.Path]]:
    """Return the files of each split in a folder, or in its folder `data`; empty if it has none.

    The split is the beginning of a name: `train` of `train-00000-of-00001.parquet`.
    """
    found: dict[str, list[pathlib.Path]] = {}
    # The name is too long, or in a folder that may not be read.
    with contextlib.suppress(OSError):
        for place in (files.to_path(folder), files.to_path(folder) / "data"):
            for path in sorted(place.iterdir()) if place.is_dir() else ():
                if path.suffix in SUFFIXES:
                    found.setdefault(re.split(r"-\d{5}-of-|\.", path.name)[0], []).append(path)
    return found


def folder_and_split(text: str) -> tuple[str, str] | None:
    """Return the folder and the split that a word names, `books:train` or `books`; None if it names no such folder."""
    folder, colon, split = text.rpartition(":")
    for name, part in ((text, ""), (folder, split)):
        if name and splits_of(name):
            return name, part
    return None
