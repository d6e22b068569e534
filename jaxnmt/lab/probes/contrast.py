"""Contrastive evaluation: does the model prefer the right translation to one with a wrong word, by the distance to the word that decides?
(Sennrich 2017, LingEval97; Rios et al. 2017)

Pairs of translations are read from a file, made from any sentences by rules (described in `rules/de.toml`), or drawn from the embedded
corpus's grammar (`distant.agreement`), as many as are wanted for each distance.
"""

from __future__ import annotations

import collections
import math
import pathlib
import re
import statistics
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from jaxnmt import Run, UserError
from jaxnmt.data import identity, phrases
from jaxnmt.data.special_tokens import UNK
from jaxnmt.data.tokenizer import Tokenizer, joiner_of
from jaxnmt.data.vocabulary import JOINER, SPACER, join, link
from jaxnmt.decoding.scoring import TokenScorer
from jaxnmt.evaluation.tokenization import base
from jaxnmt.io.text import read_lines
from jaxnmt.lab import figures
from jaxnmt.lab.options import Contrast
from jaxnmt.lab.probes import distant
from jaxnmt.lab.probes.distant import Pair
from jaxnmt.models.seq2seq import Seq2Seq

RULES = pathlib.Path(__file__).parent / "rules"
TITLE = "The right translation preferred to one with a wrong word"
X, Y = "words between this one and the one that it must agree with", "share preferred (bars: 95 %, Wilson)"
ROWS = 64
GRAMMAR = "grammar"
"""The word for pairs from the embedded grammar, in place of a file of rules."""
MANY = 500
"""A distance with at least this many pairs is a point of its own."""


class Rule(NamedTuple):
    """Words that must agree with an earlier word.

    Attributes:
        swaps: for each antecedent the dependent words that agree with it, and the wrong word for each; all in lower case.
        after: the words that may come right before the dependent word; empty: any word.
    """

    name: str
    swaps: Mapping[str, Mapping[str, str]]
    after: tuple[str, ...] = ()


class Share(NamedTuple):
    """Pairs of similar distance: their distances and number, how often the right one is preferred, and the interval of that share."""

    nearest: int
    furthest: int
    mean: float
    pairs: int
    right: int
    low: float
    high: float

    @property
    def accuracy(self) -> float:
        return self.right / self.pairs


# ---- pairs


def read(name: str) -> list[Pair]:
    """Read pairs from a TSV file, plain or compressed: source, right translation, wrong translation, distance.

    Raises:
        UserError: the file cannot be read or is empty, or a line does not have four columns with a number in the last.
    """
    pairs = []
    for number, line in enumerate(read_lines(name, "--pairs"), 1):
        columns = line.split("\t")
        if len(columns) != 4 or not re.fullmatch("[0-9]+", columns[3]):
            raise UserError(f"--pairs {name}, line {number}: give source, right and wrong translation and distance, separated by tabs")
        pairs.append(Pair(columns[0], columns[1], columns[2], int(columns[3])))
    if not pairs:
        raise UserError(f"--pairs {name} is empty: give a file with pairs")
    return pairs


def as_text(pairs: Sequence[Pair]) -> str:
    """Return pairs in the format of `read`."""
    return "".join("\t".join(map(str, pair)) + "\n" for pair in pairs)


def load_rules(name: str, only: Sequence[str] = ()) -> list[Rule]:
    """Return the rules of a TOML file, by path, or the shipped rules of a language.

    Args:
        only: names of the rules to use; empty: all.

    Raises:
        UserError: there is no such language, file or rule; or the file is not TOML with rules.
    """
    shipped = {file.stem: file for file in sorted(RULES.glob("*.toml"))}
    path = shipped.get(name) or pathlib.Path(name)
    if not path.is_file():
        raise UserError(f"--rules {name or '(none)'}: there is no such file; there are shipped rules for: {', '.join(shipped)}")
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))["rules"]
        rules = [Rule(table["name"], _swaps(table), tuple(table.get("after", ()))) for table in tables]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"--rules {path} cannot be read ({error!r}); see {RULES / 'de.toml'} for the format") from None
    names = [rule.name for rule in rules]
    for wanted in set(only).difference(names):
        raise UserError(f"--only {wanted}: {path} has the rules {', '.join(names)}")
    return [rule for rule in rules if not only or rule.name in only]


def _swaps(table: dict[str, Any]) -> dict[str, dict[str, str]]:
    swaps: dict[str, dict[str, str]] = {}
    for each in table["agree"]:
        wrong = {word.lower(): other for word, other in each.get("swaps", {}).items()}
        swaps |= {antecedent.lower(): wrong for antecedent in each["antecedents"]}
    return swaps


def of_runs(runs: Sequence[Run], options: Contrast) -> list[Pair]:
    """Make pairs from the runs' test and validation sentences, or from other sources, or draw them from the embedded grammar.

    Without rules, pairs are drawn from the grammar for runs that are tested on the embedded corpus, and made by the rules of the target
    language for others.

    Raises:
        UserError: the runs have different sentences or languages, the grammar does not have the languages, or the rules make no pair.
    """
    embedded = all(word.startswith("phrases/") for run in runs for word in run.config.data.test)
    if options.rules == GRAMMAR or (embedded and not options.rules and not options.data):
        languages = {identity.languages(run.folder, run.config.data) for run in runs}
        if len(languages) > 1 or not {*phrases.LANGUAGES}.issuperset(*languages):
            found = ", ".join("-".join(language or "?" for language in pair) for pair in sorted(languages))
            raise UserError(
                f"--rules {GRAMMAR}: the runs translate {found}; it has pairs of {', '.join(phrases.LANGUAGES)}, for one at a time"
            )
        return list(distant.draw(distant.agreement, languages.pop(), "test", range(distant.FURTHEST + 1), options.count))
    sentences = [_sentences(run, options.data) for run in runs]
    sources, targets, language = sentences[0]
    for run, other in zip(runs, sentences, strict=True):
        if other[:2] != (sources, targets):
            raise UserError(f"{runs[0].folder} and {run.folder} have text in different formats: give pairs that suit both with --pairs")
    rules = load_rules(options.rules or base(language), options.only)
    pairs = make(rules, sources, targets, joiner_of(runs[0].config.tokenizer))
    if not pairs:
        raise UserError(f"the rules make no pair from {len(sources):,} sentences: give more with --data, or other --rules")
    return pairs


def _sentences(run: Run, data: tuple[str, ...]) -> tuple[list[str], list[str], str]:
    """Return sources, targets in the model's format, and the target language."""
    splits: tuple[Literal["test", "validation"], ...] = ("test",) if data else ("test", "validation")
    tests = {test.name: test for test in (run.test_set(split, data) for split in splits)}.values()  # one if it has no test sentences
    sources, targets = ([line for test in tests for line in getattr(test, side)] for side in ("sources", "targets"))
    return sources, targets, next(iter(tests)).languages[1]


def make(rules: Sequence[Rule], sources: Sequence[str], targets: Sequence[str], joiner: str = "") -> list[Pair]:
    """Make at most one pair per rule and sentence, by swapping its first dependent word.

    Args:
        joiner: the mark of words split into pieces, see `vocabulary.join`; "" if words are not split.
    """
    whole = rf"\w+(?:{link(joiner)}\w+)*" if joiner else r"\w+"
    pattern = re.compile(rf"{whole}|[^\w\s{SPACER}{JOINER}]")
    made = []
    for source, target in zip(sources, targets, strict=True):
        found = list(pattern.finditer(target))
        words = [join(match[0], joiner).lower() for match in found]
        for rule in rules:
            for place, wrong, distance in _dependents(rule, words):
                start, end = found[place].span()
                new = wrong.capitalize() if target[start].isupper() else wrong
                made.append(Pair(source, target, target[:start] + new + target[end:], distance))
                break
    return made


def _dependents(rule: Rule, words: Sequence[str]) -> Iterator[tuple[int, str, int]]:
    """Yield the place of each word that agrees with the only antecedent before it, the wrong word, and the number of words between."""
    antecedents = [place for place, word in enumerate(words) if word in rule.swaps]
    last = [place for place in antecedents if place + 1 not in antecedents]  # "junge Frau"
    for place, word in enumerate(words):
        before = [antecedent for antecedent in last if antecedent < place]
        if len(before) != 1 or (rule.after and words[place - 1] not in rule.after):
            continue
        if wrong := rule.swaps[words[before[0]]].get(word):
            yield place, wrong, sum(between[0].isalnum() for between in words[before[0] + 1 : place])


def usable(pairs: Sequence[Pair], tokenizer: Tokenizer, max_length: int) -> list[Pair]:
    """Return the pairs that the model reads without truncation, and whose wrong translation adds no unknown token."""
    rows = zip(pairs, *_encoded(pairs, tokenizer), strict=True)
    return [pair for pair, *ids in rows if max(map(len, ids)) < max_length and ids[2].count(UNK) <= ids[1].count(UNK)]


def _encoded(pairs: Sequence[Pair], tokenizer: Tokenizer) -> tuple[list[list[int]], list[list[int]], list[list[int]]]:
    """Return the ids of sources, right and wrong translations, without EOS."""
    right, wrong = (tokenizer.encode_target([getattr(pair, side) for pair in pairs]) for side in ("right", "wrong"))
    return tokenizer.encode_source([pair.source for pair in pairs]), right, wrong


# ---- scores


def preferred(model: Seq2Seq, params: Any, tokenizer: Tokenizer, pairs: Sequence[Pair]) -> list[bool]:
    """Return for each pair whether the right translation has the higher probability, by teacher forcing; False if they are equal."""
    sources, right, wrong = _encoded(pairs, tokenizer)
    found = TokenScorer(model, params)(list(zip(sources + sources, right + wrong, strict=True)), ROWS)
    scores = [log_probs.sum() for log_probs in found]
    return [bool(ours > other) for ours, other in zip(scores[: len(pairs)], scores[len(pairs) :], strict=True)]


def by_distance(pairs: Sequence[Pair], right: Sequence[bool]) -> list[Share]:
    """Return a share for each distance with MANY pairs, and for distances 0, 1, 2–3, 4–7, 8–15, … of the other pairs."""
    groups: dict[tuple[bool, int], list[tuple[int, bool]]] = collections.defaultdict(list)
    counts = collections.Counter(pair.distance for pair in pairs)
    for pair, found in zip(pairs, right, strict=True):
        many = counts[pair.distance] >= MANY
        groups[many, pair.distance if many else pair.distance.bit_length()].append((pair.distance, found))
    shares = []
    for members in sorted(groups.values()):
        distances, hits = zip(*members, strict=True)
        interval = wilson(sum(hits), len(hits))
        shares.append(Share(min(distances), max(distances), statistics.fmean(distances), len(hits), sum(hits), *interval))
    return shares


def wilson(hits: int, count: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927), which stays between 0 and 1 and suits small counts."""
    share, centre = hits / count, (hits + z * z / 2) / (count + z * z)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return max(0.0, centre - half), min(1.0, centre + half)


def report(shares: Mapping[str, Sequence[Share]]) -> figures.Report:
    """Return a chart with one line per run, and its numbers, by the suffix of their files, and a table; all runs have the same pairs."""
    lines = {name: figures.line([(s.mean, s.accuracy, s.low, s.high) for s in each]) for name, each in shares.items()}
    header = ["run", "nearest", "furthest", "mean distance", "pairs", "right", "low", "high", "accuracy"]
    numbers = ([name, *share, share.accuracy] for name, each in shares.items() for share in each)
    cells = [[f"{100 * s.accuracy:.1f} % ({100 * s.low:.0f}–{100 * s.high:.0f})" for s in each] for each in shares.values()]
    first = next(iter(shares.values()))
    rows = [(figures.span(share.nearest, share.furthest), f"{share.pairs:,}", *row) for share, *row in zip(first, *cells, strict=True)]
    table = figures.Table(TITLE, ("words between", "pairs", *shares), rows, "In brackets: 95 % (Wilson).")
    return {".svg": figures.chart(lines, TITLE, X, Y, bars=True), ".csv": figures.to_csv(header, numbers)}, table
