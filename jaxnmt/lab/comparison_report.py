"""Tables of a comparison, and a page with examples."""

from __future__ import annotations

import html
import statistics
from collections.abc import Sequence
from typing import Any

from jaxnmt import Estimate, MetricResult, TestSet, UserError
from jaxnmt.lab import pages
from jaxnmt.lab.breakdowns import ORDERS
from jaxnmt.lab.compare import System
from jaxnmt.lab.figures import Table
from jaxnmt.lab.options import Compare, labels

_TESTS = {"paired-bootstrap": "paired bootstrap resampling", "approximate-randomisation": "paired approximate randomisation"}


def tables(found: dict[str, Any]) -> list[Table]:
    """Return scores with intervals and tests, then the breakdowns, of what `compare` found."""
    names = labels(found["systems"])
    shown = [_scores(metric, found) for metric in found["metrics"]]
    if "by_label" in found:
        rows = [(row["label"], f"{row['texts']:,}", *map(_percent, row["f1"])) for row in found["by_label"]]
        means = [statistics.fmean(values) for values in zip(*(row["f1"] for row in found["by_label"]), strict=True)]
        note = f"Macro-F1: {', '.join(f'{name} {_percent(mean)}' for name, mean in zip(names, means, strict=False))}"
        return [*shown, *([Table("F1 by label", ("label", "texts", *names), rows, note)] if rows else [])]
    for metric, field in (("BLEU", "bleu"), ("chrF++", "chrf")):
        rows = [(row["words"], f"{row['sentences']:,}", *(f"{score:.2f}" for score in row[field])) for row in found["by_length"]]
        shown.append(Table(f"{metric} by the source's length", ("words", "sentences", *names), rows))
    first = "" if found["references"] == 1 else "the first of each sentence's references"
    words = [(row["frequency"], f"{row['words']:,}", *map(_percent, row["f1"])) for row in found["by_frequency"]]
    counted = f"Counted in {found['counted_in']}.{first and f' Found in {first}.'}"
    repetition = zip((*names, "reference"), (*found["repetition"], found["reference_repetition"]), strict=True)
    repeated = [(name, *map(_percent, shares)) for name, shares in repetition]
    reference = first and f"The reference is {first}."
    shapes = []
    for name, shape in zip(names, found["shapes"], strict=True):
        ratio, *shares = shape.values()
        shapes.append((name, f"{ratio:.3f}", *map(_percent, shares)))
    against = f"Against {first or 'the reference'}; lengths in words; unfinished: without the punctuation that ends the reference."
    return [
        *shown,
        Table("F1 of words by their frequency", ("frequency", "in references", *names), words, counted),
        Table("Repeated n-grams in a sentence", ("system", *(f"{n}-grams" for n in ORDERS)), repeated, reference),
        Table("Length and endings", ("system", "length ratio", "under half", "over double", "empty", "unfinished"), shapes, against),
    ]


def heading(found: dict[str, Any]) -> str:
    """Describe the systems and the test set in a few lines."""
    several = f", {found['references']} references" if found["references"] > 1 else ""
    lines = [f"{found['sentences']:,} sentences of {found['test_set']}{several}"]
    for name, made_by in zip(found["systems"], found["made_by"], strict=True):
        lines.append(f"{'against it' if lines[1:] else 'baseline'}: {name} ({made_by})")
    does = "predicts" if "by_label" in found else "translates"
    lines += [f"{name} {does} every sentence as the baseline does: ignore its p" for name in found["identical"]]
    return "\n".join(filter(None, [*lines, found["note"]]))


def page(found: dict[str, Any], test: TestSet, systems: Sequence[System], options: Compare) -> str:
    """Return one HTML page with the tables and the sentences whose chrF++ differs most between the baseline and another system.

    Raises:
        UserError: there is no system called `options.other`.
    """
    names, parts = labels(found["systems"]), [pages.paragraph(line) for line in heading(found).splitlines()]
    shown = [pages.table(each) for each in tables(found)]
    if len(systems) == 1:
        return pages.page(names[0], "\n".join([*parts, *shown]))
    links = '<p>Examples: <a href="#losses">biggest losses</a>, <a href="#gains">biggest gains</a></p>'
    chosen = other_system(found["systems"], options.other)
    which = "reference" if found["references"] == 1 else "first reference"
    note = pages.paragraph(f"By chrF++ of the sentence; underlined: words that the {which} does not have at that place.", "note")
    losses, gains = ranked(found["sentence_chrf"][0], found["sentence_chrf"][chosen], options.examples)
    for anchor, title, numbers in (("losses", "Biggest losses", losses), ("gains", "Biggest gains", gains)):
        shown += [f'<h2 id="{anchor}">{title} of {html.escape(names[chosen])} against {html.escape(names[0])}</h2>', note]
        shown += [_example(number, found, test, systems, chosen) for number in numbers] or [pages.paragraph("None.")]
    return pages.page(f"{names[0]} and {', '.join(names[1:])}", "\n".join([*parts, links, *shown]))


def other_system(names: Sequence[str], other: str) -> int:
    """Return the index of the system whose examples are shown; `other` "": the first after the baseline.

    Raises:
        UserError: it is the baseline, or not among the systems.
    """
    known = [name.rstrip("/") for name in names]
    if other and other.rstrip("/") not in known[1:]:
        raise UserError(f"--other {other} is not compared with the baseline {names[0]}; choose from: {', '.join(names[1:]) or 'none'}")
    return known.index(other.rstrip("/")) if other else 1


def ranked(baseline: Sequence[float], other: Sequence[float], most: int) -> tuple[list[int], list[int]]:
    """Return the sentences in which `other` loses and gains most, the biggest difference first; of equal ones the first."""
    change = [theirs - mine for mine, theirs in zip(baseline, other, strict=True)]
    order = sorted(range(len(change)), key=lambda number: (change[number], number))
    losses = [number for number in order if change[number] < 0]
    gains = sorted((number for number in order if change[number] > 0), key=lambda number: (-change[number], number))
    return losses[:most], gains[:most]


def _example(number: int, found: dict[str, Any], test: TestSet, systems: Sequence[System], chosen: int) -> str:
    references, names = [lines[number] for lines in test.references], labels(found["systems"])
    rows = [("source", html.escape(test.sources[number])), *(("reference", html.escape(text)) for text in references)]
    scores = [found["sentence_chrf"][place][number] for place in (0, chosen)]
    for place, score in zip((0, chosen), scores, strict=True):
        rows.append((f"{names[place]} ({score:.1f})", pages.marked(systems[place].translations[number], references[0])))
    return f"<article>\n<h3>Sentence {number + 1:,}: {scores[1] - scores[0]:+.1f}</h3>\n{pages.definitions(rows)}\n</article>"


def _scores(metric: MetricResult, found: dict[str, Any]) -> Table:
    baseline, compared = metric.estimates[0].score, len(metric.estimates) - 1
    digits = 4 if metric.name == "MAE" else 2
    rows = [_row(name, estimate, baseline, digits) for name, estimate in zip(labels(found["systems"]), metric.estimates, strict=True)]
    header: tuple[str, ...] = ("system", "score", "95 % interval")
    note = metric.signature
    if metric.name in ("TER", "MAE"):
        note += "; lower is better"
    if compared:
        header += ("difference", "p", "p (Holm)")
        note += f"; p by {_TESTS[found['test']]}, then after Holm's correction for {compared}"
    return Table(metric.name, header, [row[: len(header)] for row in rows], note)


def _row(name: str, estimate: Estimate, baseline: float, digits: int = 2) -> tuple[str, ...]:
    shown = name, f"{estimate.score:.{digits}f}", f"{estimate.mean:.{digits}f} ± {estimate.ci:.{digits}f}"
    if estimate.p is None:
        return *shown, "", "", ""
    return *shown, f"{estimate.score - baseline:+.{digits}f}", f"{estimate.p:.4f}", f"{estimate.p_holm:.4f}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"
