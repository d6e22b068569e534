"""Score predictions of labels and numbers: one system, or several on one test set with intervals and paired tests."""

from __future__ import annotations

import collections
import dataclasses
import statistics
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np

from jaxnmt.data.labels import KINDS, Labels
from jaxnmt.evaluation.scores import MetricResult, Score, Scores, TestName, check, tested

BINS = 15
"""Of the expected calibration error, as Guo et al. 2017 have them."""


class LabelScores(Scores):
    """The metrics of predictions: of labels in per cent, of numbers in their own unit."""

    shown: ClassVar[str] = "8.4g"
    unit: ClassVar[str] = "texts"


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
    found = [Score(each.name, each.value(each.statistics(made, references)), each.says) for each in _METRICS[kind]]
    if kind == "number":
        found += _of_numbers(np.array(made, float), np.array(references, float))
    else:
        f1 = [value for value, _ in f1_by_label(kind, made, references).values()]
        found.append(Score("macro-F1", 100 * statistics.fmean(f1), f"mean over the {len(f1):,} labels that occur in the references"))
    if kind == "one" and len(confidences):
        right = _METRICS[kind][0].statistics(made, references)[:, 0]
        error = 100 * calibration_error(np.asarray(confidences), right)
        found.append(Score("ECE", error, f"expected calibration error, {BINS} bins (Guo et al. 2017); lower is better"))
    return LabelScores(tuple(found), len(made), note)


def f1_by_label(kind: str, made: Sequence[str], references: Sequence[str]) -> dict[str, tuple[float, int]]:
    """Return the F1 of each label that occurs in the references, 0 to 1, and how often it does, the most frequent first."""
    hits, predicted, wanted = (collections.Counter[str]() for _ in range(3))
    for mine, right in zip(*(_sets(kind, texts) for texts in (made, references)), strict=True):
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
    metrics = {each.name: _ForTests(each, references) for each in _METRICS[kind]}
    return tested(made, metrics, test, samples)


@dataclasses.dataclass(frozen=True)
class _Ratio:
    """A metric that is a ratio of two sums over texts."""

    name: str
    says: str
    kind: str
    of: Callable[[Any, Any], tuple[float, float]]
    """Returns a text's part in both sums, of the prediction and what is right."""
    scale: float = 100.0

    def statistics(self, made: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """Return each text's part, float64 (texts, 2)."""
        return np.array([self.of(*pair) for pair in zip(*(_sets(self.kind, texts) for texts in (made, references)), strict=True)], float)

    def value(self, statistics: np.ndarray) -> float:
        """Return the metric of texts."""
        above, below = statistics.sum(0)
        return float(self.scale * above / max(below, 1))


def _same(made: set[str], right: set[str]) -> tuple[float, float]:
    return made == right, 1


_METRICS = {
    "one": (_Ratio("accuracy", "texts whose label is right", "one", _same),),
    "several": (
        _Ratio("micro-F1", "of all labels of all texts", "several", lambda made, right: (2 * len(made & right), len(made) + len(right))),
        _Ratio("exact", "texts whose labels are all right, and none is missing", "several", _same),
    ),
    "number": (_Ratio("MAE", "mean absolute error; lower is better", "number", lambda made, right: (abs(made - right), 1), scale=1.0),),
}


@dataclasses.dataclass
class _ForTests:
    """A ratio as sacreBLEU's `PairedTest` takes metrics."""

    ratio: _Ratio
    references: Sequence[str]

    def _extract_corpus_statistics(self, made: Sequence[str], references: None) -> np.ndarray:
        return self.ratio.statistics(made, self.references)

    def _aggregate_and_compute(self, statistics: np.ndarray) -> SimpleNamespace:
        return SimpleNamespace(name=self.ratio.name, score=self.ratio.value(statistics))

    def _compute_score_from_stats(self, sums: np.ndarray) -> SimpleNamespace:
        return self._aggregate_and_compute(sums[None])

    def get_signature(self) -> Any:
        from sacrebleu.metrics.base import Signature

        return Signature({"num_refs": 1})


def _of_numbers(made: np.ndarray, right: np.ndarray) -> list[Score]:
    """Return the scores that compare with the spread of what is right; none if all of it is equal."""
    if not right.std():
        return []
    r2 = 1 - np.square(made - right).sum() / np.square(right - right.mean()).sum()
    found = [Score("R2", float(r2), "share of the variance that is predicted")]
    return found + ([Score("Pearson", float(np.corrcoef(made, right)[0, 1]), "correlation")] if made.std() else [])


def _sets(kind: str, texts: Sequence[str]) -> list[Any]:
    """Return the labels of each text as a set, or the numbers."""
    vocabulary = KINDS[kind]
    return [set(vocabulary.of(text)) for text in texts] if issubclass(vocabulary, Labels) else [float(text) for text in texts]
