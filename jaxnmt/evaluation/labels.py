"""Score predictions of labels and numbers: one system, or several on one test set with intervals and paired tests."""

from __future__ import annotations

import collections
import statistics
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from jaxnmt.data.labels import KINDS, Labels
from jaxnmt.evaluation.scores import MetricResult, Score, Scores, TestName, check, tested

BINS = 15
"""Of the expected calibration error, as Guo et al. 2017 have them."""
_SAYS = {
    "accuracy": "texts whose label is right",
    "micro-F1": "of all labels of all texts",
    "exact": "texts whose labels are all right, and none is missing",
    "MAE": "mean absolute error; lower is better",
}


class LabelScores(Scores):
    """The metrics of predictions: of labels in per cent, of numbers in their own unit."""

    shown, unit = "8.4g", "texts"


def score(kind: str, made: Sequence[str], references: Sequence[str], confidences: Sequence[float] = (), note: str = "") -> LabelScores:
    """Return the scores of predictions.

    Args:
        kind: as `config.Classification.labels`.
        made: a prediction for each text, as text: the label, labels with commas between, or the number.
        references: what is right.
        confidences: with one label a text, the probability of each prediction; empty: no calibration error.
        note: a note for users about the scores.

    Raises:
        UserError: there is nothing to score, or the numbers differ.
    """
    check(made, [references])
    parts = ratios(kind, made, references)
    found = [Score(name, _ratio(of_texts.sum(0)), _SAYS[name]) for name, of_texts in parts.items()]
    if kind == "number":
        found += _against_spread(np.array(made, float), np.array(references, float))
    else:
        f1 = [value for value, _ in f1_by_label(kind, made, references).values()]
        if f1:  # no reference need have a label if a text may have several
            found.append(Score("macro-F1", 100 * statistics.fmean(f1), f"mean over the {len(f1):,} labels that occur in the references"))
    if kind == "one" and len(confidences):
        error = 100 * calibration_error(np.asarray(confidences), parts["accuracy"][:, 0] / 100)
        found.append(Score("ECE", error, f"expected calibration error, {BINS} bins (Guo et al. 2017); lower is better"))
    return LabelScores(tuple(found), len(made), note)


def ratios(kind: str, made: Sequence[str], references: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the metrics that are ratios of two sums over texts: by name, each text's part in both, float64 (texts, 2)."""
    pairs = list(zip(_values(kind, made), _values(kind, references), strict=True))
    same = [(100 * (mine == right), 1) for mine, right in pairs]
    found = {
        "one": lambda: {"accuracy": same},
        "several": lambda: {"micro-F1": [(200 * len(mine & right), len(mine) + len(right)) for mine, right in pairs], "exact": same},
        "number": lambda: {"MAE": [(abs(mine - right), 1) for mine, right in pairs]},
    }[kind]()
    return {name: np.array(parts, float) for name, parts in found.items()}


def _ratio(sums: np.ndarray) -> float:
    return float(sums[0] / max(sums[1], 1))


def f1_by_label(kind: str, made: Sequence[str], references: Sequence[str]) -> dict[str, tuple[float, int]]:
    """Return the F1 of each label that occurs in the references, 0 to 1, and how often it does, the most frequent first."""
    hits, predicted, wanted = (collections.Counter[str]() for _ in range(3))
    for mine, right in zip(_values(kind, made), _values(kind, references), strict=True):
        hits.update(mine & right)
        predicted.update(mine)
        wanted.update(right)
    return {label: (2 * hits[label] / (predicted[label] + count), count) for label, count in wanted.most_common()}


def calibration_error(confidences: np.ndarray, right: np.ndarray, bins: int = BINS) -> float:
    """Return the expected calibration error, 0 to 1: how far the share of right predictions is from their mean confidence.

    The mean of |share - confidence| over bins of equal width, weighted by their predictions (Guo et al. 2017, equation 3).
    """
    bin_of = np.maximum(np.ceil(confidences * bins).astype(int) - 1, 0)
    return float(np.abs(np.bincount(bin_of, right - confidences)).sum() / len(right))


def paired(
    kind: str, made: Sequence[Sequence[str]], references: Sequence[str], test: TestName, samples: int = 0
) -> tuple[MetricResult, ...]:
    """Test systems against the first, as `scores.paired` does.

    Args:
        kind: as `config.Classification.labels`.
        made: each system's predictions; the baseline's first.
        references: what is right.
        test: which paired test.
        samples: resamples or trials; 0: sacreBLEU's 1,000 or 10,000.
    """
    for each in made:
        check(each, [references])
    return tested(made, {name: _for_tests(kind, name, references) for name in ratios(kind, made[0], references)}, test, samples)


def first_metric(kind: str, references: Sequence[str]) -> SimpleNamespace:
    """Return the first of `ratios` as sacreBLEU's tests take metrics."""
    return _for_tests(kind, next(iter(ratios(kind, references, references))), references)


def _for_tests(kind: str, name: str, references: Sequence[str]) -> SimpleNamespace:
    """Return one of `ratios` as sacreBLEU's tests take metrics."""
    from sacrebleu.metrics.base import Signature

    return SimpleNamespace(
        _extract_corpus_statistics=lambda made, _: ratios(kind, made, references)[name],
        _aggregate_and_compute=lambda parts: SimpleNamespace(name=name, score=_ratio(parts.sum(0))),
        _compute_score_from_stats=lambda sums: SimpleNamespace(name=name, score=_ratio(sums)),
        get_signature=lambda: Signature({"num_refs": 1}),
    )


def _against_spread(made: np.ndarray, right: np.ndarray) -> list[Score]:
    """Return the scores that compare errors with the spread of what is right; none if all numbers of a side are equal."""
    if not right.std() or not made.std():
        return []
    r2 = 1 - np.square(made - right).sum() / np.square(right - right.mean()).sum()
    correlation = float(np.corrcoef(made, right)[0, 1])
    return [Score("R2", float(r2), "share of the variance that is predicted"), Score("Pearson", correlation, "correlation")]


def _values(kind: str, texts: Sequence[str]) -> list[Any]:
    """Return the labels of each text as a set, or the numbers."""
    vocabulary = KINDS[kind]
    return [set(vocabulary.of(text)) for text in texts] if issubclass(vocabulary, Labels) else [float(text) for text in texts]
