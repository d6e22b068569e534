"""Figures and tables: line charts with bands, scatter plots and heat maps, as SVG; their numbers, as CSV; tables on the terminal."""

from __future__ import annotations

import csv
import dataclasses
import html
import io
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

# Okabe and Ito's colours, which colour-blind readers can distinguish; dashes distinguish lines too.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
DASHES = ("-", "--", ":", "-.", (0, (6, 2, 1, 2, 1, 2)))
WRITTEN = 24  # a heat map with at most this many columns shows its numbers
LABELLED = 10  # on a logarithmic axis at most this many values have a label each


class Line(NamedTuple):
    """A curve; `low` and `high` bound its band."""

    x: list[float]
    y: list[float]
    low: list[float]
    high: list[float]


def line(points: Sequence[Sequence[float]]) -> Line:
    """Return the line through points (x, y, low, high)."""
    return Line(*([point[i] for point in points] for i in range(4)))


def over_seeds(curves: Sequence[Mapping[float, float]]) -> Line:
    """Return the mean of several {x: y}, at the x that all have, with a band of one standard deviation."""
    points = []
    for x in sorted(set.intersection(*map(set, curves))):
        mean, width = mean_and_deviation([curve[x] for curve in curves])
        points.append((x, mean, mean - width, mean + width))
    return line(points)


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the sample standard deviation, which is 0 for a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


class Grid(NamedTuple):
    """A heat map: `rows` and `columns` name the rows and columns of `values`; without names they are numbered from 0."""

    values: Sequence[Sequence[float]]
    rows: Sequence[str] = ()
    columns: Sequence[str] = ()


def chart(lines: Mapping[str, Line], title: str, x: str, y: str, log_x: bool = False, log_y: bool = False, bars: bool = False) -> str:
    """Return the lines as one self-contained SVG that scales to the available width; bands are drawn as error bars with `bars`."""

    def draw(figure) -> None:
        from matplotlib.ticker import MaxNLocator

        axes = figure.subplots()
        for i, (name, line) in enumerate(lines.items()):
            colour, dash = COLOURS[i % len(COLOURS)], DASHES[i % len(DASHES)]  # a dashed line leaves a line beneath it visible
            marker = "o" if len(line.x) < 35 else ""
            axes.plot(line.x, line.y, linestyle=dash, color=colour, label=_plain(name), marker=marker, markersize=3)
            if bars:
                axes.vlines(line.x, line.low, line.high, color=colour, alpha=0.6, linewidth=0.7)
            else:
                axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.15, linewidth=0)
        axes.set(title=_plain(title), xlabel=x, ylabel=y, xscale="log" if log_x else "linear", yscale="log" if log_y else "linear")
        values = sorted({value for line in lines.values() for value in line.x})
        if log_x and len(values) <= LABELLED:
            axes.set_xticks(values, [f"{value:,g}" for value in values])
            axes.minorticks_off()
        elif not log_x and all(float(value).is_integer() for value in values):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        if bars:  # between the bars there is no room
            figure.legend(loc="outside lower center", ncols=4, frameon=False)
        else:
            axes.legend(frameon=False)

    return _drawn(title, 4.2, draw)


def scatter(groups: Mapping[str, Mapping[str, Sequence[float]]], title: str, x: str, y: str) -> str:
    """Return points (x, y), each with a label, as one SVG: one colour per group."""

    def draw(figure) -> None:
        axes = figure.subplots()
        for colour, (group, points) in zip(COLOURS, groups.items(), strict=False):
            axes.scatter([x for x, _ in points.values()], [y for _, y in points.values()], s=8, color=colour, label=_plain(group))
            for name, point in points.items():
                axes.annotate(_plain(name), point, xytext=(3, 3), textcoords="offset points", fontsize=8, color=colour)
        axes.set(title=_plain(title), xlabel=x, ylabel=y)
        axes.margins(0.08)
        axes.grid(alpha=0.25)
        if len(groups) > 1:
            axes.legend(frameon=False)

    return _drawn(title, 6.5, draw)


def heat_maps(grids: Mapping[str, Grid], title: str, x: str, y: str, low: float, high: float) -> str:
    """Return heat maps, one below the other, as one SVG with one scale from `low` to `high`. If `low` is negative, it has two colours.

    Narrow ones show their numbers.
    """

    def draw(figure) -> None:
        figure.suptitle(_plain(title), fontsize="large")
        panels = figure.subplots(len(grids), squeeze=False, height_ratios=[max(3, len(grid.values)) for grid in grids.values()])[:, 0]
        for axes, (name, grid) in zip(panels, grids.items(), strict=True):
            colours = "RdBu_r" if low < 0 else "Blues"
            shown = axes.imshow(grid.values, vmin=low, vmax=high, cmap=colours, aspect="auto", interpolation="none")
            axes.set_title(_plain(name), fontsize="medium", loc="left")
            axes.set(ylabel=y)
            axes.spines[:].set_visible(False)
            if grid.rows:
                axes.set_yticks(range(len(grid.rows)), list(map(_plain, grid.rows)))
            if grid.columns:
                axes.set_xticks(range(len(grid.columns)), list(map(_plain, grid.columns)), rotation=60, ha="right", rotation_mode="anchor")
                axes.tick_params(length=0)
            if len(grid.values[0]) <= WRITTEN:
                _write_in(axes, grid, low, high)
        panels[-1].set_xlabel(x)
        figure.colorbar(shown, ax=list(panels), shrink=min(1.0, 3 / len(grids)), pad=0.02)

    rows = sum(max(3, len(grid.values)) if grid.rows else 10 for grid in grids.values())
    return _drawn(title, 1.2 + 0.28 * rows + 0.9 * len(grids), draw)


def _write_in(axes, grid: Grid, low: float, high: float) -> None:
    """Write each number in its cell, in white if the cell is dark."""
    for i, row in enumerate(grid.values):
        for j, value in enumerate(row):
            dark = abs(value) > 0.6 * high if low < 0 else value - low > 0.6 * (high - low)
            text = f"{value:.2f}".replace("0.", ".", 1)
            axes.text(j, i, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")


def _drawn(title: str, height: float, draw: Callable[[Any], None]) -> str:
    """Return a matplotlib figure as SVG without an XML header, as wide as its container, with a label for screen readers.

    `height` is that of a figure 7.5 inches wide.
    """
    import matplotlib
    from matplotlib.figure import Figure  # pyplot would set a backend for the whole process

    settings = {"svg.fonttype": "none", "svg.hashsalt": title, "font.size": 11, "axes.spines.top": False, "axes.spines.right": False}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(7.5, height), layout="constrained")
        draw(figure)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    svg = out.getvalue()
    svg = re.sub(r' width="[^"]*" height="[^"]*"', "", svg[svg.index("<svg") :], count=1)
    style = "max-width: 46rem; width: 100%; background: #fff"
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(title)}" style="{style}"', 1)


def _plain(text: str) -> str:
    """Return text that matplotlib does not read as a formula."""
    return text.replace("$", r"\$")


def lines_csv(lines: Mapping[str, Line]) -> str:
    """Return the numbers of a chart as CSV, one row per point."""
    return to_csv(["line", *Line._fields], ([name, *point] for name, line in lines.items() for point in zip(*line, strict=True)))


def to_csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a header and rows as CSV."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([header, *rows])
    return out.getvalue()


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of text. The first column names the rows, the others are numbers; `note` is printed below."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def __str__(self) -> str:
        widths = [max(map(len, column)) for column in zip(self.header, *self.rows, strict=True)]
        lines = []
        for first, *rest in (self.header, *self.rows):
            numbers = [f"{cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=True)]
            lines.append("  ".join([f"{first:<{widths[0]}}", *numbers]).rstrip())
        lines.insert(1, "-" * max(map(len, lines)))
        return "\n".join(filter(None, [self.title, *lines, self.note]))


Report = tuple[dict[str, str], Table]
"""Figures and numbers, by the suffix or name of the file, and a table for the terminal."""


def span(first: int, last: int) -> str:
    """Return "4–7", or "4" if both are equal."""
    return f"{first}" if first == last else f"{first}–{last}"


def show(tables: Iterable[Table]) -> None:
    """Print tables to stdout: with rich on a terminal, else as plain text."""
    from rich import box, console, table
    from rich.text import Text  # rich must not read [brackets] as markup

    terminal = console.Console(highlight=False)
    for each in tables:
        if not terminal.is_terminal:
            print(f"{each}\n")
            continue
        drawn = table.Table(box=box.SIMPLE_HEAD, title=Text(each.title), title_justify="left", title_style="bold", pad_edge=False)
        for number, name in enumerate(each.header):
            drawn.add_column(Text(name), justify="right" if number else "left", overflow="fold")
        for row in each.rows:
            drawn.add_row(*map(Text, row))
        terminal.print(drawn)
        if each.note:
            terminal.print(Text(f"{each.note}\n", style="dim"))
