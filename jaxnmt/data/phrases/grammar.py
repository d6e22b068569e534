"""Says a meaning in one language: word order, words and the corrections of a language come from words/CODE.toml.

Numbers are num2words's; months, days, places, units and currencies are CLDR's (Babel). Both are imported late: training on files needs
neither.

A template such as "{subject} {verb} {things} {time}" gives the order of a clause. Parts that the clause does not have are empty.
"""

from __future__ import annotations

import pathlib
import re
import tomllib
from functools import cached_property, lru_cache
from typing import Any

from jaxnmt.data.phrases.meaning import PLURAL, Clause, Meaning

_WORDS = pathlib.Path(__file__).parent / "words"


class Language:
    """A language.

    Attributes:
        code: of CLDR and num2words, and the name of the language's TOML file.
    """

    def __init__(self, code: str) -> None:
        self.code = code

    @cached_property
    def words(self) -> dict[str, Any]:
        """Return the content of the language's TOML file."""
        return tomllib.loads((_WORDS / f"{self.code}.toml").read_text(encoding="utf-8"))

    @cached_property
    def locale(self) -> Any:
        """Return CLDR's names."""
        from babel import Locale

        return Locale(self.code)

    def sentence(self, meaning: Meaning) -> str:
        """Return the whole sentence, with capital and full stop if it has them."""
        first, *others = meaning.clauses
        text = self.clause(first, "that" if meaning.report else "")
        if meaning.report:
            verb = self.words["reports"][meaning.report]
            verb = verb[(meaning.reporter in PLURAL) % len(verb)]
            text = self.words["joins"]["that"].format(who=self.words["who"][meaning.reporter], verb=verb, clause=text)
        for join, other in zip(meaning.joins, others, strict=True):
            text = self.words["joins"][join].format(before=text, clause=self.clause(other, join))
        text = self.corrected("sentence", text)
        text = re.sub(r"\S+\+\S+", lambda word: self.corrected("suffix", word[0]), text)
        if meaning.capital:
            text = self.words.get("capitals", {}).get(text[0], text[0].upper()) + text[1:]
        return text + "." * meaning.stop

    @lru_cache(maxsize=10_000)  # noqa: B019
    def corrected(self, what: str, text: str) -> str:
        """Return text after the language's corrections, patterns and what replaces them: of a sentence, a word with a suffix, a number."""
        for pattern, replacement in self.words.get("corrections", {}).get(what, {}).items():
            text = re.sub(pattern, replacement, text)
        return text

    def clause(self, c: Clause, join: str = "") -> str:
        """Return one clause, without capital or full stop; `join` is the conjunction before it."""
        order, frame = self.words["order"], c.form.frame
        role = "subordinate" if join in self.words.get("subordinate", ()) else "fronted" if c.form.fronted else "main"
        template = order.get(f"{frame} {role}") or order.get(frame) or order[role]
        return " ".join(template.format_map(self.parts(c, join)).split())

    def parts(self, c: Clause, join: str) -> dict[str, str]:
        """Return the text of each part of a clause, "" where the clause does not have it.

        The verb comes whole and in two: the finite word ("hat"), and the end ("gekauft").
        """
        frame, words, v = c.form.frame, self.words, c.values
        who, verb = words["who"].get(c.who, ""), self.verb(c, join)
        route = f"{self.place(v['route'][0], 'from')} {self.place(v['route'][1], 'to')}" if "route" in v else ""
        finite, _, end = verb.partition(" ")
        bare = frame in ("cost", "last", "alone")  # amounts without a preposition
        return {
            "subject": words["vehicle"].format(who=who, route=route) if frame == "leave" and route else who,
            "verb": verb,
            "finite": finite,
            "end": end,
            "things": self.things(*v["things"]) if "things" in v else "",
            "money": ("{}" if bare else words["money"]).format(self.amount(*v["money"])) if "money" in v else "",
            "duration": ("{}" if bare else words["duration"]).format(self.amount(*v["duration"])) if "duration" in v else "",
            "kilometers": self.amount(v["kilometers"], "kilometer") if "kilometers" in v else "",
            "people": self.count(v["people"], "people") if "people" in v else "",
            "place": self.place(v["place"], words["arrival"] if frame == "arrive" else "in") if "place" in v else "",
            "route": "" if frame == "leave" else route,
            "means": words["means"][v["means"]] if "means" in v else "",
            "time": self.time(c.form.time, v["time"], frame == "alone") if "time" in v else "",
            "clock": self.clock(*v["time"]) if frame == "clock" else "",
            "number": self.number(v["number"], "ordinal" if "ordinal" in c.form.extras else "cardinal") if "number" in v else "",
        }

    def verb(self, c: Clause, join: str) -> str:
        """Return the verb, "" of a frame without one; in some languages it has forms of its own after some conjunctions.

        Its forms are singular and plural, then both of the feminine where they differ.
        """
        tenses = self.words["verbs"].get(c.form.frame, {"present": [""]})
        tense = "future" if c.form.future else "past" if "past" in tenses and not c.form.present else "present"
        forms = tenses.get(f"{tense} {join}") or tenses[tense]
        return forms[((c.who in PLURAL) + 2 * (c.who in self.words.get("female", ()))) % len(forms)]

    @lru_cache(maxsize=100_000)  # noqa: B019
    def number(self, value: int, use: str = "cardinal") -> str:
        """Return a number in words.

        Args:
            use: cardinal, ordinal, masculine or feminine (before a noun), day (of a month) or year.
        """
        from num2words import num2words

        words = num2words(value, lang=self.code, to=self.words["numerals"].get(use, "cardinal"))
        return self.corrected(use, self.corrected("number", words.replace(",", "")))

    def count(self, value: int, noun: str) -> str:
        """Return a number before its noun."""
        return self.number(value, "feminine" if noun in self.words.get("feminine", ()) else "masculine")

    def amount(self, number: int, noun: str) -> str:
        """Return a number and the plural of a unit or currency."""
        return f"{self.count(number, noun)} {self.measure(noun)}"

    @lru_cache  # noqa: B019
    def measure(self, noun: str) -> str:
        """Return the plural of a currency (by its code), or of a unit: "kilometer" or one of `meaning.UNITS`."""
        from babel import numbers, units

        if noun.isupper():
            return numbers.get_currency_name(noun, count=12, locale=self.locale)
        key = "length-kilometer" if noun == "kilometer" else f"duration-{noun}"
        text = units.format_unit(12, key, "long", locale=self.locale)
        if key in text:  # CLDR omits the long form if it equals the short one
            text = units.format_unit(12, key, "short", locale=self.locale)
        return text.replace("12", "").strip()

    def things(self, number: int, thing: str, adjective: str) -> str:
        """Return a number of things with an adjective."""
        forms = self.words["adjectives"].get(adjective, ["{}"])
        form = forms[(thing in self.words.get("feminine", ())) % len(forms)]
        return f"{self.count(number, thing)} {form.format(self.words['things'][thing])}"

    def place(self, key: str, role: str) -> str:
        """Return a place with the preposition of its role: "in", "to" or "from"."""
        forms = self.words["place"].get(key) or self.words["place"]["city" if "/" in key else "country"]
        return forms[role].format(self.name(key))

    def name(self, key: str) -> str:
        """Return a country by its territory code, or a city by its time zone."""
        if "/" not in key:
            return self.locale.territories[key]
        # CLDR names a zone's city only where it differs from the zone's own name.
        return (self.locale.time_zones.get(key) or {}).get("city", key.split("/")[1])

    def time(self, kind: str, values: tuple[int, ...], alone: bool) -> str:
        """Return when something happens; a time that stands alone may lose its preposition or case."""
        kind = "weekday" if kind == "day" else kind
        template = alone and self.words.get("time_alone", {}).get(kind) or self.words["time"][kind]
        return template.format_map(self.time_words(kind, values)).strip()

    def time_words(self, kind: str, values: tuple[int, ...]) -> dict[str, str]:
        """Return the words of a time's template."""
        if kind == "clock":
            return {"clock": self.clock(*values, at=True)}
        if kind == "weekday":
            part = "".join(self.words["parts_of_day"][part] for part in values[1:])
            names = self.words.get("weekdays") or self.locale.days["format"]["wide"]
            return {"weekday": names[values[0]], "part": part}
        if kind == "year":
            return {"year": self.number(values[0], "year")}
        day, month, *years = values
        year = "".join(self.number(value, "year") for value in years)
        return {"day": self.number(day, "day"), "month": self.locale.months["format"]["wide"][month], "year": year}

    def clock(self, hour: int, minute: int, *, at: bool = False) -> str:
        """Return the time of day, by the template of this time, of this minute, or of minutes before or after the hour.

        A template may have the hour that is named, the next one, and other forms of the hour.

        Args:
            at: when something happens, in languages where this is more than a preposition.
        """
        past, following = minute <= 30, hour % 12 + 1
        clock = self.words.get("clock_at", self.words["clock"]) if at else self.words["clock"]
        template = clock.get(f"{hour}:{minute:02}") or clock.get(f"{minute:02}") or clock["past" if past else "to"]
        named = hour if past else following
        forms = {"hour": self.number(named)} | {case: hours[named - 1] for case, hours in self.words.get("hours", {}).items()}
        return template.format(**forms, next=self.number(following), minutes=self.number(minute if past else 60 - minute))
