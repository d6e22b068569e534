"""BLEU against the source's length: a fixed context loses on long sentences, attention does not (Cho et al. 2014, figure 4; Bahdanau et
al. 2015, figure 2).

Bins have about equal numbers of sentences, so that all points are about equally certain.
"""

from __future__ import annotations

import collections
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jaxnmt.evaluation.scores import bleu, paired
from jaxnmt.evaluation.test_sets import TestSet
from jaxnmt.lab import figures
from jaxnmt.lab.breakdowns import splitter
from jaxnmt.lab.figures import Line
from jaxnmt.lab.tables import Table, span

BINS = 8
TITLE = "BLEU against the source's length"
_SEED = re.compile(r"/seed-\d+(/run)?$")

Translations = Sequence[Sequence[str]]
"""A system's translations, or those of several of its runs with different seeds."""


class Bin(NamedTuple):
    """Sentences of similar length: their indices in the test set; the fewest, the most and the mean words of their sources."""

    members: list[int]
    fewest: int
    most: int
    mean: float


def bins(lengths: Sequence[int], count: int = BINS) -> list[Bin]:
    """Sort sentences by length into up to `count` bins of about equal size; sentences of one length stay together."""
    members: dict[int, list[int]] = collections.defaultdict(list)
    shorter = 0
    for length, sentences in sorted(collections.Counter(lengths).items()):
        middle = shorter + sentences / 2
        members[int(middle * count / len(lengths))] += [index for index, own in enumerate(lengths) if own == length]
        shorter += sentences
    words = [[lengths[index] for index in each] for each in members.values()]
    return [Bin(each, min(own), max(own), statistics.fmean(own)) for each, own in zip(members.values(), words, strict=True)]


def bins_of(test: TestSet, count: int = BINS) -> list[Bin]:
    """Return the bins of a test set; words are the tokens of sacreBLEU's tokenizer for the sources."""
    split = splitter(test.source_tokenize)
    return bins([len(split(source)) for source in test.sources], count)


def curves(test: TestSet, systems: Mapping[str, Translations], found: Sequence[Bin]) -> dict[str, Line]:
    """Return BLEU of each bin, by system, at the bin's mean length.

    With one set of translations the band is the 95 % interval of 1,000 bootstrap resamples of a bin's sentences (Koehn 2004; sacreBLEU's,
    seeded). With several it is a standard deviation over them, around their mean.
    """
    return {
        name: _with_interval(test, each[0], found) if len(each) == 1 else _over_seeds(test, each, found) for name, each in systems.items()
    }


def _with_interval(test: TestSet, translations: Sequence[str], found: Sequence[Bin]) -> Line:
    points = []
    for each in found:
        chosen, references = _of_members(test, translations, each.members)
        [result] = paired([chosen], references, ["bleu"], "paired-bootstrap", test.tokenize)
        estimate = result.estimates[0]
        points.append((each.mean, estimate.score, estimate.mean - estimate.ci, estimate.mean + estimate.ci))
    return figures.line(points)


def _over_seeds(test: TestSet, runs: Translations, found: Sequence[Bin]) -> Line:
    def score(translations: Sequence[str], members: Sequence[int]) -> float:
        return bleu(*_of_members(test, translations, members), test.tokenize).value

    return figures.over_seeds([{each.mean: score(translations, each.members) for each in found} for translations in runs])


def _of_members(test: TestSet, translations: Sequence[str], members: Sequence[int]) -> tuple[list[str], list[list[str]]]:
    """Return translations and references of some of the sentences."""
    chosen, *references = ([lines[index] for index in members] for lines in (translations, *test.references))
    return chosen, references


def variant_of(run: str) -> str:
    """Return the variant of a study's run: `studies/x/runs/one_head/seed-2/run` -> `studies/x/runs/one_head`."""
    return _SEED.sub("", run.rstrip("/"))


def band(systems: Mapping[str, Translations]) -> str:
    """Describe the bands of `curves`."""
    several, single = (any((len(each) > 1) is wanted for each in systems.values()) for wanted in (True, False))
    return " or ".join(["standard deviation over seeds"] * several + ["95 % of resamples"] * single)


def drawn(lines: Mapping[str, Line], band: str) -> str:
    """Return the chart as SVG."""
    return figures.chart(lines, TITLE, f"words of the source (band: {band})", "BLEU")


def numbers(lines: Mapping[str, Line], found: Sequence[Bin]) -> str:
    """Return the chart's numbers as CSV."""
    header = ["line", "fewest words", "most words", "sentences", "mean words", "bleu", "low", "high"]
    points = ((name, each, point) for name, line in lines.items() for each, *point in zip(found, *line, strict=True))
    return figures.to_csv(header, ([name, each.fewest, each.most, len(each.members), *point] for name, each, point in points))


def table(lines: Mapping[str, Line], found: Sequence[Bin], band: str) -> Table:
    """Return the chart's numbers as a table."""
    cells = [[f"{y:.1f} ({low:.1f}–{high:.1f})" for y, low, high in zip(*line[1:], strict=True)] for line in lines.values()]
    rows = [(span(each.fewest, each.most), f"{len(each.members):,}", *row) for each, *row in zip(found, *cells, strict=True)]
    return Table(TITLE, ("words", "sentences", *lines), tuple(rows), f"In brackets: {band}.")
