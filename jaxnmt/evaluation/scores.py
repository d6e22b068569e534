"""Compute BLEU, chrF++ and TER with sacreBLEU, each with the signature that makes it reproducible.

References are lists of lines, one list for each reference translation, as sacreBLEU takes them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from jaxnmt.errors import UserError

References = Sequence[Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Score:
    """One metric: name, value (BLEU and chrF++: 0 to 100; TER: lower is better, may exceed 100) and signature."""

    name: str
    value: float
    signature: str


@dataclasses.dataclass(frozen=True)
class Scores:
    """The metrics of one set of translations. Use `str` for a table and `dataclasses.asdict` for JSON."""

    metrics: tuple[Score, ...]
    """BLEU, chrF++, TER."""
    sentences: int
    note: str = ""

    @property
    def bleu(self) -> float:
        """BLEU, 0 to 100."""
        return self.metrics[0].value

    def __str__(self) -> str:
        rows = [f"{score.name:<8}{score.value:6.2f}   {score.signature}" for score in self.metrics]
        return "\n".join([*rows, f"{self.sentences} sentences", *([self.note] if self.note else [])])


def score(hypotheses: Sequence[str], references: References, tokenize: str, note: str = "") -> Scores:
    """Return corpus scores of detokenised translations.

    Args:
        hypotheses: one translation per sentence, subwords joined.
        references: one list of as many lines for each reference.
        tokenize: sacreBLEU's name of BLEU's tokenizer.
        note: a note for users about the scores.

    Raises:
        UserError: there is nothing to score, or the numbers differ.
    """
    from sacrebleu.metrics.chrf import CHRF
    from sacrebleu.metrics.ter import TER

    check(hypotheses, references)
    metrics = {"BLEU": bleu_metric(tokenize), "chrF++": CHRF(word_order=2), "TER": TER()}
    return Scores(tuple(_score(name, metric, hypotheses, references) for name, metric in metrics.items()), len(hypotheses), note)


def bleu(hypotheses: Sequence[str], references: References, tokenize: str) -> Score:
    """Return BLEU only. Validation uses it because TER is slow.

    Raises:
        UserError: as `score`.
    """
    check(hypotheses, references)
    return _score("BLEU", bleu_metric(tokenize), hypotheses, references)


def _score(name: str, metric, hypotheses: Sequence[str], references: References) -> Score:
    value = metric.corpus_score(hypotheses, references).score
    return Score(name, value, str(metric.get_signature()))


def bleu_metric(tokenize: str, references: References | None = None):
    """Return sacreBLEU's BLEU with one of its tokenizers. If `references` are given, they are counted once for several systems."""
    from sacrebleu.metrics.bleu import BLEU

    # force: no warning that the text looks tokenized; the note already says so
    return BLEU(tokenize=tokenize, force=True, references=references)


def check(hypotheses: Sequence[str], references: References) -> None:
    """Look whether each reference has a line for each hypothesis, and there is at least one.

    Raises:
        UserError: it has not.
    """
    for each in references:
        if len(hypotheses) != len(each):
            raise UserError(f"{len(hypotheses)} translations cannot be scored against {len(each)} references: one for each is needed")
    if not hypotheses or not references:
        raise UserError("there is nothing to score: no sentences")
