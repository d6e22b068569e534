"""Several systems on one test set: scores, their 95 % intervals, and paired tests against the first.

All numbers are from sacreBLEU's own code: `sacrebleu reference -i baseline other … --paired-bs` (or `--paired-ar`) gives the same digits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from jaxnmt.evaluation.scores import References, bleu_metric, check

MetricName = Literal["bleu", "chrf", "chrf++", "ter"]
TestName = Literal["paired-bootstrap", "approximate-randomisation"]

_SACREBLEU_TESTS = {"paired-bootstrap": "bs", "approximate-randomisation": "ar"}


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
    return _tested(hypotheses, {name: _metric(name, references, tokenize) for name in metrics}, test, samples)


def over_runs(systems: Sequence[Sequence[Sequence[str]]], references: References, tokenize: str) -> MetricResult:
    """Score systems of several runs each by BLEU over all their translations, and test each against the first as `paired` does.

    Sentences are resampled, each with every run's translation of it: more runs measure a system better, but do not add sentences.

    Args:
        systems: for each system and each of its runs a translation of each sentence; the baseline first.
        references: one or several translations of each sentence.
        tokenize: sacreBLEU's name of BLEU's tokenizer.

    Raises:
        UserError: there is nothing to score, or the numbers of sentences differ.
    """
    for runs in systems:
        for translations in runs:
            check(translations, references)
    metric = _metric("bleu", references, tokenize)
    counts = metric._extract_corpus_statistics

    def added_up(sentences, references):
        return np.sum([counts(translations, references) for translations in zip(*sentences, strict=True)], axis=0)

    metric._extract_corpus_statistics = added_up  # PairedTest calls this for the statistics of each sentence
    return _tested([list(zip(*runs, strict=True)) for runs in systems], {"bleu": metric}, "paired-bootstrap", 0)[0]


def _tested(systems: Sequence, metrics: Mapping[str, Any], test: TestName, samples: int) -> tuple[MetricResult, ...]:
    from sacrebleu.significance import PairedTest

    named = [(str(number), translations) for number, translations in enumerate(systems)]
    kind = _SACREBLEU_TESTS[test]
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
    baseline, *others = results
    corrected = holm([result.p_value for result in others])
    first = Estimate(float(baseline.score), float(baseline.mean), float(baseline.ci))
    rest = zip(others, corrected, strict=True)
    return first, *(Estimate(float(r.score), float(r.mean), float(r.ci), float(r.p_value), p) for r, p in rest)


def _metric(name: MetricName, references: References, tokenize: str):
    from sacrebleu.metrics.chrf import CHRF
    from sacrebleu.metrics.ter import TER

    if name == "bleu":
        return bleu_metric(tokenize, references)
    return TER(references=references) if name == "ter" else CHRF(word_order=2 if name == "chrf++" else 0, references=references)
