"""Score one system, or several on one test set with their 95 % intervals and paired tests against the first.

BLEU, chrF++ and TER are sacreBLEU's own, each with the signature that makes it reproducible; `rouge.py` has ROUGE, `cider.py` CIDEr and
`means.py` exact match. The command `sacrebleu reference -i baseline other … --paired-bs` (or `--paired-ar`) gives the same digits.
References are lists of lines, one list for each reference translation, as sacreBLEU takes them; None is no reference,
so that sentences may have different numbers of them.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from jaxnmt.errors import UserError
from jaxnmt.evaluation.tokenization import METRICS, MetricName

References = Sequence[Sequence[Any]]
_LABELS = {"bleu": "BLEU", "chrf": "chrF", "chrf++": "chrF++", "ter": "TER", "rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}
_LABELS |= {"cider": "CIDEr", "exact": "exact"}
TestName = Literal["paired-bootstrap", "approximate-randomisation"]


@dataclasses.dataclass(frozen=True)
class Score:
    """One metric: name, value (0 to 100; TER: lower is better, may exceed 100; CIDEr: 0 to 1,000) and signature."""

    name: str
    value: float
    signature: str


@dataclasses.dataclass(frozen=True)
class Scores:
    """The metrics of one set of translations. Use `str` for a table and `dataclasses.asdict` for JSON."""

    shown: ClassVar[str] = "6.2f"
    unit: ClassVar[str] = "sentences"
    metrics: tuple[Score, ...]
    """In the order in which they were named."""
    sentences: int
    note: str = ""

    @property
    def bleu(self) -> float:
        """BLEU, 0 to 100; NaN if it was not named."""
        return next((each.value for each in self.metrics if each.name == "BLEU"), math.nan)

    def __str__(self) -> str:
        rows = [f"{each.name:<8}{each.value:{self.shown}}   {each.signature}" for each in self.metrics]
        return "\n".join([*rows, f"{self.sentences} {self.unit}", *([self.note] if self.note else [])])


@dataclasses.dataclass(frozen=True)
class Estimate:
    """One system's score by one metric.

    Attributes:
        score: of the whole test set.
        mean, ci: of bootstrap resamples of its sentences: their mean, and half the width of the interval that holds 95 % of them.
        p: how likely a difference from the baseline as large as this one is by chance; None for the baseline itself.
        p_holm: p corrected for the number of systems that are compared (Holm 1979).
    """

    score: float
    mean: float
    ci: float
    p: float | None = None
    p_holm: float | None = None


@dataclasses.dataclass(frozen=True)
class MetricResult:
    """One metric for every system, the baseline first; `signature` as sacreBLEU writes it."""

    name: str
    signature: str
    estimates: tuple[Estimate, ...]


def score(
    hypotheses: Sequence[str], references: References, tokenize: str, note: str = "", metrics: Sequence[MetricName] = METRICS
) -> Scores:
    """Return corpus scores of detokenised translations.

    Args:
        hypotheses: one translation per sentence, subwords joined.
        references: one list of as many lines for each reference.
        tokenize: sacreBLEU's name of BLEU's tokenizer.
        note: a note for users about the scores.
        metrics: which metrics, in this order.

    Raises:
        UserError: there is nothing to score, or the numbers differ.
    """
    return Scores(tuple(_score(name, hypotheses, references, tokenize) for name in metrics), len(hypotheses), note)


def bleu(hypotheses: Sequence[str], references: References, tokenize: str) -> Score:
    """Return BLEU only. Validation uses it because TER is slow.

    Raises:
        UserError: as `score`.
    """
    return _score("bleu", hypotheses, references, tokenize)


def _score(name: MetricName, hypotheses: Sequence[str], references: References, tokenize: str) -> Score:
    check(hypotheses, references)
    found = metric(name, tokenize)
    value = found.corpus_score(hypotheses, references).score
    return Score(_LABELS[name], value, str(found.get_signature()))


def metric(name: str, tokenize: str, references: References | None = None) -> Any:
    """Return a metric, as sacreBLEU's classes are.

    Args:
        name: one of `MetricName`.
        tokenize: sacreBLEU's name of BLEU's tokenizer.
        references: they are counted once for several systems. None: each score takes its own.
    """
    from sacrebleu import BLEU, CHRF, TER

    if name == "cider":
        from jaxnmt.evaluation.cider import Cider

        return Cider(references)
    if name == "exact":
        from jaxnmt.evaluation.means import Exact

        return Exact(references)
    if name.startswith("rouge"):
        from jaxnmt.evaluation.rouge import Rouge

        return Rouge(name.removeprefix("rouge"), tokenize, references)
    if name == "bleu":  # force: no warning that the text looks tokenized; the note already says so
        return BLEU(tokenize=tokenize, force=True, references=references)
    return TER(references=references) if name == "ter" else CHRF(word_order=2 if name == "chrf++" else 0, references=references)


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


def paired(
    hypotheses: Sequence[Sequence[str]],
    references: References,
    metrics: Sequence[MetricName],
    test: TestName,
    tokenize: str,
    samples: int = 0,
) -> tuple[MetricResult, ...]:
    """Score systems and test each against the first.

    The tests are paired bootstrap resampling (Koehn 2004) and approximate randomisation (Riezler and Maxwell 2005). The seed is
    sacreBLEU's: 12345, or $SACREBLEU_SEED.

    Args:
        hypotheses: each system's translations, one for each sentence; the baseline's first.
        references: one or several translations of each sentence.
        metrics: which metrics, in this order.
        test: which paired test.
        tokenize: sacreBLEU's name of BLEU's tokenizer.
        samples: resamples or trials; 0: sacreBLEU's 1,000 or 10,000.

    Raises:
        UserError: there is nothing to score, or the numbers of sentences differ.
    """
    for translations in hypotheses:
        check(translations, references)
    return tested(hypotheses, {name: metric(name, tokenize, references) for name in metrics}, test, samples)


def over_runs(systems: Sequence[Sequence[Sequence[str]]], by: Any) -> MetricResult:
    """Score systems of several runs each over all their translations, and test each against the first as `paired` does.

    Sentences are resampled, each with every run's translation of it: more runs measure a system better, but do not add sentences.

    Args:
        systems: for each system and each of its runs a translation of each sentence; the baseline first.
        by: a metric with references, as `metric` returns it.
    """
    counts, by = by._extract_corpus_statistics, copy.copy(by)

    def added_up(sentences, references):
        return np.sum([counts(translations, references) for translations in zip(*sentences, strict=True)], axis=0)

    by._extract_corpus_statistics = added_up  # PairedTest calls this for the statistics of each sentence
    return tested([list(zip(*runs, strict=True)) for runs in systems], {"score": by}, "paired-bootstrap", 0)[0]


def tested(systems: Sequence, metrics: Mapping[str, Any], test: TestName, samples: int) -> tuple[MetricResult, ...]:
    """Score systems by metrics, sacreBLEU's or others like them, and test each against the first; for `samples` see `paired`."""
    from sacrebleu.significance import PairedTest

    named = [(str(number), translations) for number, translations in enumerate(systems)]
    kind = "bs" if test == "paired-bootstrap" else "ar"
    # approximate randomisation gives no interval of its own: sacreBLEU then draws 1,000 resamples besides
    run = PairedTest(named, metrics, references=None, test_type=kind, n_samples=samples, n_ar_confidence=0 if kind == "ar" else -1)
    signatures, results = run()
    return tuple(MetricResult(name, str(signature), _estimates(results[name])) for name, signature in signatures.items())


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: the k-th smallest of m is multiplied by m - k + 1; none falls below a smaller one's, none exceeds 1."""
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, p_values[place] * (len(p_values) - rank)))
        corrected[place] = largest
    return corrected


def _estimates(results: Sequence) -> tuple[Estimate, ...]:
    corrected = [None, *holm([result.p_value for result in results[1:]])]  # the baseline has no p
    pairs = zip(results, corrected, strict=True)
    return tuple(Estimate(float(r.score), float(r.mean), float(r.ci), r.p_value, p) for r, p in pairs)
