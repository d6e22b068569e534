"""Checks and output shared by the verbs that draw or compare systems."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from jaxnmt.cli.verbs.common import writable
from jaxnmt.errors import UserError
from jaxnmt.io import streams
from jaxnmt.parallel.log import say

if TYPE_CHECKING:
    from jaxnmt.lab.tables import Table


def drawable(output: str) -> None:
    """Check, before anything is computed, that a figure can be written.

    Raises:
        UserError: its name does not end in .svg, or as `writable`.
    """
    if pathlib.Path(output).suffix != ".svg":
        raise UserError(f"--output {output}: the chart is an SVG; give a name that ends in .svg")
    writable("--output", output)


def write(name: str, text: str, flag: str = "--output") -> None:
    """Write a file, and report it on stderr."""
    with streams.line_writer(name, flag) as line:
        line(text.removesuffix("\n"))
    say(f"written: {name}")


def publish(output: str, files: Mapping[str, str], table: Table | None = None) -> None:
    """Write files and print a table; a file's key is appended to `output` without its .svg."""
    from jaxnmt.lab import tables

    for suffix, text in files.items():
        write(output.removesuffix(".svg") + suffix, text)
    if table:
        tables.show([table])
