"""The confusion matrix of a run's labels: of the texts that have a label, the share that gets each label."""

from __future__ import annotations

import collections
from collections.abc import Sequence

from jaxnmt import Run, UserError
from jaxnmt.lab import figures

OTHERS = "(others)"
SHOWN = 15
"""Confusions in the table."""


def read(run: Run, split: str, data: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the predictions for a run's test sentences, and what is right.

    Raises:
        UserError: its texts do not have one label each.
    """
    kind = getattr(run.config.task, "labels", "")
    if kind != "one":
        raise UserError(f"{run.folder} does not choose one label for each text, so no label takes another's place: score it with evaluate")
    test = run.test_set("validation" if split == "validation" else "test", data)
    return run.translations(test.sources), [" ".join(label.split()) for label in test.references[0]]


def report(made: Sequence[str], references: Sequence[str], most: int) -> figures.Report:
    """Return the matrix as a heat map and as CSV, by the suffix of their files, and a table of the most frequent confusions.

    Args:
        made: the predictions.
        references: what is right.
        most: rows and columns of the picture: the most frequent labels, and one for all others.
    """
    counts = collections.Counter(zip(references, made, strict=True))
    texts, predicted = collections.Counter(references), collections.Counter(made)
    ranked = sorted(texts | predicted, key=lambda label: (-texts[label], -predicted[label], label))
    few = len(ranked) > most
    labels = ranked[: most - few] + [OTHERS] * few
    place = {label: number for number, label in enumerate(labels)}
    matrix = [[0] * len(labels) for _ in labels]
    for (right, mine), count in counts.items():
        matrix[place.get(right, len(labels) - 1)][place.get(mine, len(labels) - 1)] += count
    shares = [[count / max(1, sum(row)) for count in row] for row in matrix]
    names = [f"{label} ({sum(row):,})" for label, row in zip(labels, matrix, strict=True)]
    accuracy = sum(count for (right, mine), count in counts.items() if right == mine) / len(made)
    title = f"{accuracy:.1%} of {len(made):,} texts have the right label"
    wrong = [(pair, count) for pair, count in counts.most_common() if pair[0] != pair[1]][:SHOWN]
    rows = [(right, mine, f"{count:,}", f"{count / texts[right]:.1%}") for (right, mine), count in wrong]
    files = {
        ".svg": figures.heat_maps({title: figures.Grid(shares, names, labels)}, "Confusion matrix", "prediction", "label", 0.0, 1.0),
        ".csv": figures.to_csv(["label", "prediction", "texts"], sorted((*pair, count) for pair, count in counts.items())),
    }
    return files, figures.Table("Most frequent confusions", ("label", "prediction", "texts", "share of the label"), rows, title)
