"""What a phrase means, independent of language: clauses with values; and which split may use which values and templates.

Two rules decide what only the test split has, without a list: `split_of_pair` for values and `is_held_out` for templates.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

SPLITS = ("train", "validation", "test")

SINGULAR = ("sister", "brother", "doctor", "teacher", "neighbor", "baker", "farmer", "pilot", "queen", "actress", "engineer", "grandmother")
PLURAL = ("children", "parents", "friends", "students", "musicians", "women", "aunts")
PERSONS = SINGULAR + PLURAL
THINGS = tuple("book chair table lamp shirt hat bag bicycle umbrella glass box flower suitcase picture letter".split())
ADJECTIVES = ("", "red", "blue", "green", "white", "black", "yellow", "new", "big", "small")
CURRENCIES = ("EUR", "USD", "GBP", "JPY", "CHF", "TRY")
UNITS = ("minute", "hour", "day", "week", "month", "year")
# Places are named as in CLDR: territories by code, cities by time zone.
COUNTRIES = ("FR", "DE", "IT", "ES", "JP", "BR", "CA", "PT", "GR", "PL", "IN", "EG", "MA", "MX", "TR", "CH")
_EUROPE = "London Paris Rome Vienna Lisbon Berlin Istanbul Athens Warsaw Brussels Moscow Prague Bucharest"
CITIES = ("Asia/Tokyo", *(f"Europe/{city}" for city in _EUROPE.split()))
PLACES = COUNTRIES + CITIES
MEANS = ("train", "bus", "car", "ship", "plane")
VEHICLES = ("train", "bus", "ship")
EVENTS = ("concert", "meeting", "film", "course", "exam", "party")
REPORTS = ("say", "know", "write")
MINUTES = (0, 5, 10, 15, 20, 30, 40, 45, 50, 55)

ANY_TIME = ("date", "dated year", "weekday", "clock", "year")


class Frame(NamedTuple):
    """A kind of clause.

    Attributes:
        who: the kind of its subject.
        needs: the parts that it always has.
        may: optional parts.
        times: kinds of time that fit it.
        brief: a plain sentence may have one of these instead of all `needs`.
    """

    who: str
    needs: tuple[str, ...]
    may: tuple[str, ...] = ()
    times: tuple[str, ...] = ()
    brief: tuple[tuple[str, ...], ...] = ()


FRAMES = {
    "buy": Frame("person", ("things",), ("money", "place", "time"), ANY_TIME),
    "sell": Frame("person", ("things",), ("money", "place", "time"), ANY_TIME),
    "find": Frame("person", ("things",), ("place", "time"), ANY_TIME),
    "lose": Frame("person", ("things",), ("place", "time"), ANY_TIME),
    "repair": Frame("person", ("things",), ("place", "time"), ANY_TIME),
    "arrive": Frame("person", ("place",), ("time",), ANY_TIME),
    "stay": Frame("person", ("duration", "place"), ("time",), ("date", "weekday", "year"), (("duration",), ("place",))),
    "work": Frame("person", ("duration",), ("place", "time"), ("date", "weekday", "year"), ((), ("place",), ("duration",))),
    "wait": Frame("person", ("duration",), ("place", "time"), ("date", "weekday", "year"), ((), ("place",), ("duration",))),
    "live": Frame("person", ("duration", "place"), brief=(("place",),)),
    "travel": Frame("person", ("route", "means"), ("time",), ANY_TIME, (("route",), ("means",))),
    "be born": Frame("person", ("place", "time"), (), ("year", "dated year"), (("place",), ("time",))),
    "leave": Frame("vehicle", ("route", "time"), (), ("date", "weekday", "clock"), (("route",), ("time",))),
    "begin": Frame("event", ("time",), (), ("date", "weekday", "clock")),
    "last": Frame("event", ("duration",)),
    "cost": Frame("nobody", ("things", "money")),
    "distance": Frame("nobody", ("route", "kilometers")),
    "population": Frame("nobody", ("people", "place")),
    "clock": Frame("nobody", ("time",), (), ("clock",)),
    # Not a clause: one number, amount or time.
    "alone": Frame(
        "nobody",
        (),
        ("number", "ordinal", "things", "money", "duration", "kilometers", "time"),
        ("date", "dated year", "weekday", "day", "clock", "year"),
    ),
}
CLAUSES = tuple(name for name in FRAMES if name != "alone")
PERSONAL = tuple(name for name, frame in FRAMES.items() if frame.who == "person")
ACTIONS = ("buy", "sell", "find", "lose", "repair", "arrive")  # clauses that may follow "when"
EMBEDDED = tuple(name for name in CLAUSES if name != "clock")
JOINS = ("and", "but", "because", "while", "when")


class Form(NamedTuple):
    """A clause without its values.

    Attributes:
        fronted: the time comes first: "On Monday morning, my sister ...".
        extras: the optional parts of its frame that it has.
        time: kind of time, "" without one.
        present: in the present tense; plain sentences only.
        omits: parts that its frame needs and this clause lacks; plain sentences only.
    """

    frame: str
    future: bool = False
    fronted: bool = False
    extras: tuple[str, ...] = ()
    time: str = ""
    present: bool = False
    omits: tuple[str, ...] = ()


class Clause(NamedTuple):
    """A form, its subject and its values.

    Attributes:
        who: a key of PERSONS, VEHICLES or EVENTS, or "".
        values: of each part that the clause has. things: number, thing, adjective; money, duration: number and noun; kilometers, people:
            number; place, means: a key; route: two places; number: a cardinal or an ordinal that stands alone; time, by the form's kind
            of time: date: day, month; dated year: day, month, year; weekday: day, part; day: day; clock: hour, minute; year: year.
    """

    form: Form
    who: str
    values: dict[str, Any]


class Meaning(NamedTuple):
    """A sentence: what `reporter` reports, if `report` is set; clauses; the conjunctions between them; how it is written."""

    report: str
    reporter: str
    clauses: tuple[Clause, ...]
    joins: tuple[str, ...]
    capital: bool = True
    stop: bool = True


def split_of_pair(first: int, second: int) -> str:
    """Return the only split in which two values occur together: a tenth of all pairs is for the test, a tenth for validation."""
    return {0: "test", 5: "validation"}.get((first + 3 * second) % 10, "train")


def split_of_number(number: int) -> str:
    """Return the only split that has a number above twenty: every seventh range of ten (60-69, 130-139, ...) is for the test."""
    return {6: "test", 3: "validation"}.get(number // 10 % 7, "train")


def split_of_lone_number(number: int) -> str:
    """Return the only split that has a number alone.

    Numbers of one word are for training. Of the others, eight in ten are, in every range.
    """
    if number <= 20 or len(str(number).rstrip("0")) == 1:
        return "train"
    return split_of_pair(zlib.crc32(str(number).encode()), 0)


@cache
def _one_in_five(piece: str) -> bool:
    """Return whether a piece of a template, as text, is for the test only: one in five, by CRC-32 (a stable hash)."""
    return zlib.crc32(piece.encode()) % 5 == 0


def is_held_out(report: str, forms: Sequence[Form], joins: Sequence[str]) -> bool:
    """Return whether training never has a piece of a template: a form with two options or more, a join of two frames, a report."""
    frames = [form.frame for form in forms]
    # One of the three reports for each frame, so that training has the reported form of every verb (Turkish has one of its own).
    if report and (REPORTS.index(report) + list(FRAMES).index(frames[0])) % len(REPORTS) == 0:
        return True
    # A form with fewer options is in every split, so that its verb can be learned.
    pieces = [repr(form[:5]) for form in forms if form.future + form.fronted + len(form.extras) >= 2]
    pieces += map(" ".join, zip(frames, joins, frames[1:], strict=False))
    return any(map(_one_in_five, pieces))
