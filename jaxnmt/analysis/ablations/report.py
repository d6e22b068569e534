"""A study's report: a table on the terminal, and the same as Markdown, CSV and LaTeX in its folder."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from jaxnmt.analysis.ablations import results
from jaxnmt.analysis.ablations.budgets import Size
from jaxnmt.analysis.ablations.results import Row
from jaxnmt.analysis.ablations.study import Study


def write(study: Study, folder: pathlib.Path, sizes: dict[str, Size]) -> None:
    """Write the report's files, each whole or not at all, and print the table."""
    rows = results.gather(study, folder, sizes)
    files = {
        "report.md": results.markdown(study, rows) + "\n",
        "report.csv": results.table_csv(rows),
        "report.tex": results.latex(study, rows) + "\n",
    }
    for name, text in files.items():
        temporary = folder / f"{name}.tmp"
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(folder / name)
    _print(study, rows)


def _print(study: Study, rows: Sequence[Row]) -> None:
    console = Console()
    if not console.is_terminal:
        print(results.markdown(study, rows))
        return
    table = Table(*results.HEADINGS)
    for row in rows:
        table.add_row(*results.cells(row, len(study.seeds)))
    console.print(table)
