"""Line charts with bands, as SVG, each with the numbers that it shows as CSV."""

from __future__ import annotations

import csv
import io
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

# Okabe and Ito's colours, told apart by those who see few; then dashes tell lines apart too.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
DASHES = ("-", "--", ":", "-.")


class Line(NamedTuple):
    """A named curve; `low` and `high` bound its band."""

    x: list[float]
    y: list[float]
    low: list[float]
    high: list[float]


def over_seeds(curves: Sequence[Mapping[float, float]]) -> Line:
    """The mean of several {x: y}, at the x that all have, and a band of one standard deviation."""
    shared = sorted(set.intersection(*(set(curve) for curve in curves)))
    values = [[curve[x] for curve in curves] for x in shared]
    means = [statistics.fmean(value) for value in values]
    widths = [statistics.stdev(value) if len(value) > 1 else 0.0 for value in values]
    low, high = ([m + sign * w for m, w in zip(means, widths, strict=True)] for sign in (-1, 1))
    return Line(list(shared), means, low, high)


def chart(lines: Mapping[str, Line], title: str, x: str, y: str, log_x: bool = False, log_y: bool = False) -> str:
    """The lines as one SVG, that scales to the width it is given and needs nothing from elsewhere."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    style = {"svg.fonttype": "none", "svg.hashsalt": title, "font.size": 11, "axes.spines.top": False, "axes.spines.right": False}
    with pyplot.rc_context(style):
        figure, axes = pyplot.subplots(figsize=(7.5, 4.2), layout="constrained")
        for i, (name, line) in enumerate(lines.items()):
            colour, dash = COLOURS[i % len(COLOURS)], DASHES[i // len(COLOURS) % len(DASHES)]
            axes.plot(line.x, line.y, dash, color=colour, label=name, marker="o" if len(line.x) < 30 else "", markersize=3)
            axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.15, linewidth=0)
        axes.set(title=title, xlabel=x, ylabel=y, xscale="log" if log_x else "linear", yscale="log" if log_y else "linear")
        axes.grid(alpha=0.25)
        axes.legend(frameon=False)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
        pyplot.close(figure)
    return _scaling(out.getvalue(), title)


def _scaling(svg: str, title: str) -> str:
    """An SVG without its XML head, as wide as its place, and named for those who do not see it."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    label = title.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}" style="max-width: 46rem; width: 100%; background: #fff"', 1)


def table(lines: Mapping[str, Line]) -> str:
    """The numbers of a chart, a line a point."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["line", *Line._fields])
    for name, line in lines.items():
        writer.writerows([name, *point] for point in zip(*line, strict=True))
    return out.getvalue()
