"""BLEU against the source's length: what a fixed context loses on long sentences, and attention does not (Cho et al. 2014, figure 4;
Bahdanau et al. 2015, figure 2).

Bins hold about equal numbers of sentences, so that every point is about as certain as the next and none rests on a handful of sentences.
"""

from __future__ import annotations

import collections
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jaxnmt.evaluation.breakdowns import splitter
from jaxnmt.evaluation.scores import bleu
from jaxnmt.evaluation.significance import paired
from jaxnmt.evaluation.test_sets import TestSet
from jaxnmt.lab import figures
from jaxnmt.lab.figures import Line
from jaxnmt.lab.tables import Table, span

BINS = 8
TITLE = "BLEU against the source's length"
_SEED = re.compile(r"/seed-\d+(/run)?$")

Translations = Sequence[Sequence[str]]
"""A system's, or those of several runs of it that differ in their seed."""


class Bin(NamedTuple):
    """Sentences of similar length: their numbers in the test set; the fewest, the most and the mean words of their sources."""

    members: list[int]
    fewest: int
    most: int
    mean: float


def bins(lengths: Sequence[int], count: int = BINS) -> list[Bin]:
    """Sentences by length, in up to `count` bins of about as many each; those of one length stay together."""
    members: dict[int, list[int]] = collections.defaultdict(list)
    shorter = 0
    for length, sentences in sorted(collections.Counter(lengths).items()):
        middle = shorter + sentences / 2
        members[int(middle * count / len(lengths))] += [number for number, own in enumerate(lengths) if own == length]
        shorter += sentences
    words = [[lengths[number] for number in each] for each in members.values()]
    return [Bin(each, min(own), max(own), statistics.fmean(own)) for each, own in zip(members.values(), words, strict=True)]


def bins_of(test: TestSet, count: int = BINS) -> list[Bin]:
    """The bins of a test set; words are what sacreBLEU's tokenizer for the sources makes of a line."""
    split = splitter(test.source_tokenize)
    return bins([len(split(source)) for source in test.sources], count)


def curves(test: TestSet, systems: Mapping[str, Translations], found: Sequence[Bin]) -> dict[str, Line]:
    """BLEU of each bin, by system, at the bin's mean length.

    The band of a system with one set of translations holds 95 % of 1,000 bootstrap resamples of a bin's sentences (Koehn 2004; sacreBLEU's,
    seeded); that of one with several is a standard deviation over these, around their mean.
    """
    return {
        name: _with_interval(test, each[0], found) if len(each) == 1 else _over_seeds(test, each, found) for name, each in systems.items()
    }


def _with_interval(test: TestSet, translations: Sequence[str], found: Sequence[Bin]) -> Line:
    line = Line([], [], [], [])
    for each in found:
        chosen, references = _of_members(test, translations, each.members)
        [result] = paired([chosen], references, ["bleu"], "paired-bootstrap", test.tokenize)
        estimate = result.estimates[0]
        point = each.mean, estimate.score, estimate.mean - estimate.ci, estimate.mean + estimate.ci
        for values, value in zip(line, point, strict=True):
            values.append(value)
    return line


def _over_seeds(test: TestSet, runs: Translations, found: Sequence[Bin]) -> Line:
    def score(translations: Sequence[str], members: Sequence[int]) -> float:
        return bleu(*_of_members(test, translations, members), test.tokenize).value

    return figures.over_seeds([{each.mean: score(translations, each.members) for each in found} for translations in runs])


def _of_members(test: TestSet, translations: Sequence[str], members: Sequence[int]) -> tuple[list[str], list[list[str]]]:
    """Translations and references of some of the sentences."""
    chosen, *references = ([lines[number] for number in members] for lines in (translations, *test.references))
    return chosen, references


def variant_of(run: str) -> str:
    """The variant that a study's run belongs to: `studies/x/runs/one_head/seed-2/run` -> `studies/x/runs/one_head`."""
    return _SEED.sub("", run.rstrip("/"))


def band(systems: Mapping[str, Translations]) -> str:
    """What the bands of `curves` are, in a few words."""
    several, single = (any((len(each) > 1) is wanted for each in systems.values()) for wanted in (True, False))
    return " or ".join(["standard deviation over seeds"] * several + ["95 % of resamples"] * single)


def drawn(lines: Mapping[str, Line], band: str) -> str:
    """The chart, as SVG."""
    return figures.chart(lines, TITLE, f"words of the source (band: {band})", "BLEU")


def numbers(lines: Mapping[str, Line], found: Sequence[Bin]) -> str:
    """The chart's numbers, as CSV."""
    header = ["line", "fewest words", "most words", "sentences", "mean words", "bleu", "low", "high"]
    points = ((name, each, point) for name, line in lines.items() for each, *point in zip(found, *line, strict=True))
    return figures.to_csv(header, ([name, each.fewest, each.most, len(each.members), *point] for name, each, point in points))


def table(lines: Mapping[str, Line], found: Sequence[Bin], band: str) -> Table:
    """The chart's numbers for people."""
    cells = {name: [f"{y:.1f} ({low:.1f}–{high:.1f})" for y, low, high in zip(*line[1:], strict=True)] for name, line in lines.items()}
    rows = [(span(each.fewest, each.most), f"{len(each.members):,}", *(cells[name][i] for name in lines)) for i, each in enumerate(found)]
    return Table(TITLE, ("words", "sentences", *lines), tuple(rows), f"In brackets: {band}.")
