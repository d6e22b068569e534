"""A translation, and how several make one: those of a long line's parts, and the candidates of minimum Bayes risk."""

from __future__ import annotations

import dataclasses
import itertools
from typing import NamedTuple

from jaxnmt import config as cfg


class Translation(NamedTuple):
    """A translation.

    Attributes:
        text: the translation, detokenised.
        score: log-probability weighed with length and coverage (`decoding.length_normalization`, `coverage_penalty`), of a sample the
            log-probability. A line that was translated in parts has the sum of their scores.
        tokens: the target tokens as the vocabulary has them, without the end token.
        parts: the ids of source and target, without end tokens. A line that was translated in parts has several pairs.
    """

    text: str
    score: float
    tokens: tuple[str, ...] = ()
    parts: tuple[tuple[list[int], list[int]], ...] = ()


def of_candidates(decoding: cfg.Decoding) -> cfg.Decoding:
    """Return the settings with which the candidates of minimum Bayes risk are searched for; without it, the settings themselves."""
    return decoding if decoding.mbr == "none" else dataclasses.replace(decoding, mbr="none", n_best=decoding.beam_size)


def by_risk(candidates: list[Translation], decoding: cfg.Decoding) -> list[Translation]:
    """Return the n best of a sentence's hypotheses by minimum Bayes risk, each weighted by its score; samples count equally."""
    from jaxnmt.decoding import mbr  # sacreBLEU is imported if it is needed

    texts, scores = zip(*((candidate.text, candidate.score) for candidate in candidates), strict=True)
    order = mbr.ranking(texts, decoding.mbr, None if decoding.temperature else scores)
    return [candidates[i] for i in order[: decoding.n_best]]


def joined(parts: list[list[Translation]]) -> list[Translation]:
    """Return the translations of a line from those of its parts: the k-th best of each, one after the other."""
    if not parts:
        return [Translation("", 0.0)]
    return [
        Translation(" ".join(texts), sum(scores), tuple(itertools.chain(*tokens)), tuple(itertools.chain(*pairs)))
        for texts, scores, tokens, pairs in (zip(*chosen, strict=True) for chosen in zip(*parts, strict=False))
    ]
