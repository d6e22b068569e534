"""Scores that are the mean over sentences of a score of each, as metrics that sacreBLEU's tests take."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

from sacrebleu.metrics.base import Metric, Score, Signature


class _Signature(Signature):
    """A signature with what a score depends on."""

    def __init__(self, args: dict[str, Any]) -> None:
        super().__init__(args)
        self.info |= args["settings"]


class Mean(Metric):
    """The mean over sentences of a number from 0 to 1, times 100.

    Attributes:
        settings: what the score depends on, for the signature.
    """

    _SIGNATURE_TYPE = _Signature

    def __init__(self, label: str, references: Sequence[Sequence[str]] | None, **settings: str | bool) -> None:
        """Make a metric; `references` as `scores.metric`."""
        super().__init__()
        self.label, self.settings = label, settings
        if references is not None:
            self._ref_cache = self._cache_references(references)

    def _preprocess_segment(self, sent: str) -> str:
        return " ".join(sent.split())

    def _extract_reference_info(self, refs: Sequence[str]) -> dict[str, Any]:
        return {"references": refs}

    def _compute_score_from_stats(self, stats: Sequence[float]) -> Score:
        return Score(self.label, 100 * float(stats[0]) / float(stats[1]))

    def _aggregate_and_compute(self, stats: Sequence[Sequence[float]]) -> Score:
        return self._compute_score_from_stats([sum(column) for column in zip(*stats, strict=True)])


class SentenceMean(Mean, abc.ABC):
    """A mean whose numbers depend on a sentence and its references only."""

    @abc.abstractmethod
    def score(self, line: str, references: Sequence[str]) -> float:
        """Return a sentence's number."""

    def _compute_segment_statistics(self, hypothesis: str, ref_kwargs: dict[str, Any]) -> list[float]:
        return [self.score(hypothesis, ref_kwargs["references"]), 1.0]


class Exact(SentenceMean):
    """The share of sentences that equal a reference, but for spaces."""

    def __init__(self, references: Sequence[Sequence[str]] | None = None) -> None:
        """Make a metric."""
        super().__init__("exact", references)

    def score(self, line: str, references: Sequence[str]) -> float:
        """Return 1 for a sentence that equals a reference, and 0 for others."""
        return float(line in references)
