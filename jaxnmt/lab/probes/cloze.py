"""A gap that a word far before it decides: "... my sister grew up in Germany, sold thirteen red lamps in Rome and speaks ___", by language
models.

Every word that may fill the gap is put into it, and the sentences are scored. `distant.cloze` draws them, for each number of words between
the country and the gap. A model can solve this if it has read text of this kind: `distant.text` draws it, with other combinations of person
and country.
"""

from __future__ import annotations

import collections
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxnmt import Language, Run, UserError
from jaxnmt.data import identity, phrases
from jaxnmt.data.special_tokens import UNK
from jaxnmt.data.tokenizer import Tokenizer
from jaxnmt.decoding.scoring import TokenScorer
from jaxnmt.lab import figures
from jaxnmt.lab.probes import distant
from jaxnmt.lab.probes.contrast import ROWS, wilson
from jaxnmt.lab.probes.distant import Cloze

TITLE = "A gap filled by the right of {} words ({})"
X, Y = "words between the gap and the word that decides what fills it", "share right (bars: 95 %, Wilson)"


class Point(NamedTuple):
    """Sentences of one distance: in how many the right word is more probable than every other, the interval of that share, and the mean
    probability of the right word among those that may fill the gap."""

    distance: int
    sentences: int
    right: int
    low: float
    high: float
    probability: float

    @property
    def accuracy(self) -> float:
        return self.right / self.sentences


def language_of(runs: Sequence[Run], chosen: str = "") -> str:
    """Return the language of the runs' text, or the chosen one.

    Raises:
        UserError: a run is not a language model, or the embedded grammar does not have the language.
    """
    for run in runs:
        if not isinstance(run.config.task, Language):
            raise UserError(
                f"{run.folder} is not a language model (task Language): train one on `jaxnmt probe text cloze {chosen or 'en'}`"
            )
    found = chosen or next(filter(None, (identity.languages(run.folder, run.config.data)[1] for run in runs)), "")
    if found not in phrases.LANGUAGES:
        raise UserError(f"--language {found or '(unknown)'}: the sentences are in {', '.join(phrases.LANGUAGES)}; choose one of them")
    return found


def usable(tests: Sequence[Cloze], tokenizer: Tokenizer, max_length: int) -> list[Cloze]:
    """Return the sentences that the model reads without truncation, and without a word that it does not know."""
    ids = [tokenizer.encode_target(test.sentences) for test in tests]
    return [test for test, each in zip(tests, ids, strict=True) if max(map(len, each)) < max_length and not any(UNK in one for one in each)]


def log_probs(run: Run, tests: Sequence[Cloze]) -> np.ndarray:
    """Return the log-probability of each sentence with each word in its gap, (sentences, words)."""
    ids = run.tokenizer.encode_target([sentence for test in tests for sentence in test.sentences])
    found = TokenScorer(run.model, run.params)([([], target) for target in ids], ROWS)
    return np.array([tokens.sum(dtype=np.float64) for tokens in found]).reshape(len(tests), -1)


def points(tests: Sequence[Cloze], log_probs: np.ndarray) -> list[Point]:
    """Return a point for each distance. A tie counts as wrong."""
    rows, right = np.arange(len(tests)), [test.right for test in tests]
    own, others = log_probs[rows, right], log_probs.copy()
    others[rows, right] = -np.inf
    probabilities = 1 / np.exp(log_probs - own[:, None]).sum(1)
    groups: dict[int, list[int]] = collections.defaultdict(list)
    for row, test in enumerate(tests):
        groups[test.distance].append(row)
    found = []
    for distance, members in sorted(groups.items()):
        hits = int((own > others.max(1))[members].sum())
        found.append(Point(distance, len(members), hits, *wilson(hits, len(members)), statistics.fmean(probabilities[members].tolist())))
    return found


def report(found: Mapping[str, Sequence[Point]], language: str) -> figures.Report:
    """Return a chart with one line per run, its numbers, and a table; all runs have the same sentences."""
    words, first = len(distant.SPOKEN), next(iter(found.values()))
    title = TITLE.format(words, language)
    lines = {name: figures.line([(p.distance, p.accuracy, p.low, p.high) for p in each]) for name, each in found.items()}
    lines["guessing"] = figures.line([(p.distance, *[1 / words] * 3) for p in first])
    numbers = ([name, *point, point.accuracy] for name, each in found.items() for point in each)
    cells = [
        [f"{100 * p.accuracy:.1f} % ({100 * p.low:.0f}–{100 * p.high:.0f}), {p.probability:.2f}" for p in each] for each in found.values()
    ]
    rows = [(f"{point.distance}", f"{point.sentences:,}", *row) for point, *row in zip(first, *cells, strict=True)]
    note = f"In brackets: 95 % (Wilson). Last: mean probability of the right word among the {words}; guessing has {1 / words:.2f}."
    table = figures.Table(title, ("words between", "sentences", *found), rows, note)
    return {
        ".svg": figures.chart(lines, title, X, Y, bars=True),
        ".csv": figures.to_csv(["run", *Point._fields, "accuracy"], numbers),
    }, table


def as_text(tests: Sequence[Cloze]) -> str:
    """Return sentences, the right word and the distance, separated by tabs."""
    return "".join(f"{test.sentences[test.right]}\t{test.words[test.right]}\t{test.distance}\n" for test in tests)
