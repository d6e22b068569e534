"""Exports that bring their own programs: loader.py, which each format has of its own, and translate.py, which is the same for all."""

from __future__ import annotations

import functools
import importlib.resources
import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxnmt.interop.formats import Source
from jaxnmt.io import files

if TYPE_CHECKING:
    from jaxnmt.run import Run

LOADER, PROGRAM = "loader.py", "translate.py"
BATCH = 64
"""Sentences that are translated together."""


def save_programs(folder: Path, loader: str) -> None:
    """Write loader.py and translate.py.

    Args:
        folder: the export's folder.
        loader: name of the file of this package that becomes loader.py. Its function `load(beam_size)` returns a function of lists of
            token ids.
    """
    for name, of_package in ((LOADER, loader), (PROGRAM, "translate_lines.py")):
        files.write(folder / name, importlib.resources.files("jaxnmt.interop").joinpath(of_package).read_text(encoding="utf-8"))


class LoadedExport:
    """An export that its own loader.py runs, as `formats.Runtime`."""

    least = 0.99

    def __init__(self, run: Run, folder: Path, name: str, decoding: Mapping[str, Any], is_float32: bool) -> None:
        """Execute loader.py of a run's export. For `name`, `decoding` and `is_float32` see `formats.Runtime`."""
        self.name, self.decoding, self.is_float32 = name, decoding, is_float32
        self.load = functools.cache(runpy.run_path(str(folder / LOADER))["load"])
        self._pieces = run.tokenizer.target_pieces

    def translate(self, sources: Sequence[Source], beam_size: int) -> list[list[str]]:
        """Return the tokens of each best translation."""
        find = self.load(beam_size)
        order = sorted(range(len(sources)), key=lambda number: len(sources[number].ids))
        found: dict[int, list[str]] = {}
        for start in range(0, len(order), BATCH):
            numbers = order[start : start + BATCH]
            found |= dict(zip(numbers, map(self._pieces, find([sources[number].ids for number in numbers])), strict=True))
        return [found[number] for number in range(len(sources))]
