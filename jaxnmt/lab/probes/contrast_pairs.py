"""Pairs of translations that differ in one word: read from a file, or made from any sentences by rules (described in `rules/de.toml`)."""

from __future__ import annotations

import itertools
import pathlib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from jaxnmt.data.special_tokens import UNK
from jaxnmt.data.tokenizer import Tokenizer, joiner_of
from jaxnmt.data.vocabulary import JOINER, SPACER, join, link
from jaxnmt.errors import UserError
from jaxnmt.evaluation.tokenization import base
from jaxnmt.io.text import read_lines
from jaxnmt.run import Run

RULES = pathlib.Path(__file__).parent / "rules"


class Pair(NamedTuple):
    """A sentence, its right translation, one with a wrong word, and the number of words between that word and the one that decides it."""

    source: str
    right: str
    wrong: str
    distance: int


class Rule(NamedTuple):
    """Words that must agree with an earlier word.

    Attributes:
        swaps: for each antecedent the dependent words that agree with it, and the wrong word for each; all in lower case.
        after: the words that may come right before the dependent word; empty: any word.
    """

    name: str
    swaps: Mapping[str, Mapping[str, str]]
    after: tuple[str, ...] = ()


class _Word(NamedTuple):
    text: str
    start: int
    end: int


def read(name: str) -> list[Pair]:
    """Read pairs from a TSV file, plain or compressed: source, right translation, wrong translation, distance.

    Raises:
        UserError: the file cannot be read or is empty, or a line does not have four columns with a number in the last.
    """
    pairs = []
    for number, line in enumerate(read_lines(name, "--pairs"), 1):
        columns = line.split("\t")
        if len(columns) != 4 or not columns[3].isascii() or not columns[3].isdigit():
            raise UserError(
                f"--pairs {name}, line {number}: give source, right translation, wrong translation and distance, separated by tabs"
            )
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
    path = RULES / f"{name}.toml" if (RULES / f"{name}.toml").is_file() else pathlib.Path(name)
    shipped = ", ".join(sorted(file.stem for file in RULES.glob("*.toml")))
    if not path.is_file():
        raise UserError(f"--rules {name or '(none)'}: there is no such file; there are shipped rules for: {shipped}")
    try:
        rules = [_rule(each) for each in tomllib.loads(path.read_text(encoding="utf-8"))["rules"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"--rules {path} cannot be read ({type(error).__name__}: {error}); see {RULES / 'de.toml'} for the format"
        ) from None
    for wanted in only:
        if wanted not in [rule.name for rule in rules]:
            raise UserError(f"--only {wanted}: {path} has the rules {', '.join(rule.name for rule in rules)}")
    return [rule for rule in rules if not only or rule.name in only]


def _rule(table: dict[str, Any]) -> Rule:
    swaps = {
        word.lower(): {k.lower(): v for k, v in each.get("swaps", {}).items()} for each in table["agree"] for word in each["antecedents"]
    }
    return Rule(table["name"], swaps, tuple(table.get("after", ())))


def of_runs(runs: Sequence[Run], rules: str, only: Sequence[str], data: tuple[str, ...]) -> list[Pair]:
    """Make pairs from the runs' test and validation sentences, or from those of other sources, `data`.

    Args:
        rules, only: see `load_rules`; rules "": those of the target language.

    Raises:
        UserError: the runs have different sentences, or the rules make no pair from them.
    """
    found = [_sentences(run, data) for run in runs]
    sources, targets, language = found[0]
    for run, other in zip(runs, found, strict=True):
        if other[:2] != (sources, targets):
            raise UserError(
                f"{runs[0].folder} and {run.folder} were trained on text in different formats: give pairs that suit both with --pairs"
            )
    pairs = make(load_rules(rules or base(language), only), sources, targets, joiner_of(runs[0].config.tokenizer))
    if not pairs:
        raise UserError(f"the rules make no pair from {len(sources):,} sentences: give more with --data, or other --rules")
    return pairs


def _sentences(run: Run, data: tuple[str, ...]) -> tuple[list[str], list[str], str]:
    """Return sources, targets in the model's format, and the target language."""
    splits: tuple[Literal["test", "validation"], ...] = ("test",) if data else ("test", "validation")
    tests = [run.test_set(split, data) for split in splits]
    tests = tests[:1] if tests[0].name == tests[-1].name else tests  # without test sentences both are the validation sentences
    sources, targets = ([line for test in tests for line in getattr(test, side)] for side in ("sources", "targets"))
    return sources, targets, tests[0].languages[1]


def make(rules: Sequence[Rule], sources: Sequence[str], targets: Sequence[str], joiner: str = "") -> list[Pair]:
    """Make at most one pair per rule and sentence, by swapping its first dependent word.

    Args:
        joiner: the mark of words split into pieces, see `vocabulary.join`; "" if words are not split.
    """
    whole = rf"\w+(?:{link(joiner)}\w+)*" if joiner else r"\w+"
    pattern = re.compile(rf"{whole}|[^\w\s{SPACER}{JOINER}]")
    made = []
    for source, target in zip(sources, targets, strict=True):
        words = [_Word(join(found[0], joiner).lower(), *found.span()) for found in pattern.finditer(target)]
        for rule in rules:
            for word, wrong, distance in itertools.islice(_dependents(rule, words), 1):
                new = wrong.capitalize() if target[word.start].isupper() else wrong
                made.append(Pair(source, target, target[: word.start] + new + target[word.end :], distance))
    return made


def _dependents(rule: Rule, words: Sequence[_Word]) -> Iterator[tuple[_Word, str, int]]:
    """Yield each word that agrees with the only antecedent before it, the wrong word for it, and the number of words between."""
    antecedents = [place for place, word in enumerate(words) if word.text in rule.swaps]
    last = [place for place in antecedents if place + 1 not in antecedents]  # "junge Frau"
    for place, word in enumerate(words):
        before = [antecedent for antecedent in last if antecedent < place]
        if len(before) != 1 or (rule.after and words[place - 1].text not in rule.after):
            continue
        wrong = rule.swaps[words[before[0]].text].get(word.text)
        if wrong:
            yield word, wrong, sum(between.text[0].isalnum() for between in words[before[0] + 1 : place])


def usable(pairs: Sequence[Pair], tokenizer: Tokenizer, max_length: int) -> list[Pair]:
    """Return the pairs that the model reads without truncation, and whose wrong translation adds no unknown token."""
    rows = zip(pairs, *encoded(pairs, tokenizer), strict=True)
    return [pair for pair, *ids in rows if max(map(len, ids)) < max_length and ids[2].count(UNK) <= ids[1].count(UNK)]


def encoded(pairs: Sequence[Pair], tokenizer: Tokenizer) -> tuple[list[list[int]], list[list[int]], list[list[int]]]:
    """Return the ids of sources, right and wrong translations, without EOS."""
    right, wrong = (tokenizer.encode_target([getattr(pair, side) for pair in pairs]) for side in ("right", "wrong"))
    return tokenizer.encode_source([pair.source for pair in pairs]), right, wrong
