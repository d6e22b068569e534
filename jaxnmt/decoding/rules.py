"""Rules for a sentence's translation, as users write them: a prefix, alternatives after it, phrases that must or must not occur."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from jaxnmt.config import Decoding
from jaxnmt.config.fields import did_you_mean
from jaxnmt.data.special_tokens import PAD, UNK
from jaxnmt.data.tokenizer import Tokenizer
from jaxnmt.decoding.terminology import Terminology
from jaxnmt.errors import UserError
from jaxnmt.io.text import normalise


@dataclass(frozen=True)
class Rules:
    """The rules for one sentence.

    Attributes:
        prefix: text that the translation begins with.
        constraints: phrases that must occur in the translation; of `a|b`, one must.
        forbidden: phrases that must not occur in it.
        terminology: terms, whose translations must occur if the sentence has them.
        unk_table: words, whose translations replace unknown words that stand for them; None: the words themselves do.
        alternatives: of how many tokens after the prefix the best translation is wanted; 0: of the best translations.
    """

    prefix: str = ""
    constraints: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()
    terminology: Terminology | None = None
    unk_table: Terminology | None = None
    alternatives: int = 0

    def with_own(self, own: Rules) -> Rules:
        """Return these rules together with a sentence's own, whose prefix replaces this one."""
        constraints, forbidden = self.constraints + own.constraints, self.forbidden + own.forbidden
        return dataclasses.replace(self, prefix=own.prefix or self.prefix, constraints=constraints, forbidden=forbidden)


def check_together(decoding: Decoding, constrained: bool, alternatives: int) -> None:
    """Check that rules go with the decoding settings.

    Args:
        decoding: the settings.
        constrained: whether there are constraints or a terminology.
        alternatives: as in `Rules`.

    Raises:
        UserError: they do not.
    """
    if constrained and decoding.temperature:
        raise UserError("constraints and terminology need a search, and decoding.temperature draws samples: set it to 0")
    if constrained and decoding.sibling_penalty:
        raise UserError("constraints and terminology fill the beam by one rule, and decoding.sibling_penalty by another: set it to 0")
    if alternatives and decoding.temperature:
        raise UserError("alternatives need a search, and decoding.temperature draws samples: set it to 0")
    if alternatives and decoding.n_best > 1:
        raise UserError(f"alternatives {alternatives} is the number of translations of a line: set decoding.n_best to 1")
    if alternatives and decoding.mbr != "none":
        raise UserError(f"alternatives differ in one word, and decoding.mbr {decoding.mbr} chooses among all hypotheses: set it to none")


def rules_of_lines(count: int, prefix: Any, constraints: Any, forbidden: Any, for_all: Rules = Rules()) -> list[Rules]:  # noqa: B008
    """Return the rules of `count` lines.

    Args:
        prefix: a text for all lines, or one for each.
        constraints, forbidden: phrases for all lines, or a list of phrases for each.
        for_all: the other rules, for all lines.

    Raises:
        UserError: there are more or fewer of them than lines.
    """

    def spread(name: str, values: Any, is_for_all: bool) -> Sequence[Any]:
        if not is_for_all and len(values) != count:
            raise UserError(f"{name} has {len(values)} entries for {count} lines: give one for each line, or the same for all")
        if not is_for_all and any(isinstance(value, str) != (name == "prefix") for value in values):
            raise UserError(f"{name} mixes texts and lists: give one list for all lines, or a list for each line")
        return [values] * count if is_for_all else values

    prefixes = spread("prefix", prefix, isinstance(prefix, str))
    phrases = {
        name: spread(name, [values] if isinstance(values, str) else values, all(isinstance(value, str) for value in values))
        for name, values in (("constraints", constraints), ("forbidden", forbidden))
    }
    of_lines = zip(prefixes, phrases["constraints"], phrases["forbidden"], strict=True)
    return [
        dataclasses.replace(for_all, prefix=own, constraints=tuple(required), forbidden=tuple(excluded))
        for own, required, excluded in of_lines
    ]


def from_json(line: str, number: int) -> tuple[str, Rules]:
    """Return the text and the rules in a line `{"text": "...", "prefix": "...", "constraints": [...], "forbidden": [...]}`.

    All but the text may be missing. An empty line is an empty text.

    Raises:
        UserError: it is not such an object.
    """
    if not line:
        return "", Rules()
    example = '{"text": "...", "prefix": "...", "constraints": ["..."], "forbidden": ["..."]}'
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"line {number} is not JSON ({error}): write it as {example}") from None
    expected = {"text": str, "prefix": str, "constraints": list, "forbidden": list}
    if not isinstance(values, dict) or "text" not in values:
        raise UserError(f"line {number} is not an object with a text: write it as {example}")
    for name, value in values.items():
        if name not in expected:
            raise UserError(f"line {number} has an unknown field {name}{did_you_mean(name, expected) or f': write it as {example}'}")
        if not isinstance(value, expected[name]) or (isinstance(value, list) and not all(isinstance(phrase, str) for phrase in value)):
            raise UserError(
                f"the field {name} of line {number} is not {'a text' if expected[name] is str else 'a list of texts'}: write {example}"
            )
        if re.search("[\ud800-\udfff]", "".join(value)):
            raise UserError(f"the field {name} of line {number} has half of a character (a lone surrogate): correct it")
    constraints, forbidden = (tuple(values.get(name, ())) for name in ("constraints", "forbidden"))
    return normalise(values["text"]), Rules(values.get("prefix", ""), constraints, forbidden)


def from_columns(line: str, number: int) -> tuple[str, Rules]:
    """Return the text and the rules in a line `text TAB prefix`, whose prefix may be empty. An empty line is an empty text.

    Raises:
        UserError: it does not have two columns.
    """
    text, *others = line.split("\t")
    if line and len(others) != 1:
        raise UserError(f"line {number} has {len(others) + 1} columns, and --prefix-column needs 2: write source, tab, prefix")
    return text, Rules("".join(others))


class TokenRules(NamedTuple):
    """The rules for one source that the model reads whole, as target tokens.

    Attributes:
        required: of each constraint, its alternatives.
        forbidden_text: the forbidden phrases as text.
        alternatives: as in `Rules`.
        rank: the first token after the prefix is the best but this many; -1: any.
    """

    prefix: list[int]
    required: list[list[list[int]]]
    forbidden: list[list[int]]
    forbidden_text: tuple[str, ...]
    alternatives: int = 0
    rank: int = -1

    @property
    def extra_tokens(self) -> int:
        """By how many tokens the sentence's length limit is raised.

        Each constraint has one more, because a forbidden phrase may part two of them.
        """
        return len(self.prefix) + sum(max(map(len, alternatives)) + 1 for alternatives in self.required)

    @property
    def searches(self) -> list[TokenRules]:
        """The rules of each search for the sentence: one for each alternative, which never compete."""
        return [self._replace(rank=rank) for rank in range(self.alternatives)] or [self]

    def respelled(self, translations: Iterable[Any], tokenizer: Tokenizer) -> list[list[int]]:
        """Return the tokens with which a sentence's translations spell forbidden phrases: others than the tokenizer's own."""
        return [
            _shortest_span(translation.parts[0][1], phrase, tokenizer)
            for translation in translations
            for phrase in self.forbidden_text
            if _occurs(phrase, translation.text)
        ]


def tokenised(rules: Rules, parts: Sequence[str], tokenizer: Tokenizer, number: int) -> list[TokenRules]:
    """Return the rules of a line as tokens, for each part of it that the model reads.

    The first part has the prefix, every part the forbidden phrases, and each the terms that it contains.

    Args:
        number: of the line, for messages.

    Raises:
        UserError: the vocabulary cannot spell a constraint, a constraint contains a forbidden phrase, or a line with constraints or
            alternatives is translated in parts.
    """
    if rules.alternatives and len(parts) > 1:
        raise UserError(f"line {number} is translated in parts, of which alternatives are not joined: split the line, or shorten it")
    if rules.constraints and len(parts) > 1:
        raise UserError(f"line {number} is translated in parts, so its constraints have no place: split the line, or shorten it")
    forbidden_text = tuple(" ".join(phrase.split()) for phrase in rules.forbidden if phrase.strip())
    # What the vocabulary cannot write cannot occur; UNK stands for other words too.
    forbidden = [ids for ids in tokenizer.encode_target(forbidden_text) if UNK not in ids]
    found = []
    for part, text in enumerate(parts):
        prefix = tokenizer.encode_target([rules.prefix if part == 0 else ""])[0]
        if part == 0 and (excluded := [phrase for phrase in forbidden_text if _occurs(phrase, rules.prefix)]):
            raise UserError(f"line {number}: the prefix {rules.prefix!r} has the forbidden phrase {excluded[0]!r}: drop one of them")
        phrases = dict.fromkeys([*rules.constraints, *(rules.terminology.constraints(text) if rules.terminology else ())])
        required = [list(_alternatives(phrase, forbidden_text, forbidden, tokenizer, number)) for phrase in phrases if phrase.strip()]
        found.append(TokenRules(prefix, required, forbidden, forbidden_text, rules.alternatives))
    return found


def _alternatives(
    constraint: str, forbidden_text: Sequence[str], forbidden: Sequence[list[int]], tokenizer: Tokenizer, number: int
) -> Iterator[list[int]]:
    """Yield the tokens of those alternatives that have neither a forbidden phrase nor its tokens."""
    alternatives = [phrase for phrase in constraint.split("|") if phrase.strip()]
    if not alternatives:
        raise UserError(f"line {number}: the constraint {constraint!r} has no phrase: write one, or several with | between them")
    possible = [phrase for phrase in alternatives if not any(_occurs(each, phrase) for each in forbidden_text)]
    if not possible:
        raise UserError(f"line {number}: the constraint {constraint!r} cannot occur without a forbidden phrase: drop one of them")
    spelt = tokenizer.encode_target(possible)
    if any(UNK in ids for ids in spelt):
        raise UserError(f"line {number}: the vocabulary has no tokens for the constraint {constraint!r}: correct it, or drop it")
    # The search forbids tokens: those of "cent" also where they begin "centaine".
    allowed = [ids for ids in spelt if not any(_has(ids, each) for each in forbidden)]
    if not allowed:
        spelling = next(each for each in forbidden if _has(spelt[0], each))
        phrase = tokenizer.decode_target(spelling)
        raise UserError(
            f"line {number}: the constraint {constraint!r} contains the tokens of the forbidden phrase {phrase!r}: drop one of them"
        )
    yield from allowed


def _has(ids: Sequence[int], some: Sequence[int]) -> bool:
    """Return whether ids have others in a row."""
    return any(list(ids[start : start + len(some)]) == list(some) for start in range(len(ids) - len(some) + 1))


def _occurs(phrase: str, text: str) -> bool:
    """Return whether a phrase occurs in a text as whole words."""
    return re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", text) is not None


def _shortest_span(ids: Sequence[int], phrase: str, tokenizer: Tokenizer) -> list[int]:
    spans = (list(ids[start : start + length]) for length in range(1, len(ids) + 1) for start in range(len(ids) - length + 1))
    return next(span for span in spans if _occurs(phrase, normalise(tokenizer.decode_target(span))))


def search(
    find: Callable[[Sequence[list[int]], Sequence[TokenRules]], list[list[Any]]],
    sentences: Sequence[list[int]],
    rules: list[TokenRules],
    tokenizer: Tokenizer,
) -> list[list[Any]]:
    """Translate sentences by their rules: again if a translation spells a forbidden phrase with tokens that were not forbidden yet.

    Args:
        find: returns the translations of sentences, each by its rules.
        sentences: source tokens.
        rules: of each sentence; tokens that were found to spell a forbidden phrase are added.
        tokenizer: of source and target.

    Raises:
        UserError: a sentence has no translation without a forbidden phrase.
    """
    results = _best_alternatives(find, sentences, rules)
    while respelled := {i: more for i, found in enumerate(results) if (more := rules[i].respelled(found, tokenizer))}:
        for i, more in respelled.items():
            if all(phrase in rules[i].forbidden for phrase in more):
                phrases = ", ".join(rules[i].forbidden_text)
                raise UserError(f"{tokenizer.decode_source(sentences[i])!r} has no translation without {phrases}: allow one of them")
            rules[i] = rules[i]._replace(forbidden=[*rules[i].forbidden, *more])
        again = _best_alternatives(find, [sentences[i] for i in respelled], [rules[i] for i in respelled])
        for i, translations in zip(respelled, again, strict=True):
            results[i] = translations
    return results


def _best_alternatives(
    find: Callable[[Sequence[list[int]], Sequence[TokenRules]], list[list[Any]]],
    sentences: Sequence[list[int]],
    rules: Sequence[TokenRules],
) -> list[list[Any]]:
    """Translate sentences: one with alternatives once for each of them, and its translations are sorted by their scores."""
    searches = [(i, own) for i, each in enumerate(rules) for own in each.searches]
    found = find([sentences[i] for i, _ in searches], [own for _, own in searches])
    results: list[list[Any]] = [[] for _ in sentences]
    for (i, _), translations in zip(searches, found, strict=True):
        results[i] += translations
    return [
        sorted(translations, key=lambda each: -each.score) if each.alternatives else translations
        for each, translations in zip(rules, results, strict=True)
    ]


def arrays(rules: Sequence[TokenRules], rows: int, like: Sequence[TokenRules]) -> dict[str, np.ndarray]:
    """Return the rules as the fields of a batch, `constraints.TargetRules`; rows beyond them have none.

    Args:
        like: the rules whose sizes the arrays must hold. They are padded to powers of two, so that few programs are compiled.
    """
    constraints = [constraint for each in like for constraint in each.required]
    phrases = [phrase for constraint in constraints for phrase in constraint]
    forbidden = [phrase for each in like for phrase in each.forbidden]
    found: dict[str, np.ndarray] = {}
    if any(each.prefix for each in like):
        found["prefix"] = _filled([each.prefix for each in rules], (rows, _padded_size((each.prefix for each in like), 8)))
    if constraints:
        sizes = _padded_size((each.required for each in like), 4), _padded_size(constraints, 1), _padded_size(phrases, 4)
        found["required"] = _filled([each.required for each in rules], (rows, *sizes))
    if forbidden:
        sizes_of_two = _padded_size((each.forbidden for each in like), 4), _padded_size(forbidden, 4)
        found["forbidden"] = _filled([each.forbidden for each in rules], (rows, *sizes_of_two))
    if any(each.rank >= 0 for each in like):
        found["rank"] = np.array([*(each.rank for each in rules), *[-1] * (rows - len(rules))], np.int32)
    return found


def _padded_size(lists: Iterable[Sequence[Any]], least: int) -> int:
    """Return the power of two, from `least` on, that holds the longest."""
    return max(least, 1 << (max(map(len, lists)) - 1).bit_length())


def _filled(nested: Sequence[Any], shape: tuple[int, ...]) -> np.ndarray:
    """Return nested lists as an array, padded with PAD."""
    array: np.ndarray = np.full(shape, PAD, np.int32)
    for index, each in enumerate(nested):
        array[index] = _filled(each, shape[1:]) if isinstance(each, list) else each
    return array
