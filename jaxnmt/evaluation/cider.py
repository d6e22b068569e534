"""CIDEr-D, which scores captions by the n-grams that they share with what several people wrote (Vedantam et al. 2015, arXiv 1411.5726).

The fewer pictures an n-gram is used for, the more it weighs. The paper stems words; we do not, since no stemmer covers all languages.
The paper divides counts by a caption's length before it clips them. We clip the counts themselves, as the authors' program does: published
scores come from it. Our words are runs of letters and digits in lower case; theirs come from an English tokenizer.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxnmt.errors import UserError
from jaxnmt.evaluation.means import Mean

LONGEST = 4
"""Words of the longest n-grams."""
SIGMA = 6.0
"""Standard deviation, in words, of the Gaussian penalty on a difference in length."""

Counts = list[Counter[tuple[str, ...]]]
"""The n-grams of one caption, n = 1 to LONGEST."""


class Cider(Mean):
    """The mean over pictures of CIDEr-D, 0 to 1,000, as papers print it. How rare n-grams are is counted once, in the whole test set."""

    def __init__(self, references: Sequence[Sequence[str]] | None = None) -> None:
        """Make a metric."""
        super().__init__("CIDEr", references, case="lc", n=str(LONGEST), sigma=f"{SIGMA:g}", stem=False)

    def _compute_segment_statistics(self, hypothesis: str, ref_kwargs: dict[str, Any]) -> list[float]:
        return [float(of_pictures([hypothesis], [ref_kwargs["references"]])[0]), 1.0]

    def _extract_corpus_statistics(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]] | None) -> Any:
        known: Any = self._ref_cache if references is None else self._cache_references(references)
        return [[score, 1.0] for score in of_pictures(hypotheses, [each["references"] for each in known])]


def of_pictures(captions: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """Return each picture's CIDEr-D, from 0 to 10.

    A caption that equals all its references has 10. A shorter one than four words has less, since it lacks n-grams. An n-gram of every
    picture weighs nothing: if there is one picture only, its score is 0.

    Args:
        captions: one for each picture.
        references: for each picture, one caption or more.

    Raises:
        UserError: there is nothing to score, the numbers differ, or a picture has no reference.
    """
    if not captions or len(captions) != len(references):
        raise UserError(
            f"{len(captions)} captions cannot be scored by the references of {len(references)} pictures: one caption for each is needed"
        )
    if not all(references):
        raise UserError(f"picture {[*map(bool, references)].index(False) + 1} has no reference caption: give one at least")
    counted = [[_count(text) for text in texts] for texts in references]
    used = Counter(gram for texts in counted for gram in {gram for counts in texts for each in counts for gram in each})
    rarity = {gram: math.log(len(captions) / pictures) for gram, pictures in used.items()}
    unused = math.log(len(captions))

    def weighted(counts: Counts) -> list[dict[tuple[str, ...], float]]:
        return [{gram: count * rarity.get(gram, unused) for gram, count in each.items()} for each in counts]

    def similarity(caption: Counts, reference: Counts) -> float:
        apart = caption[0].total() - reference[0].total()
        cosines = map(_clipped_cosine, weighted(caption), weighted(reference))
        return math.exp(-(apart**2) / (2 * SIGMA**2)) * sum(cosines) / LONGEST

    pairs = zip(map(_count, captions), counted, strict=True)
    return np.array([10 * np.mean([similarity(caption, reference) for reference in texts]) for caption, texts in pairs])


def _count(text: str) -> Counts:
    words = re.findall(r"\w+", text.lower())
    return [Counter(zip(*(words[start:] for start in range(n)), strict=False)) for n in range(1, LONGEST + 1)]


def _clipped_cosine(caption: dict[tuple[str, ...], float], reference: dict[tuple[str, ...], float]) -> float:
    """Return the cosine, with no n-gram of the caption weighing more than in the reference: to repeat it does not help."""
    norms = math.hypot(*caption.values()) * math.hypot(*reference.values())
    return (
        sum(min(weight, reference[gram]) * reference[gram] for gram, weight in caption.items() if gram in reference) / norms
        if norms
        else 0.0
    )
