"""Systems that copy from the source, which a summary must beat: its beginning, or the sentence that is most like the whole."""

from __future__ import annotations

import collections
import math
from collections.abc import Iterable, Mapping, Sequence

from jaxnmt.decoding.translator import SENTENCE_END

NAMES = ("lead", "extractive")

Vector = Mapping[str, float]


def made(name: str, sources: Sequence[str], references: Sequence[str], words: int) -> list[str]:
    """Return a baseline's summary of each source. Words are what stands between spaces.

    Args:
        name: one of NAMES.
        references: of the sources; only their mean number of words is used.
        words: length of a summary; 0: the mean number of words of the references, rounded.
    """
    words = words or max(1, round(sum(len(line.split()) for line in references) / len(references)))
    chosen = sources if name == "lead" else central_sentences(sources)
    return [" ".join(text.split()[:words]) for text in chosen]


def central_sentences(sources: Sequence[str]) -> list[str]:
    """Return of each source the first sentence whose TF-IDF vector has the largest cosine with that of the whole (Radev et al. 2004)."""
    holding = collections.Counter(word for text in sources for word in set(_words(text)))
    rarity = {word: math.log(len(sources) / count) for word, count in holding.items()}

    def vector(text: str) -> Vector:
        return {word: count * rarity[word] for word, count in collections.Counter(_words(text)).items()}

    def central(text: str) -> str:
        whole = vector(text)
        return max(SENTENCE_END.split(text.strip()), key=lambda sentence: _cosine(vector(sentence), whole))

    return [central(text) for text in sources]


def _words(text: str) -> Iterable[str]:
    return (word.strip(".,;:!?()[]\"'*") for word in text.lower().split())


def _cosine(one: Vector, other: Vector) -> float:
    lengths = math.hypot(*one.values()) * math.hypot(*other.values())
    return sum(weight * other.get(word, 0.0) for word, weight in one.items()) / lengths if lengths else 0.0
