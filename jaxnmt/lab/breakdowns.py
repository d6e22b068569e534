"""Break scores down by source length and word frequency; measure repetition, length and unfinished sentences.

Words are those of BLEU's tokenizer. Pre-tokenized text is split at spaces.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

from jaxnmt.evaluation.scores import References, metric

LENGTHS = (0, 1, 6, 11, 16, 21, 31, 41, 61)  # first source length of each bucket, in words
FREQUENCIES = (0, 1, 2, 5, 10, 100, 1000)  # first word frequency of each bucket
ORDERS = (1, 2, 3, 4)  # lengths of the n-grams whose repetition is measured

_SENTENCE_ENDS = frozenset(".!?…。！？．؟۔।॥။។།")
_CLOSING = " \t\"'»«”“’‘)]}」』）】›"

Splitter = Callable[[str], list[str]]


@dataclasses.dataclass(frozen=True)
class LengthBucket:
    """A bucket of sentences by source length in words, and each system's BLEU and chrF++ on it."""

    words: str
    sentences: int
    bleu: tuple[float, ...]
    chrf: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class FrequencyBucket:
    """A bucket of words by frequency: the number of reference words in it, and each system's F1 on them."""

    frequency: str
    words: int
    f1: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Shape:
    """The lengths of one system's translations, compared with the references.

    Attributes:
        length_ratio: words of the translations divided by words of the references.
        under_half: share of translations with less than half of the reference's words.
        over_double: share of translations with more than double the reference's words.
        empty: share of translations without a word.
        unfinished: among translations whose reference ends in punctuation, the share that does not.
    """

    length_ratio: float
    under_half: float
    over_double: float
    empty: float
    unfinished: float


def splitter(tokenize: str) -> Splitter:
    """Return a function that splits text into words with one of sacreBLEU's tokenizers."""
    split = metric("bleu", tokenize).tokenizer
    return lambda text: split(text.strip()).split()


def by_length(
    source_lengths: Sequence[int], hypotheses: Sequence[Sequence[str]], references: References, tokenize: str
) -> tuple[LengthBucket, ...]:
    """Return the scores of each bucket of source lengths that has sentences."""
    bleu, chrf = metric("bleu", tokenize), metric("chrf++", tokenize)
    members: dict[int, list[int]] = collections.defaultdict(list)
    for number, length in enumerate(source_lengths):
        members[_bucket(length, LENGTHS)].append(number)

    def scores(by, chosen: list[int]) -> tuple[float, ...]:
        target = [[lines[i] for i in chosen] for lines in references]
        return tuple(by.corpus_score([lines[i] for i in chosen], target).score for lines in hypotheses)

    rows = sorted(members.items())
    return tuple(LengthBucket(_label(which, LENGTHS), len(chosen), scores(bleu, chosen), scores(chrf, chosen)) for which, chosen in rows)


def by_frequency(
    hypotheses: Sequence[Sequence[Sequence[str]]], references: Sequence[Sequence[str]], frequency: Mapping[str, int]
) -> tuple[FrequencyBucket, ...]:
    """Return the F1 of words by their frequency (Neubig et al. 2019, compare-mt).

    In a sentence, a word counts as found as often as it occurs in both translation and reference. Precision and recall are over all
    sentences.

    Args:
        hypotheses: translations of each system, split into words.
        references: reference translations, split into words.
        frequency: occurrences of each word in the training text; 0 for words that are not in it.
    """
    wanted = [collections.Counter(words) for words in references]
    total = _spread(wanted, frequency)
    columns = []
    for system in hypotheses:
        given = [collections.Counter(words) for words in system]
        found = _spread([mine & theirs for mine, theirs in zip(given, wanted, strict=True)], frequency)
        produced = _spread(given, frequency)
        columns.append({which: 2 * found[which] / (produced[which] + count) for which, count in total.items()})
    rows = sorted(total.items())
    return tuple(FrequencyBucket(_label(which, FREQUENCIES), count, tuple(f1[which] for f1 in columns)) for which, count in rows)


def repetition(sentences: Iterable[Sequence[str]]) -> tuple[float, ...]:
    """Return for each of ORDERS the share of n-grams that occurred before in their sentence (Welleck et al. 2020, seq-rep-n)."""
    sentences = list(sentences)
    shares = []
    for n in ORDERS:
        grams = [[tuple(words[i : i + n]) for i in range(len(words) - n + 1)] for words in sentences]
        total = sum(map(len, grams))
        shares.append(1 - sum(len(set(each)) for each in grams) / total if total else 0.0)
    return tuple(shares)


def shape(translations: Sequence[str], references: Sequence[str], split: Splitter) -> Shape:
    """Compare the lengths and ends of one system's translations with those of the references."""
    lengths = [(len(split(mine)), len(split(theirs))) for mine, theirs in zip(translations, references, strict=True)]
    ends = [ends_sentence(mine) for mine, theirs in zip(translations, references, strict=True) if ends_sentence(theirs)]
    count = len(lengths)
    return Shape(
        length_ratio=sum(mine for mine, _ in lengths) / max(1, sum(theirs for _, theirs in lengths)),
        under_half=sum(2 * mine < theirs for mine, theirs in lengths) / count,
        over_double=sum(mine > 2 * theirs for mine, theirs in lengths) / count,
        empty=sum(mine == 0 for mine, _ in lengths) / count,
        unfinished=1 - sum(ends) / len(ends) if ends else 0.0,
    )


def ends_sentence(text: str) -> bool:
    """Return whether a line ends in punctuation that ends a sentence. Quotation marks and brackets after it are ignored."""
    return text.rstrip(_CLOSING)[-1:] in _SENTENCE_ENDS and bool(text.strip())


def _spread(counts: Iterable[Mapping[str, int]], frequency: Mapping[str, int]) -> collections.Counter[int]:
    """Return how many words fall into each bucket of frequencies."""
    spread: collections.Counter[int] = collections.Counter()
    for each in counts:
        for word, count in each.items():
            spread[_bucket(frequency.get(word, 0), FREQUENCIES)] += count
    return spread


def _bucket(value: int, edges: Sequence[int]) -> int:
    return sum(value >= edge for edge in edges) - 1


def _label(which: int, edges: Sequence[int]) -> str:
    first, after = edges[which], edges[which + 1] if which + 1 < len(edges) else None
    if after is None:
        return f"{first:,} or more"
    return f"{first}" if after == first + 1 else f"{first}–{after - 1}"
