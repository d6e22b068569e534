"""Pairs of translations that differ in one word: read from a file, or made of any sentences by rules (`rules/de.toml` says how)."""

from __future__ import annotations

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
    """A sentence, its right translation, one that is wrong in a word, and how many words stand between that word and what decides it."""

    source: str
    right: str
    wrong: str
    distance: int


class Rule(NamedTuple):
    """Words that must agree with one before them.

    Attributes:
        swaps: for each antecedent the dependent words that agree with it, and what is wrong in their place; all in small letters.
        after: what stands right before the dependent word; empty: anything.
    """

    name: str
    swaps: Mapping[str, Mapping[str, str]]
    after: tuple[str, ...] = ()


class _Word(NamedTuple):
    text: str
    start: int
    end: int


def read(name: str) -> list[Pair]:
    """Pairs of a TSV file, plain or compressed: source, right translation, wrong translation, distance.

    Raises:
        UserError: it cannot be read, a line has not four columns or no distance, or there is no line.
    """
    pairs = []
    for number, line in enumerate(read_lines(name, "--pairs"), 1):
        columns = line.split("\t")
        if len(columns) != 4 or not columns[3].isascii() or not columns[3].isdigit():
            raise UserError(
                f"--pairs {name}, line {number}: expected are source, right translation, wrong translation and distance, by tabs"
            )
        pairs.append(Pair(columns[0], columns[1], columns[2], int(columns[3])))
    if not pairs:
        raise UserError(f"--pairs {name} is empty")
    return pairs


def as_text(pairs: Sequence[Pair]) -> str:
    """What `read` reads."""
    return "".join("\t".join(map(str, pair)) + "\n" for pair in pairs)


def load_rules(name: str, only: Sequence[str] = ()) -> list[Rule]:
    """The rules of a TOML file, by path, or of a language that has shipped ones.

    Args:
        only: names of the rules wanted; empty: all.

    Raises:
        UserError: no such language or file; the file is not TOML, or says something else; no such rule.
    """
    path = RULES / f"{name}.toml" if (RULES / f"{name}.toml").is_file() else pathlib.Path(name)
    shipped = ", ".join(sorted(file.stem for file in RULES.glob("*.toml")))
    if not path.is_file():
        raise UserError(f"--rules {name or '(none)'}: there is no such file; languages with shipped rules are: {shipped}")
    try:
        rules = [_rule(each) for each in tomllib.loads(path.read_text(encoding="utf-8"))["rules"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"--rules {path} cannot be read ({type(error).__name__}: {error}); {RULES / 'de.toml'} shows how they are"
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
    """Return pairs made of the runs' test and validation sentences, or of those of other sources, `data`.

    Args:
        rules, only: as `load_rules` takes them; rules "": of the target language.

    Raises:
        UserError: the runs have different sentences, or no pair is found in them.
    """
    found = [_sentences(run, data) for run in runs]
    sources, targets, language = found[0]
    for run, other in zip(runs, found, strict=True):
        if other[:2] != (sources, targets):
            raise UserError(
                f"{runs[0].folder} and {run.folder} were not trained on text of one form: give pairs that fit both with --pairs"
            )
    pairs = make(load_rules(rules or base(language), only), sources, targets, joiner_of(runs[0].config.tokenizer))
    if not pairs:
        raise UserError(f"the rules find no pair in {len(sources):,} sentences: name more with --data, or other --rules")
    return pairs


def _sentences(run: Run, data: tuple[str, ...]) -> tuple[list[str], list[str], str]:
    """Return sources, targets as a model writes them, and the target language."""
    splits: tuple[Literal["test", "validation"], ...] = ("test",) if data else ("test", "validation")
    tests = [run.test_set(split, data) for split in splits]
    tests = tests[:1] if tests[0].name == tests[-1].name else tests  # without test sentences the validation sentences serve
    sources, targets = ([line for test in tests for line in getattr(test, side)] for side in ("sources", "targets"))
    return sources, targets, tests[0].languages[1]


def make(rules: Sequence[Rule], sources: Sequence[str], targets: Sequence[str], joiner: str = "") -> list[Pair]:
    """At most one pair of each rule and sentence: its first dependent word swapped.

    Args:
        joiner: how words are split, see `vocabulary.join`; "" where they are whole.
    """
    word = rf"\w+(?:{link(joiner)}\w+)*" if joiner else r"\w+"
    pattern = re.compile(rf"{word}|[^\w\s{SPACER}{JOINER}]")
    made = []
    for source, target in zip(sources, targets, strict=True):
        words = [_Word(join(found[0], joiner).lower(), *found.span()) for found in pattern.finditer(target)]
        for rule in rules:
            for place, wrong, distance in _dependents(rule, words):
                old = target[place.start : place.end]
                new = wrong.capitalize() if old[0].isupper() else wrong
                made.append(Pair(source, target, target[: place.start] + new + target[place.end :], distance))
                break
    return made


def _dependents(rule: Rule, words: Sequence[_Word]) -> Iterator[tuple[_Word, str, int]]:
    """Each word that agrees with the one antecedent before it, what is wrong in its place, and the words between."""
    named = [place for place, word in enumerate(words) if word.text in rule.swaps]
    last = [place for place in named if place + 1 not in named]  # "junge Frau"
    for place, word in enumerate(words):
        before = [antecedent for antecedent in last if antecedent < place]
        if len(before) != 1 or (rule.after and words[place - 1].text not in rule.after):
            continue
        wrong = rule.swaps[words[before[0]].text].get(word.text)
        if wrong:
            yield word, wrong, sum(between.text[0].isalnum() for between in words[before[0] + 1 : place])


def usable(pairs: Sequence[Pair], tokenizer: Tokenizer, max_length: int) -> list[Pair]:
    """Those whose sides the model reads whole, and whose wrong translation has no unknown token that the right one has not."""
    sources = tokenizer.encode_source([pair.source for pair in pairs])
    right, wrong = (tokenizer.encode_target([getattr(pair, side) for pair in pairs]) for side in ("right", "wrong"))
    return [
        pair
        for pair, *ids in zip(pairs, sources, right, wrong, strict=True)
        if max(map(len, ids)) < max_length and ids[2].count(UNK) <= ids[1].count(UNK)
    ]
