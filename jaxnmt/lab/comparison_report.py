"""Tables of a comparison, and a page with examples."""

from __future__ import annotations

import html
import pathlib
from collections.abc import Sequence

from jaxnmt.errors import UserError
from jaxnmt.evaluation.scores import Estimate, MetricResult
from jaxnmt.evaluation.test_sets import TestSet
from jaxnmt.lab import pages
from jaxnmt.lab.breakdowns import ORDERS
from jaxnmt.lab.compare import Comparison, System
from jaxnmt.lab.tables import Table

_TESTS = {"paired-bootstrap": "paired bootstrap resampling", "approximate-randomisation": "paired approximate randomisation"}


def tables(found: Comparison) -> list[Table]:
    """Return scores with intervals and tests, then the breakdowns."""
    names = labels(found.systems)
    shapes = [(s.length_ratio, s.under_half, s.over_double, s.empty, s.unfinished) for s in found.shapes]
    first = "" if found.references == 1 else "the first of each sentence's references"
    repeated = [*zip(names, found.repetition, strict=True), ("reference", found.reference_repetition)]
    return [
        *(_scores(metric, found) for metric in found.metrics),
        *(
            Table(
                f"{metric} by the source's length",
                ("words", "sentences", *names),
                tuple((row.words, f"{row.sentences:,}", *(f"{score:.2f}" for score in getattr(row, field))) for row in found.by_length),
            )
            for metric, field in (("BLEU", "bleu"), ("chrF++", "chrf"))
        ),
        Table(
            "F1 of words by their frequency",
            ("frequency", "in references", *names),
            tuple((row.frequency, f"{row.words:,}", *map(_percent, row.f1)) for row in found.by_frequency),
            f"Counted in {found.counted_in}.{first and f' Found in {first}.'}",
        ),
        Table(
            "Repeated n-grams in a sentence",
            ("system", *(f"{n}-grams" for n in ORDERS)),
            tuple((name, *map(_percent, shares)) for name, shares in repeated),
            first and f"The reference is {first}.",
        ),
        Table(
            "Length and endings",
            ("system", "length ratio", "under half", "over double", "empty", "unfinished"),
            tuple((name, f"{ratio:.3f}", *map(_percent, shares)) for name, (ratio, *shares) in zip(names, shapes, strict=True)),
            f"Against {first or 'the reference'}; lengths in words; unfinished: without the punctuation that ends the reference.",
        ),
    ]


def heading(found: Comparison) -> str:
    """Describe the systems and the test set in a few lines."""
    made = [f"{name} ({by})" for name, by in zip(found.systems, found.made_by, strict=True)]
    several = f", {found.references} references" if found.references > 1 else ""
    lines = [
        f"{found.sentences:,} sentences of {found.test_set}{several}",
        f"baseline: {made[0]}",
        *(f"against it: {each}" for each in made[1:]),
    ]
    lines += [f"{name} translates every sentence as the baseline does: ignore its p" for name in found.identical]
    return "\n".join([*lines, *([found.note] if found.note else [])])


def page(found: Comparison, test: TestSet, systems: Sequence[System], other: str, examples: int) -> str:
    """Return one HTML page with the tables and the sentences whose chrF++ differs most between the baseline and another system.

    Args:
        other: name of that system; "": the first after the baseline.
        examples: maximum number of losses, and of gains.

    Raises:
        UserError: there is no such system.
    """
    names, parts = labels(found.systems), [pages.paragraph(line) for line in heading(found).splitlines()]
    links = '<p>Examples: <a href="#losses">biggest losses</a>, <a href="#gains">biggest gains</a></p>'
    shown = [pages.table(each) for each in tables(found)]
    if len(systems) == 1:
        return pages.page(names[0], "\n".join([*parts, *shown]))
    chosen = other_system(found.systems, other)
    losses, gains = ranked(found.sentence_chrf[0], found.sentence_chrf[chosen], examples)
    for anchor, title, numbers in (("losses", "Biggest losses", losses), ("gains", "Biggest gains", gains)):
        shown.append(f'<h2 id="{anchor}">{title} of {html.escape(names[chosen])} against {html.escape(names[0])}</h2>')
        which = "reference" if found.references == 1 else "first reference"
        shown.append(pages.paragraph(f"By chrF++ of the sentence; underlined: words that the {which} does not have at that place.", "note"))
        shown += [_example(number, found, test, systems, chosen) for number in numbers] or [pages.paragraph("None.")]
    return pages.page(f"{names[0]} and {', '.join(names[1:])}", "\n".join([*parts, links, *shown]))


def labels(names: Sequence[str]) -> tuple[str, ...]:
    """Return names short enough for a table: the last part of each path, if these are distinct."""
    short = tuple(pathlib.PurePath(name).name or name for name in names)
    return short if len(set(short)) == len(names) else tuple(names)


def other_system(names: Sequence[str], other: str) -> int:
    """Return the index of the system whose examples are shown.

    Raises:
        UserError: it is the baseline, or not among the systems.
    """
    if not other:
        return min(1, len(names) - 1)
    if other.rstrip("/") not in [name.rstrip("/") for name in names[1:]]:
        raise UserError(f"--other {other} is not compared with the baseline {names[0]}; choose from: {', '.join(names[1:]) or 'none'}")
    return [name.rstrip("/") for name in names].index(other.rstrip("/"))


def ranked(baseline: Sequence[float], other: Sequence[float], most: int) -> tuple[list[int], list[int]]:
    """Return the sentences in which `other` loses and gains most, the biggest difference first; of equal ones the first."""
    change = [theirs - mine for mine, theirs in zip(baseline, other, strict=True)]
    order = sorted(range(len(change)), key=lambda number: (change[number], number))
    losses = [number for number in order if change[number] < 0]
    gains = sorted((number for number in order if change[number] > 0), key=lambda number: (-change[number], number))
    return losses[:most], gains[:most]


def _example(number: int, found: Comparison, test: TestSet, systems: Sequence[System], chosen: int) -> str:
    scores = [found.sentence_chrf[place][number] for place in (0, chosen)]
    first, *others = (lines[number] for lines in test.references)
    rows = [("source", html.escape(test.sources[number])), *(("reference", html.escape(text)) for text in (first, *others))]
    for place, score in zip((0, chosen), scores, strict=True):
        rows.append((f"{labels(found.systems)[place]} ({score:.1f})", pages.marked(systems[place].translations[number], first)))
    return f"<article>\n<h3>Sentence {number + 1:,}: {scores[1] - scores[0]:+.1f}</h3>\n{pages.definitions(rows)}\n</article>"


def _scores(metric: MetricResult, found: Comparison) -> Table:
    baseline = metric.estimates[0].score
    rows = [_row(name, estimate, baseline) for name, estimate in zip(labels(found.systems), metric.estimates, strict=True)]
    compared = len(rows) - 1
    less = "; lower is better" if metric.name == "TER" else ""
    tested = f"; p by {_TESTS[found.test]}, then after Holm's correction for {compared}" if compared else ""
    header = ("system", "score", "95 % interval", *(("difference", "p", "p (Holm)") if compared else ()))
    return Table(metric.name, header, tuple(row[: len(header)] for row in rows), f"{metric.signature}{less}{tested}")


def _row(name: str, estimate: Estimate, baseline: float) -> tuple[str, ...]:
    shown = name, f"{estimate.score:.2f}", f"{estimate.mean:.2f} ± {estimate.ci:.2f}"
    if estimate.p is None:
        return *shown, "", "", ""
    return *shown, f"{estimate.score - baseline:+.2f}", f"{estimate.p:.4f}", f"{estimate.p_holm:.4f}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"
