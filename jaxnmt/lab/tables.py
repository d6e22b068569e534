"""Tables for readers: on a terminal, as plain text, and (in `pages`) as HTML."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Sequence
from typing import TextIO


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of text. The first column names the rows, the others are numbers; `note` is printed below."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def __str__(self) -> str:
        widths = [max(map(len, column)) for column in zip(self.header, *self.rows, strict=True)]
        lines = [_line(cells, widths) for cells in (self.header, *self.rows)]
        return "\n".join([self.title, lines[0], "-" * max(map(len, lines)), *lines[1:], *([self.note] if self.note else [])])


def span(first: int, last: int) -> str:
    """Return "4–7", or "4" if both are equal."""
    return f"{first}" if first == last else f"{first}–{last}"


def show(tables: Iterable[Table], file: TextIO | None = None) -> None:
    """Print tables to `file` (default: stdout): with rich on a terminal, else as plain text."""
    from rich.console import Console

    console = Console(file=file or sys.stdout, highlight=False)
    for table in tables:
        if console.is_terminal:
            _draw(table, console)
        else:
            print(f"{table}\n", file=file or sys.stdout)


def _draw(table: Table, console) -> None:
    from rich import box
    from rich.table import Table as Drawn
    from rich.text import Text

    drawn = Drawn(box=box.SIMPLE_HEAD, title=Text(table.title), title_justify="left", title_style="bold", pad_edge=False)
    for number, name in enumerate(table.header):
        drawn.add_column(Text(name), justify="right" if number else "left", overflow="fold")
    for row in table.rows:
        drawn.add_row(*map(Text, row))  # Text: rich must not read [brackets] as markup
    console.print(drawn)
    if table.note:
        console.print(Text(f"{table.note}\n", style="dim"))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = zip(cells, widths, strict=True)
    return "  ".join([f"{first[0]:<{first[1]}}", *(f"{cell:>{width}}" for cell, width in rest)]).rstrip()
