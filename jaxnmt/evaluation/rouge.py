"""ROUGE-N and ROUGE-L of Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries", as metrics that sacreBLEU's tests take.

The library rouge-score gives the same scores on English text. It keeps only a-z and 0-9 of other text unless it is given a tokenizer, and
brings NLTK.
"""

from __future__ import annotations

import collections
import unicodedata
from collections.abc import Sequence
from typing import Any

from sacrebleu.metrics.base import Metric, Score, Signature
from sacrebleu.metrics.bleu import BLEU

_WORD_CATEGORIES = "LMN"  # Unicode's letters, marks (vowels of many scripts) and numbers


class _Signature(Signature):
    """A signature with what a ROUGE score depends on."""

    def __init__(self, args: dict[str, Any]) -> None:
        super().__init__(args)
        self.info |= {"case": "lc", "tok": args["tokenize"], "punct": False, "stem": False}


class Rouge(Metric):
    """The mean over sentences of the F1 of n-grams, or of the longest common subsequence, 0 to 100; of several references, the best one's.

    Words are those of one of BLEU's tokenizers, lowercased and without punctuation; they are not stemmed.
    """

    _SIGNATURE_TYPE = _Signature

    def __init__(self, kind: str, tokenize: str, references: Sequence[Sequence[str]] | None = None) -> None:
        """Make a metric.

        Args:
            kind: "1", "2" and so on: the length of the n-grams; "L": the longest common subsequence.
            tokenize: sacreBLEU's name of BLEU's tokenizer.
            references: as `scores.metric`.
        """
        super().__init__()
        self.kind, self.tokenize, self._split = kind, tokenize, BLEU(tokenize=tokenize, force=True).tokenizer
        if references is not None:
            self._ref_cache = self._cache_references(references)

    def _preprocess_segment(self, sent: str) -> str:
        return "".join(c if unicodedata.category(c)[0] in _WORD_CATEGORIES else " " for c in self._split(sent.lower()))

    def _extract_reference_info(self, refs: Sequence[str]) -> dict[str, Any]:
        return {"references": [line.split() for line in refs]}

    def _compute_segment_statistics(self, hypothesis: str, ref_kwargs: dict[str, Any]) -> list[float]:
        words = hypothesis.split()
        return [max((self._f1(words, each) for each in ref_kwargs["references"]), default=0.0), 1.0]

    def _f1(self, words: Sequence[str], reference: Sequence[str]) -> float:
        if self.kind == "L":
            matches, total = common_subsequence(words, reference), len(words) + len(reference)
        else:
            n = int(self.kind)
            mine, theirs = (collections.Counter(zip(*(side[i:] for i in range(n)), strict=False)) for side in (words, reference))
            matches, total = (mine & theirs).total(), mine.total() + theirs.total()
        return 2 * matches / total if total else 0.0

    def _compute_score_from_stats(self, stats: Sequence[float]) -> Score:
        return Score(f"ROUGE-{self.kind}", 100 * float(stats[0]) / float(stats[1]))

    def _aggregate_and_compute(self, stats: Sequence[Sequence[float]]) -> Score:
        return self._compute_score_from_stats([sum(column) for column in zip(*stats, strict=True)])


def common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Return the length of the longest common subsequence."""
    lengths = [0] * (len(second) + 1)  # of what was read of `first` and each beginning of `second`
    for x in first:
        before, lengths = lengths, [0]
        for j, y in enumerate(second):
            lengths.append(before[j] + 1 if x == y else max(before[j + 1], lengths[j]))
    return lengths[-1]
