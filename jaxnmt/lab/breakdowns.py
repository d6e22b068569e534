"""Break scores down by source length and word frequency; measure repetition, length and unfinished sentences.

Words are those of BLEU's tokenizer. Pre-tokenized text is split at spaces.
"""

from __future__ import annotations

import bisect
import collections
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from jaxnmt.evaluation.scores import References, metric
from jaxnmt.lab.figures import span

LENGTHS = (0, 1, 6, 11, 16, 21, 31, 41, 61)  # first source length of each bucket, in words
FREQUENCIES = (0, 1, 2, 5, 10, 100, 1000)  # first word frequency of each bucket
ORDERS = (1, 2, 3, 4)  # lengths of the n-grams whose repetition is measured

_SENTENCE_ENDS = frozenset(".!?…。！？．؟۔।॥။។།")
_CLOSING = " \t\"'»«”“’‘)]}」』）】›"

Splitter = Callable[[str], list[str]]


def splitter(tokenize: str) -> Splitter:
    """Return a function that splits text into words with one of sacreBLEU's tokenizers."""
    split = metric("bleu", tokenize).tokenizer
    return lambda text: split(text.strip()).split()


def by_length(
    source_lengths: Sequence[int], hypotheses: Sequence[Sequence[str]], references: References, tokenize: str
) -> list[dict[str, Any]]:
    """Return a record for each bucket of source lengths that has sentences.

    Returns:
        words: the lengths, in words; sentences: their number; bleu, chrf: BLEU and chrF++ of each system on them.
    """
    metrics = {"bleu": metric("bleu", tokenize), "chrf": metric("chrf++", tokenize)}
    members: dict[int, list[int]] = collections.defaultdict(list)
    for number, length in enumerate(source_lengths):
        members[_bucket(length, LENGTHS)].append(number)
    rows = []
    for which, chosen in sorted(members.items()):
        target = [[lines[i] for i in chosen] for lines in references]
        texts = [[lines[i] for i in chosen] for lines in hypotheses]
        scores = {name: [by.corpus_score(lines, target).score for lines in texts] for name, by in metrics.items()}
        rows.append({"words": _label(which, LENGTHS), "sentences": len(chosen), **scores})
    return rows


def by_frequency(
    hypotheses: Sequence[Sequence[Sequence[str]]], references: Sequence[Sequence[str]], frequency: Mapping[str, int]
) -> list[dict[str, Any]]:
    """Return the F1 of words by their frequency (Neubig et al. 2019, compare-mt).

    In a sentence, a word counts as found as often as it occurs in both translation and reference. Precision and recall are over all
    sentences.

    Args:
        hypotheses: translations of each system, split into words.
        references: reference translations, split into words.
        frequency: occurrences of each word in the training text; 0 for words that are not in it.

    Returns:
        For each bucket: frequency: the frequencies; words: the number of reference words; f1: each system's F1 on them.
    """
    wanted = [collections.Counter(words) for words in references]
    total = sorted(_spread(wanted, frequency).items())
    rows: list[dict[str, Any]] = [{"frequency": _label(which, FREQUENCIES), "words": count, "f1": []} for which, count in total]
    for system in hypotheses:
        given = [collections.Counter(words) for words in system]
        found = _spread([mine & theirs for mine, theirs in zip(given, wanted, strict=True)], frequency)
        produced = _spread(given, frequency)
        for row, (which, count) in zip(rows, total, strict=True):
            row["f1"].append(2 * found[which] / (produced[which] + count))
    return rows


def repetition(sentences: Sequence[Sequence[str]]) -> list[float]:
    """Return for each of ORDERS the share of n-grams that occurred before in their sentence (Welleck et al. 2020, seq-rep-n)."""
    shares = []
    for n in ORDERS:
        grams = [[tuple(words[i : i + n]) for i in range(len(words) - n + 1)] for words in sentences]
        total = sum(map(len, grams))
        shares.append(1 - sum(len(set(each)) for each in grams) / total if total else 0.0)
    return shares


def shape(translations: Sequence[str], references: Sequence[str], split: Splitter) -> dict[str, float]:
    """Compare the lengths and ends of one system's translations with those of the references.

    Returns:
        length_ratio: words of the translations divided by words of the references; under_half: share of translations with less than half
        of the reference's words; over_double: with more than double the reference's words; empty: without a word; unfinished: among
        translations whose reference ends in punctuation, the share that does not.
    """
    lengths = [(len(split(mine)), len(split(theirs))) for mine, theirs in zip(translations, references, strict=True)]
    ends = [ends_sentence(mine) for mine, theirs in zip(translations, references, strict=True) if ends_sentence(theirs)]
    return {
        "length_ratio": sum(mine for mine, _ in lengths) / max(1, sum(theirs for _, theirs in lengths)),
        "under_half": sum(2 * mine < theirs for mine, theirs in lengths) / len(lengths),
        "over_double": sum(mine > 2 * theirs for mine, theirs in lengths) / len(lengths),
        "empty": sum(mine == 0 for mine, _ in lengths) / len(lengths),
        "unfinished": 1 - sum(ends) / len(ends) if ends else 0.0,
    }


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
    return bisect.bisect_right(edges, value) - 1


def _label(which: int, edges: Sequence[int]) -> str:
    if which + 1 == len(edges):
        return f"{edges[which]:,} or more"
    return span(edges[which], edges[which + 1] - 1)
