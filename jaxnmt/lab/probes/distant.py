"""Sentences with two words that depend on each other over any number of words, drawn from the embedded corpus's grammar.

`agreement` draws pairs for `probe contrast`, `cloze` sentences with a gap for `probe cloze`, and `lines` the text to train on. Each is a
pure function of its arguments. Values come from the split that is asked for (`jaxnmt.data.phrases`): all words of the test occur in
training, its combinations of person and place, number and thing, or thing and adjective do not.

The distance is filled with what the grammar has: a list of things, or clauses with one subject. These two forms are not in the corpus
`phrases` itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from jaxnmt import UserError
from jaxnmt.data.phrases import LANGUAGES
from jaxnmt.data.phrases import meaning as m
from jaxnmt.data.phrases.drawing import Random, draw_clause
from jaxnmt.data.phrases.grammar import Language
from jaxnmt.data.phrases.meaning import Clause, Form, Meaning

FURTHEST = 30
"""Words between the two, at most, in text for training."""
TRIES = 1000
"""Sentences begun, after which a distance counts as impossible (Spanish has no clause that fills two words)."""
DRAWS, MISSES = 40, 8
"""Pieces drawn for a sentence; pieces that are too long, one after the other, after which the last two of it are taken back."""
SPOKEN = {"FR": "fr", "DE": "de", "IT": "it", "ES": "es", "JP": "ja", "PT": "pt", "GR": "el", "PL": "pl", "TR": "tr"}
"""The language of each country that has one of its own here."""
VERBS = {
    "en": (["grew up"], ["speaks", "speak"]),
    "fr": (["a grandi", "ont grandi"], ["parle", "parlent"]),
    "de": (["ist aufgewachsen", "sind aufgewachsen"], ["spricht", "sprechen"]),
    "es": (["creció", "crecieron"], ["habla", "hablan"]),
    "tr": (["büyüdü"], ["konuşuyor"]),
}
"""Two verbs that the corpus does not have: to grow up (past), to speak (present)."""


class Pair(NamedTuple):
    """A sentence, its right translation, one with a wrong word, and the number of words between that word and the one that decides it."""

    source: str
    right: str
    wrong: str
    distance: int


class Cloze(NamedTuple):
    """A sentence whose gap is filled by each of several words.

    Attributes:
        sentences: one for each word.
        words: what fills the gap, in the same order.
        right: index of the right word.
        distance: number of words between the gap and the word that decides what fills it.
    """

    sentences: tuple[str, ...]
    words: tuple[str, ...]
    right: int
    distance: int


class Longer(Language):
    """A language of the corpus, in which clauses may share a subject (joins "then" and "and then") and have a list of things."""

    @cached_property
    def conjunction(self) -> str:
        """Return "and"."""
        return Language(self.code).words["joins"]["and"].format(before="", clause="").strip(", ")

    @cached_property
    def words(self) -> dict[str, Any]:
        """Return the content of the language's TOML file, with these joins and verbs."""
        words = Language(self.code).words
        grow_up, speak = VERBS[self.code]
        more = {
            "joins": {"then": "{before}, {clause}", "and then": f"{{before}} {self.conjunction} {{clause}}"},
            "verbs": {"grow up": {"past": grow_up}, "speak": {"present": speak}},
            "order": {"speak": "{subject} {language} {verb}" if self.code == "tr" else "{subject} {verb} {language}"},
        }
        return words | {table: words[table] | rows for table, rows in more.items()}

    def parts(self, c: Clause, join: str) -> dict[str, str]:
        """Return the text of each part; a clause joined by "then" or "and then" has no subject of its own."""
        language = {"language": self.locale.languages[c.values["language"]]} if "language" in c.values else {}
        return super().parts(c, join) | language | ({"subject": ""} if join.endswith("then") else {})

    def verb(self, c: Clause, join: str) -> str:
        """Return the verb, which agrees with the value "agrees with" if there is one, and not with the subject."""
        return super().verb(c._replace(who=c.values.get("agrees with", c.who)), join)

    def things(self, *items: Any) -> str:
        """Return a number of things with an adjective, or several of them in a list."""
        *first, last = (Language.things(self, *item) for item in ([items] if isinstance(items[0], int) else items))
        return f"{', '.join(first)} {self.conjunction} {last}" if first else last

    def finite(self, c: Clause) -> str:
        """Return the first word of the verb."""
        return self.verb(c, "").split()[0]


_LANGUAGE = {code: Longer(code) for code in LANGUAGES}


def first_difference(one: str, other: str) -> int:
    """Return the index of the first word in which two texts differ."""
    return next(i for i, (a, b) in enumerate(itertools.zip_longest(one.split(), other.split())) if a != b)


# ---- agreement


def agreement(source: str, target: str, split: str, distance: int, index: int) -> Pair | None:
    """Return pair `index` of a distance, in two of LANGUAGES; None if the target language has none of this distance.

    English, French, German, Spanish: a verb agrees in number with the subject, which is said once, before another verb: "My parents sold
    two red lamps in Rome and work in Vienna", against "works". The distance counts from the last word that shows the number: the subject,
    or the first verb if that agrees too (it does not in the English past). The second verb is in the present in English and in the future
    in the others, so that a Turkish or an English source does not show the number beside it.

    Turkish: a reported clause ends in a participle if its subject has the genitive: "Doktor, kız kardeşimin iki kırmızı lamba sattığını
    söylüyor". The wrong sentence ends as a main clause does: "... lamba sattı". The distance counts from the subject.
    """
    rng, language = Random(f"agreement {target} {split} {distance} {index}"), _LANGUAGE[target]
    for _ in range(TRIES):
        meaning = (_reported if target == "tr" else _two_verbs)(target, split, distance, rng)
        if found := _filled(language, meaning, split, distance, rng):
            return Pair(_LANGUAGE[source].sentence(found), *_contrasted(language, found), distance)
    return None


def _reported(target: str, split: str, distance: int, rng: Random) -> Meaning:
    clause = draw_clause(_form(rng, brief=1 if distance < 2 else 0.3), split, rng)
    return Meaning(rng.one(m.REPORTS), rng.one(_all_but(clause.who)), (clause,), ())


def _two_verbs(target: str, split: str, distance: int, rng: Random) -> Meaning:
    time, extras = rng.one(("date", "weekday")), ("place", "time")
    ends = Form(rng.one(("work", "wait")), target != "en", extras=extras, time=time, present=target == "en", omits=("duration",))
    last = draw_clause(ends, split, rng, rng.one((m.SINGULAR, m.PLURAL)))
    if not distance:
        return Meaning("", "", (last,), ())
    form = _form(rng, brief=1 if distance < 4 else 0.3)
    if form.omits and form.time != "year" and rng.chance(0.5):
        form = form._replace(present=True)
    return Meaning("", "", (draw_clause(form, split, rng, _all_but(last.who)), last), ("and then",))


def _all_but(who: str) -> tuple[str, ...]:
    return tuple(person for person in m.PERSONS if person != who)


def _form(rng: Random, brief: float) -> Form:
    """Return the form of a clause in the past; with probability `brief`, of one without an object, such as "waited" or "waited in Rome"."""
    short = rng.chance(brief)
    name = rng.one(("work", "wait") if short else [name for name in m.PERSONAL if name not in ("be born", "live")])
    frame = m.FRAMES[name]
    extras = tuple(part for part in frame.may if rng.chance(0.3))
    return Form(name, extras=extras, time=rng.one(frame.times) if "time" in extras else "", omits=("duration",) * short)


def _filled(language: Longer, meaning: Meaning, split: str, distance: int, rng: Random) -> Meaning | None:
    """Add things to the first clause until the distance is reached; return None if it cannot be."""
    first, *others = meaning.clauses
    now = _distance(language, meaning)
    if "things" not in first.values:
        return meaning if now == distance else None
    items = [first.values["things"]]

    def draw() -> tuple[int, Any]:
        item = draw_clause(Form("buy"), split, rng).values["things"]
        repeated = item[1] in {thing for _, thing, _ in items}
        return (0, None) if repeated else (len(language.things(*item).split()), item)

    if not _reaching(distance - now, draw, items, between=1):
        return None
    return meaning._replace(clauses=(first._replace(values=first.values | {"things": tuple(items)}), *others))


def _reaching(words: int, draw: Callable[[], tuple[int, Any]], found: list[Any], between: int) -> bool:
    """Add what is drawn to `found` until it has so many words more; return whether it has.

    Args:
        draw: returns a number of words, and what has them; 0 to draw again.
        between: words that the first addition brings besides its own.
    """
    first, counts, misses = len(found), list[int](), 0
    for _ in range(DRAWS):
        left = words - sum(counts) - between * bool(counts)
        if left <= 0:
            return left == 0
        length, drawn = draw()
        if 0 < length <= left - between * (not counts):
            counts.append(length)
            found.append(drawn)
            misses = 0
        elif (misses := misses + 1) == MISSES:  # what is left may be too short for anything
            del counts[-2:], found[first + len(counts) :]
            misses = 0
    return False


def _distance(language: Longer, meaning: Meaning) -> int:
    """Return the number of words between the wrong word of `_contrasted` and the last one before it that shows what is right."""
    first, who = meaning.clauses[0], language.words["who"]
    deciding = len(f"{who.get(meaning.reporter, '')} {who[first.who]}".split()) - 1
    if meaning.joins:
        deciding += language.finite(first) != language.finite(_disagreeing(first))
    return first_difference(*_contrasted(language, meaning)) - deciding - 1


def _contrasted(language: Longer, meaning: Meaning) -> tuple[str, str]:
    """Return the right and the wrong sentence."""
    right, (*others, last) = language.sentence(meaning), meaning.clauses
    if meaning.report:
        end = f"{language.verb(last, 'that')} {language.words['reports'][meaning.report][0]}."
        return right, f"{right.removesuffix(end)}{language.verb(last, '')}."
    return right, language.sentence(meaning._replace(clauses=(*others, _disagreeing(last))))


def _disagreeing(clause: Clause) -> Clause:
    return clause._replace(values=clause.values | {"agrees with": "brother" if clause.who in m.PLURAL else "parents"})


# ---- cloze


def cloze(language: str, split: str, distance: int, index: int) -> Cloze | None:
    """Return sentence `index` of a distance, in one of LANGUAGES; None if there is none of this distance.

    "The baker waited, but my sister grew up in Germany, sold thirteen red lamps in Rome and speaks ___": the country decides the language.
    The words between may name other countries. The person and the country occur together in this split only.
    """
    rng, words = Random(f"cloze {language} {split} {distance} {index}"), _LANGUAGE[language]
    country = rng.one(tuple(SPOKEN))
    who = rng.one([who for who in m.PERSONS if m.split_of_pair(m.PERSONS.index(who), m.PLACES.index(country)) == split])
    opening = draw_clause(_form(rng, brief=0.3), split, rng, (who,))
    while _hints_at(country, opening):
        opening = draw_clause(_form(rng, brief=0.3), split, rng, (who,))
    shared = (Clause(Form("grow up"), who, {"place": country}), Clause(Form("speak", present=True), who, {"language": SPOKEN[country]}))
    join, alone, own = rng.one(("and", "but")), _all_but(who), words.locale.languages[SPOKEN[country]]

    def sentence(*between: Clause) -> str:
        clauses = (opening, shared[0], *between, shared[1])
        return words.sentence(Meaning("", "", clauses, (join, *("then",) * len(between), "and then")))

    shortest = sentence().split()
    deciding = next(i for i, word in enumerate(shortest) if words.name(country) in word)
    gap = max(i for i, word in enumerate(shortest) if own in word)  # "German" is in "Germany"
    left = distance - (gap - deciding - 1)
    for _ in range(TRIES // 10 if left >= 0 else 0):  # each has DRAWS of its own
        between: list[Clause] = []

        def draw(between: list[Clause] = between) -> tuple[int, Any]:
            clause = draw_clause(_form(rng, brief=0.3), split, rng, alone)
            new = not _hints_at(country, clause) and clause.form.frame not in {each.form.frame for each in between}
            text = words.corrected("sentence", words.clause(clause, "then"))  # French: "de Italie", "d'Italie"
            return (len(text.split()), clause) if new else (0, None)

        if _reaching(left, draw, between, between=0):
            before, _, after = sentence(*between).rpartition(own)
            names = tuple(words.locale.languages[spoken] for spoken in SPOKEN.values())
            return Cloze(tuple(before + name + after for name in names), names, list(SPOKEN).index(country), distance)
    return None


def _hints_at(country: str, clause: Clause) -> bool:
    """Return whether a clause names the country, or money ("Japanese yen")."""
    return country in (*clause.values.get("route", ()), clause.values.get("place")) or "money" in clause.values


# ---- many


def draw(kind: Callable[..., Any], languages: Sequence[str], split: str, distances: Sequence[int], count: int) -> Iterator[Any]:
    """Yield up to `count` different sentences of `agreement` or `cloze` for each distance that the language has."""
    for distance in distances:
        seen: set[Any] = set()
        for index in range(3 * count):
            if len(seen) == count or (found := kind(*languages, split, distance, index)) is None:
                break
            if found not in seen:
                seen.add(found)
                yield found


def text(kind: str, languages: Sequence[str], split: str, count: int) -> Iterator[str]:
    """Return the first `count` lines of a split, of all distances up to FURTHEST in turn.

    A line is a sentence, or a source, a tab and its translation.

    Args:
        kind: contrast, for two languages, or cloze, for one.

    Raises:
        UserError: the kind is another, or there are not as many languages, or other ones.
    """
    take = {"contrast": 2, "cloze": 1}.get(kind)
    if take is None:
        raise UserError(f"{kind} is not a kind of text: give cloze and a language, or contrast and two")
    if len({*languages} & {*LANGUAGES}) != take or len(languages) != take:
        raise UserError(f"{kind} {' '.join(languages)}: give {('one', 'two')[take - 1]} of the languages {', '.join(LANGUAGES)}")
    return _lines(cloze if kind == "cloze" else agreement, languages, split, count)


def _lines(kind: Callable[..., Any], languages: Sequence[str], split: str, count: int) -> Iterator[str]:
    distances = [distance for distance in range(FURTHEST + 1) if kind(*languages, split, distance, 0)]
    for i in range(count):
        found = kind(*languages, split, distances[i % len(distances)], i // len(distances))
        yield f"{found.source}\t{found.right}" if isinstance(found, Pair) else found.sentences[found.right]
