"""Line charts with bands, scatter plots and heat maps, as SVG; and their numbers, as CSV."""

from __future__ import annotations

import csv
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
    shared = sorted(set.intersection(*(set(curve) for curve in curves)))
    points = []
    for x in shared:
        values = [curve[x] for curve in curves]
        mean, width = statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0
        points.append((x, mean, mean - width, mean + width))
    return line(points)


class Point(NamedTuple):
    """A point of a scatter plot and its label."""

    name: str
    x: float
    y: float


class Grid(NamedTuple):
    """A heat map: `rows` and `columns` name the rows and columns of `values`; without names they are numbered from 0."""

    values: Sequence[Sequence[float]]
    rows: Sequence[str] = ()
    columns: Sequence[str] = ()


def chart(lines: Mapping[str, Line], title: str, x: str, y: str, log_x: bool = False, log_y: bool = False) -> str:
    """Return the lines as one self-contained SVG that scales to the available width."""

    def draw(figure) -> None:
        from matplotlib.ticker import MaxNLocator

        axes = figure.subplots()
        for i, (name, line) in enumerate(lines.items()):
            colour, dash = COLOURS[i % len(COLOURS)], DASHES[i % len(DASHES)]  # a dashed line leaves a line beneath it visible
            axes.plot(
                line.x, line.y, linestyle=dash, color=colour, label=_plain(name), marker="o" if len(line.x) < 30 else "", markersize=3
            )
            axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.15, linewidth=0)
        axes.set(title=_plain(title), xlabel=x, ylabel=y, xscale="log" if log_x else "linear", yscale="log" if log_y else "linear")
        values = sorted({value for line in lines.values() for value in line.x})
        if log_x and len(values) <= LABELLED:
            axes.set_xticks(values, [f"{value:,g}" for value in values])
            axes.minorticks_off()
        elif not log_x and all(float(value).is_integer() for value in values):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        axes.legend(frameon=False)

    return _drawn(title, 4.2, draw)


def scatter(groups: Mapping[str, Sequence[Point]], title: str, x: str, y: str) -> str:
    """Return labelled points in two dimensions, one colour per group, as one SVG."""

    def draw(figure) -> None:
        axes = figure.subplots()
        for colour, (group, points) in zip(COLOURS, groups.items(), strict=False):
            axes.scatter([point.x for point in points], [point.y for point in points], s=8, color=colour, label=_plain(group))
            for point in points:
                axes.annotate(_plain(point.name), (point.x, point.y), xytext=(3, 3), textcoords="offset points", fontsize=8, color=colour)
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
            shown = axes.imshow(
                grid.values, vmin=low, vmax=high, cmap="RdBu_r" if low < 0 else "Blues", aspect="auto", interpolation="none"
            )
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
    """Return a matplotlib figure as SVG, 7.5 inches wide and `height` inches high."""
    import matplotlib
    from matplotlib.figure import Figure  # pyplot would set a backend for the whole process

    style = {"svg.fonttype": "none", "svg.hashsalt": title, "font.size": 11, "axes.spines.top": False, "axes.spines.right": False}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(7.5, height), layout="constrained")
        draw(figure)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    return _scaling(out.getvalue(), title)


def _plain(text: str) -> str:
    """Return text that matplotlib does not read as a formula."""
    return text.replace("$", r"\$")


def _scaling(svg: str, title: str) -> str:
    """Return an SVG without its XML header, as wide as its container, with a label for screen readers."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    label = title.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}" style="max-width: 46rem; width: 100%; background: #fff"', 1)


def lines_csv(lines: Mapping[str, Line]) -> str:
    """Return the numbers of a chart as CSV, one row per point."""
    return to_csv(["line", *Line._fields], ([name, *point] for name, line in lines.items() for point in zip(*line, strict=True)))


def to_csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a header and rows as CSV."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([header, *rows])
    return out.getvalue()
