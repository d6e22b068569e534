"""Checks and output shared by the verbs that draw or compare systems."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from jaxnmt.cli.verbs.common import Checkpoint, Tokenize, say, writable
from jaxnmt.errors import UserError
from jaxnmt.io import text_streams

if TYPE_CHECKING:
    from jaxnmt.lab.compare import Settings
    from jaxnmt.lab.tables import Table


@dataclasses.dataclass(frozen=True)
class Systems:
    """Options of verbs that take systems: runs, or files of translations."""

    source: str = ""
    """File of source sentences; when empty, with --reference empty too, the first run's test sentences."""
    reference: tuple[str, ...] = ()
    """File of their reference translations, or several files, one for each reference."""
    split: Literal["test", "validation"] = "test"
    """The runs' own sentences to translate."""
    checkpoint: Checkpoint = "best"
    """Of the runs: a step, or best, latest, or average (made by `jaxnmt runs average`)."""
    beam_size: int = 0
    """Of the runs; 0: as in each run's settings."""
    pretokenized: bool = False
    """The text of --reference and of the files is already split by spaces: BLEU counts words as they are (tokenize=none)."""
    target_language: str = ""
    """Code of the references' language; when empty, the suffix of the file's name (test.de: de), or the run's."""
    tokenize: Tokenize = ""
    """BLEU's tokenizer, by sacreBLEU's name; when empty, chosen by the references' script and language."""

    def settings(self) -> Settings:
        """Return these options for `lab.compare.gather`."""
        from jaxnmt.lab.compare import Settings

        return Settings(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Settings)})


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
    with text_streams.writer(name, flag) as line:
        line(text.removesuffix("\n"))
    say(f"written: {name}")


def publish(output: str, files: Mapping[str, str], table: Table | None = None) -> None:
    """Write files and print a table; a file's key is appended to `output` without its .svg."""
    from jaxnmt.lab import tables

    for suffix, text in files.items():
        write(output.removesuffix(".svg") + suffix, text)
    if table:
        tables.show([table])
