"""ROUGE-N and ROUGE-L of Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries", as metrics that sacreBLEU's tests take.

The library rouge-score gives the same scores on English text. It keeps only a-z and 0-9 of other text unless it is given a tokenizer, and
brings NLTK.
"""

from __future__ import annotations

import collections
import unicodedata
from collections.abc import Sequence

from sacrebleu.metrics.bleu import BLEU

from jaxnmt.evaluation.means import SentenceMean

_WORD_CATEGORIES = "LMN"  # Unicode's letters, marks (vowels of many scripts) and numbers


class Rouge(SentenceMean):
    """The mean over sentences of the F1 of n-grams, or of the longest common subsequence, 0 to 100; of several references, the best one's.

    Words are those of one of BLEU's tokenizers, lowercased and without punctuation; they are not stemmed.
    """

    def __init__(self, kind: str, tokenize: str, references: Sequence[Sequence[str]] | None = None) -> None:
        """Make a metric.

        Args:
            kind: "1", "2" and so on: the length of the n-grams; "L": the longest common subsequence.
            tokenize: sacreBLEU's name of BLEU's tokenizer.
            references: as `scores.metric`.
        """
        self.kind, self._split = kind, BLEU(tokenize=tokenize, force=True).tokenizer
        super().__init__(f"ROUGE-{kind}", references, case="lc", tok=tokenize, punct=False, stem=False)

    def _preprocess_segment(self, sent: str) -> str:
        return "".join(c if unicodedata.category(c)[0] in _WORD_CATEGORIES else " " for c in self._split(sent.lower()))

    def score(self, line: str, references: Sequence[str]) -> float:
        """Return the best reference's F1."""
        words = line.split()
        return max((self._f1(words, reference.split()) for reference in references), default=0.0)

    def _f1(self, words: Sequence[str], reference: Sequence[str]) -> float:
        if self.kind == "L":
            matches, total = common_subsequence(words, reference), len(words) + len(reference)
        else:
            n = int(self.kind)
            mine, theirs = (collections.Counter(zip(*(side[i:] for i in range(n)), strict=False)) for side in (words, reference))
            matches, total = (mine & theirs).total(), mine.total() + theirs.total()
        return 2 * matches / total if total else 0.0


def common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Return the length of the longest common subsequence."""
    lengths = [0] * (len(second) + 1)  # of what was read of `first` and each beginning of `second`
    for x in first:
        before, lengths = lengths, [0]
        for j, y in enumerate(second):
            lengths.append(before[j] + 1 if x == y else max(before[j + 1], lengths[j]))
    return lengths[-1]
