"""The settings of decoding, and of the lines that are translated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from jaxnmt.config.fields import NonNegative, Positive, Rate, between, constraint


@dataclass(frozen=True)
class Decoding:
    """How translations are searched for."""

    beam_size: Annotated[int, between(1, 1000)] = 5
    """Beam size (1: greedy)."""
    length_normalization: Literal["gnmt", "average", "reward"] = "gnmt"
    """How a score weighs the length. gnmt: log-probability divided by ((5 + length) / 6) ** alpha, EOS counted (Wu et al. 2016,
    equation 14); average: divided by length ** alpha, EOS counted, as CTranslate2 does; reward: plus alpha for each token but EOS."""
    length_penalty: NonNegative[float] = 1.0
    """alpha of length_normalization; 0: scores are log-probabilities."""
    coverage_penalty: NonNegative[float] = 0.0
    """Lower the score of a translation that leaves source words without attention: plus this x the sum over the words of
    log(min(attention on the word, 1)) (Wu et al. 2016, equation 14)."""
    sibling_penalty: NonNegative[float] = 0.0
    """Keep hypotheses with different beginnings: each continuation loses this x its rank among those of the same hypothesis when the beam
    is filled (Li et al. 2016); scores do not change."""
    patience: Annotated[Literal["inf"] | float, constraint("above 0, or inf", lambda value: float(value) > 0)] = "inf"
    """Finish a sentence once this many times beam_size hypotheses have ended (Kasai et al. 2022; 1: as other toolkits do).
    inf: once no other hypothesis of the beam can be better."""
    min_length: NonNegative[int] = 0
    """Least number of tokens in a translation, EOS not counted."""
    max_length_ratio: Annotated[float, between(0, 100)] = 1.5
    """Limit a translation to this many times the source's tokens ..."""
    max_length_extra: Annotated[int, between(0, 10_000)] = 20
    """... plus this many tokens."""
    no_repeat_ngram_size: Annotated[int, between(0, 100)] = 0
    """No sequence of this many tokens occurs twice in a translation; 0: any may."""
    repetition_penalty: Annotated[float, constraint("1 or more", lambda value: value >= 1)] = 1.0
    """Multiply the log-probability of each token that the translation already has by this (after Keskar et al. 2019); 1: no penalty."""
    unk: Literal["write", "forbid", "replace"] = "write"
    """forbid: never write the unknown word; replace: write the source word with the most attention in its place (Luong et al. 2015)."""
    n_best: Positive[int] = 1
    """Translations to return for each sentence; with a temperature, the number of samples."""
    temperature: Annotated[float, between(0, 100)] = 0.0
    """Draw translations at random at this temperature (1: with the model's probabilities); 0: search for the best with a beam."""
    top_k: NonNegative[int] = 0
    """Draw each token from this many of the likeliest ones only; 0: from all."""
    top_p: Annotated[float, constraint("above 0 and at most 1", lambda value: 0 < value <= 1)] = 1.0
    """Draw each token from the fewest of the likeliest ones whose probabilities sum to this (Holtzman et al. 2020); 1: from all."""
    epsilon: Rate[float] = 0.0
    """Draw each token from those of at least this probability (Hewitt et al. 2022); 0: from all."""
    seed: Annotated[int, between(0, 2**31 - 1)] = 0
    """Seed of the samples."""
    shortlist: Annotated[int, between(0, 100)] = 0
    """Choose each token from this many likely translations of each source token, and as many of the most frequent tokens, which is faster
    with large vocabularies; 0: from all. Validation during training always chooses from all."""
    mbr: Literal["none", "chrf", "bleu"] = "none"
    """Minimum Bayes risk: of beam_size hypotheses, or samples, choose the one with the largest expected chrF (or BLEU) against all."""
    batch_size: Positive[int] = 64
    """Most sentences translated together."""
    batch_tokens: NonNegative[int] = 0
    """Most source tokens translated together, padding counted: fewer sentences if they are long; 0: batch_size sentences of any length."""

    def problems(self) -> Iterator[str]:
        if not self.temperature:
            for name in ("top_k", "top_p", "epsilon", "seed"):
                if getattr(self, name) != getattr(Decoding, name):
                    yield f"decoding.{name} {getattr(self, name):g} has no effect without sampling: set decoding.temperature, such as 1"
        for name in ("coverage_penalty", "sibling_penalty"):
            if self.temperature and getattr(self, name):
                yield f"decoding.{name} {getattr(self, name):g} is for a search, and decoding.temperature draws samples: set one to 0"
        if self.temperature and self.shortlist:
            yield f"decoding.shortlist {self.shortlist} is for a search, and decoding.temperature draws samples: set one to 0"
        if self.n_best > self.beam_size and (not self.temperature or self.mbr != "none"):
            yield f"decoding.n_best {self.n_best} is more than decoding.beam_size {self.beam_size} can give"
        least = max(1, int(self.max_length_ratio) + self.max_length_extra) - 1  # a source of one token; without EOS
        if self.min_length > least:
            yield (
                f"decoding.min_length {self.min_length} is more than the {least} tokens that a translation of one token may have: "
                "set decoding.max_length_extra higher"
            )
        if self.mbr != "none" and self.beam_size == 1:
            yield f"decoding.mbr {self.mbr} chooses among several hypotheses, and decoding.beam_size is 1: raise it, such as to 20"


@dataclass(frozen=True)
class Input:
    """The format and the limits of lines to translate."""

    format: Literal["text", "html"] = "text"
    """html: lines have inline tags, which are put around the words of the translation by word alignment, and entities (&amp;)."""
    protect: bool = False
    """Keep placeholders (%s, %(name)s, %1$d, {name}), URLs and e-mail addresses as they are, each as often as in the source."""
    max_input: Annotated[int, constraint("0, or at least 2", lambda value: value == 0 or value >= 2)] = 0
    """Translate a line in parts if it has more than this many tokens, including the end token, or more than the model can read;
    0: data.max_length."""
