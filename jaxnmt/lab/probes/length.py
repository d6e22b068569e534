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

from jaxnmt import TestSet
from jaxnmt.evaluation.scores import bleu, paired
from jaxnmt.lab import figures
from jaxnmt.lab.breakdowns import splitter

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


def curves(test: TestSet, systems: Mapping[str, Translations], found: Sequence[Bin]) -> dict[str, figures.Line]:
    """Return BLEU of each bin, by system, at the bin's mean length.

    With one set of translations the band is the 95 % interval of 1,000 bootstrap resamples of a bin's sentences (Koehn 2004; sacreBLEU's,
    seeded). With several it is a standard deviation over them, around their mean.
    """
    lines = {}
    for name, runs in systems.items():
        points = []
        for each in found:
            chosen = [[translations[index] for index in each.members] for translations in runs]
            references = [[reference[index] for index in each.members] for reference in test.references]
            if len(runs) == 1:
                estimate = paired(chosen, references, ["bleu"], "paired-bootstrap", test.tokenize)[0].estimates[0]
                points.append((each.mean, estimate.score, estimate.mean - estimate.ci, estimate.mean + estimate.ci))
            else:
                scores = [bleu(translations, references, test.tokenize).value for translations in chosen]
                mean, width = figures.mean_and_deviation(scores)
                points.append((each.mean, mean, mean - width, mean + width))
        lines[name] = figures.line(points)
    return lines


def variant_of(run: str) -> str:
    """Return the variant of a study's run: `studies/x/runs/one_head/seed-2/run` -> `studies/x/runs/one_head`."""
    return _SEED.sub("", run.rstrip("/"))


def report(test: TestSet, systems: Mapping[str, Translations], count: int = BINS) -> figures.Report:
    """Return the chart and its numbers, by the suffix of their files, and a table, for up to `count` bins.

    Words of the sources are the tokens of sacreBLEU's tokenizer for them.
    """
    split = splitter(test.source_tokenize)
    found = bins([len(split(source)) for source in test.sources], count)
    lines = curves(test, systems, found)
    several, single = (any((len(each) > 1) is wanted for each in systems.values()) for wanted in (True, False))
    band = " or ".join(["standard deviation over seeds"] * several + ["95 % of resamples"] * single)
    header = ["line", "fewest words", "most words", "sentences", "mean words", "bleu", "low", "high"]
    points = ((name, each, point) for name, line in lines.items() for each, *point in zip(found, *line, strict=True))
    numbers = ([name, each.fewest, each.most, len(each.members), *point] for name, each, point in points)
    chart = figures.chart(lines, TITLE, f"words of the source (band: {band})", "BLEU")
    cells = [[f"{y:.1f} ({low:.1f}–{high:.1f})" for y, low, high in zip(*line[1:], strict=True)] for line in lines.values()]
    rows = [(figures.span(each.fewest, each.most), f"{len(each.members):,}", *row) for each, *row in zip(found, *cells, strict=True)]
    table = figures.Table(TITLE, ("words", "sentences", *lines), rows, f"In brackets: {band}.")
    return {".svg": chart, ".csv": figures.to_csv(header, numbers)}, table
