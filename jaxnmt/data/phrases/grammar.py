"""Says a meaning in one language: word order and words come from words/CODE.toml, agreement from one small class a language.

A template such as "{subject} {verb} {things} {time}" gives the order of a clause. Parts that the clause does not have are empty.
"""

from __future__ import annotations

import pathlib
import tomllib
from functools import cached_property
from typing import Any

from jaxnmt.data.phrases import cldr
from jaxnmt.data.phrases.meaning import PLURAL, Clause, Meaning

_WORDS = pathlib.Path(__file__).parent / "words"


class Language:
    """A language. A subclass overrides what differs from the simplest grammar: numerals, the clock, verbs, what changes next to a vowel.

    Attributes:
        code: of CLDR and num2words, and the name of the language's TOML file.
    """

    code: str

    @cached_property
    def words(self) -> dict[str, Any]:
        """Return the content of the language's TOML file."""
        return tomllib.loads((_WORDS / f"{self.code}.toml").read_text(encoding="utf-8"))

    def sentence(self, meaning: Meaning) -> str:
        """Return the whole sentence, with capital and full stop if it has them."""
        first, *others = meaning.clauses
        text = self.clause(first, "that" if meaning.report else "")
        if meaning.report:
            verb = self.words["reports"][meaning.report]
            text = self.reported(self.words["who"][meaning.reporter], verb[(meaning.reporter in PLURAL) % len(verb)], text)
        for join, other in zip(meaning.joins, others, strict=True):
            text = self.joined(text, join, self.clause(other, join))
        return meaning.written(text, self.capital(text[0]))

    def reported(self, who: str, verb: str, clause: str) -> str:
        """Return "who says that clause"."""
        return self.joined(f"{who} {verb}", "that", clause)

    def joined(self, before: str, join: str, clause: str) -> str:
        """Return two clauses, joined."""
        return before + self.words["joins"][join] + clause

    def capital(self, letter: str) -> str:
        """Return a letter's capital."""
        return letter.upper()

    def clause(self, c: Clause, join: str = "") -> str:
        """Return one clause, without capital or full stop; `join` is the conjunction before it."""
        order, frame = self.words["order"], c.form.frame
        role = "subordinate" if join in self.words.get("subordinate", ()) else "fronted" if c.form.fronted else "main"
        template = order.get(f"{frame} {role}") or order.get(frame) or order[role]
        return " ".join(template.format_map(self.parts(c, join)).split())

    def parts(self, c: Clause, join: str) -> dict[str, str]:
        """Return the text of each part of a clause, "" where the clause does not have it."""
        frame, words = c.form.frame, self.words
        who, route = words["who"].get(c.who, ""), f"{self.place(c.route[0], 'from')} {self.place(c.route[1], 'to')}" if c.route[0] else ""
        bare = frame in ("cost", "last", "alone")  # amounts without a preposition
        return {
            "subject": self.with_route(who, route) if frame == "leave" and route else who,
            "verb": self.verb(c, join),
            "things": self.things(*c.things) if c.things[0] else "",
            "money": ("{}" if bare else words["money"]).format(self.amount(*c.money)) if c.money[0] else "",
            "duration": ("{}" if bare else words["duration"]).format(self.amount(*c.duration)) if c.duration[0] else "",
            "kilometers": self.amount(c.kilometers, "kilometer") if c.kilometers else "",
            "people": self.count(c.people, True) if c.people else "",
            "place": self.place(c.place, words["arrival"] if frame == "arrive" else "in") if c.place else "",
            "route": "" if frame == "leave" else route,
            "means": words["means"].get(c.means, ""),
            "time": self.time(c.form.time, c.time, frame == "alone") if c.time else "",
            "clock": self.clock(*c.time) if frame == "clock" else "",
            "number": (self.ordinal if "ordinal" in c.form.extras else self.cardinal)(c.number) if c.number is not None else "",
        }

    def with_route(self, who: str, route: str) -> str:
        """Return a vehicle with its route."""
        return f"{who} {route}"

    def verb(self, c: Clause, join: str) -> str:
        """Return the verb, "" of a frame without one. Its forms are singular and plural, then both of the feminine where they differ."""
        tenses = self.words["verbs"].get(c.form.frame, {"present": [""]})
        tense = "future" if c.form.future else "past" if "past" in tenses and not c.form.present else "present"
        return tenses[tense][(c.plural + 2 * (c.who in self.words.get("female", ()))) % len(tenses[tense])]

    def cardinal(self, value: int) -> str:
        """Return a number that stands alone."""
        return cldr.number(self.code, value)

    def ordinal(self, value: int) -> str:
        """Return "third" of 3."""
        return cldr.number(self.code, value, "ordinal")

    def count(self, value: int, feminine: bool) -> str:
        """Return a number before its noun."""
        return self.cardinal(value)

    def amount(self, number: int, noun: str) -> str:
        """Return a number and the plural of a unit or currency."""
        return f"{self.count(number, noun in self.words.get('feminine', ()))} {self.measure(noun)}"

    def measure(self, noun: str) -> str:
        """Return the plural of a currency (by its code) or a unit."""
        return cldr.currency(self.code, noun) if noun.isupper() else cldr.unit(self.code, noun)

    def things(self, number: int, thing: str, adjective: str) -> str:
        """Return a number of things with an adjective."""
        feminine = thing in self.words.get("feminine", ())
        forms = self.words["adjectives"].get(adjective, ["{}"])
        return f"{self.count(number, feminine)} {forms[feminine % len(forms)].format(self.words['things'][thing])}"

    def place(self, key: str, role: str) -> str:
        """Return a place with the preposition of its role: "in", "to" or "from"."""
        forms = self.words["place"].get(key) or self.words["place"]["city" if "/" in key else "country"]
        return forms[role].format(cldr.place(self.code, key))

    def time(self, kind: str, values: tuple[int, ...], alone: bool) -> str:
        """Return when something happens; a time that stands alone may lose its preposition or case."""
        kind = "weekday" if kind == "day" else kind
        template = alone and self.words.get("time_alone", {}).get(kind) or self.words["time"][kind]
        return template.format_map(self.time_words(kind, values)).strip()

    def time_words(self, kind: str, values: tuple[int, ...]) -> dict[str, str]:
        """Return the words of a time's template."""
        if kind == "clock":
            return {"clock": self.clock(*values)}
        if kind == "weekday":
            return {"weekday": cldr.weekday(self.code, values[0]), "part": "".join(self.words["parts_of_day"][part] for part in values[1:])}
        if kind == "year":
            return {"year": self.year(values[0])}
        return {"day": self.day(values[0]), "month": cldr.month(self.code, values[1]), "year": "".join(map(self.year, values[2:]))}

    def day(self, value: int) -> str:
        """Return the day of a date."""
        return self.cardinal(value)

    def year(self, value: int) -> str:
        """Return a year."""
        return self.cardinal(value)

    def clock(self, hour: int, minute: int) -> str:
        """Return the time of day."""
        raise NotImplementedError
