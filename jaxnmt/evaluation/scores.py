"""BLEU, chrF++ and TER as sacreBLEU computes them, each with the signature that lets others reproduce it.

References are lists of lines, one list for each reference translation, as sacreBLEU takes them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from jaxnmt.errors import UserError

References = Sequence[Sequence[str]]


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
        """BLEU, 0 to 100."""
        return self.metrics[0].value

    def __str__(self) -> str:
        rows = [f"{score.name:<8}{score.value:6.2f}   {score.signature}" for score in self.metrics]
        return "\n".join([*rows, f"{self.sentences} sentences", *([self.note] if self.note else [])])


def score(hypotheses: Sequence[str], references: References, tokenize: str, note: str = "") -> Scores:
    """Corpus scores of detokenised translations.

    Args:
        hypotheses: one translation a sentence; pieces joined.
        references: as many lines in each, of the same form.
        tokenize: sacreBLEU's name of BLEU's tokenizer.
        note: what people should know about the scores.

    Raises:
        UserError: there is nothing to score, or the numbers differ.
    """
    from sacrebleu.metrics.chrf import CHRF
    from sacrebleu.metrics.ter import TER

    check(hypotheses, references)
    metrics = {"BLEU": bleu_metric(tokenize), "chrF++": CHRF(word_order=2), "TER": TER()}
    return Scores(tuple(_score(name, metric, hypotheses, references) for name, metric in metrics.items()), len(hypotheses), note)


def bleu(hypotheses: Sequence[str], references: References, tokenize: str) -> Score:
    """The BLEU of `score` alone: TER takes longer than all the rest.

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

    # force: do not warn that the text looks tokenised; where it is, that is known and said
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
