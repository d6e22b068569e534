"""Where verbs that draw put what they have drawn."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

from jaxnmt.cli.verbs.common import writable
from jaxnmt.errors import UserError
from jaxnmt.io import streams
from jaxnmt.parallel.log import say


def at_least(flag: str, value: int, least: int) -> None:
    """Refuse a number that is too small.

    Raises:
        UserError: it is.
    """
    if value < least:
        raise UserError(f"{flag} expects a whole number of {least} or more, not {value}")


def drawable(output: str) -> None:
    """Check, before anything is computed, that a figure can be written.

    Raises:
        UserError: its name does not end in .svg, or as `writable`.
    """
    path = pathlib.Path(output)
    if path.suffix != ".svg":
        raise UserError(f"--output {output}: the chart is an SVG; give a name that ends in .svg")
    writable("--output", output)


def write(output: str, files: Mapping[str, str]) -> None:
    """Write texts beside each other: for each suffix one."""
    for suffix, text in files.items():
        name = str(pathlib.Path(output).with_suffix("")) + suffix
        with streams.line_writer(name) as line:
            line(text.removesuffix("\n"))
        say(f"written: {name}")
