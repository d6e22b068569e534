"""What a phrase says, before any language: clauses with values; and which split may say what.

Two rules decide what the test split keeps to itself, without a list and without memory: `home` for values and `is_held_out` for
templates.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

SPLITS = ("train", "validation", "test")

SINGULAR = ("sister", "brother", "doctor", "teacher", "neighbor", "baker", "farmer", "pilot", "queen", "actress", "engineer", "grandmother")
PLURAL = ("children", "parents", "friends", "students", "musicians", "women", "aunts")
PERSONS = SINGULAR + PLURAL
_THINGS = "book chair table lamp shirt hat bag bicycle umbrella glass box flower suitcase picture letter"
THINGS = tuple(_THINGS.split())
ADJECTIVES = ("", "red", "blue", "green", "white", "black", "yellow", "new", "big", "small")
CURRENCIES = ("EUR", "USD", "GBP", "JPY", "CHF", "TRY")
UNITS = ("minute", "hour", "day", "week", "month", "year")
# Places are CLDR's: territories by their code, cities by their time zone.
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
    """A kind of clause: who it is about, what it must say and what it may say besides.

    A plain sentence may say less: one of `brief` instead of all `needs`.
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
    # No clause: one number, amount or time by itself.
    "alone": Frame(
        "nobody",
        (),
        ("number", "ordinal", "things", "money", "duration", "kilometers", "time"),
        ("date", "dated year", "weekday", "day", "clock", "year"),
    ),
}
CLAUSES = tuple(name for name in FRAMES if name != "alone")
PERSONAL = tuple(name for name, frame in FRAMES.items() if frame.who == "person")
ACTIONS = ("buy", "sell", "find", "lose", "repair", "arrive")  # what can be told with "when"
EMBEDDED = tuple(name for name in CLAUSES if name != "clock")
JOINS = ("and", "but", "because", "while", "when")


class Shape(NamedTuple):
    """A clause without its values: with the joins, all that a template is."""

    frame: str
    future: bool = False
    fronted: bool = False  # the time comes first: "On Monday morning, my sister ..."
    extras: tuple[str, ...] = ()
    time: str = ""
    # Of plain sentences alone:
    present: bool = False
    omits: tuple[str, ...] = ()  # what the frame needs and this clause leaves out

    @property
    def piece(self) -> str:
        """The shape, spelled out, as `is_held_out` reads it."""
        return repr((self.frame, self.future, self.fronted, self.extras, self.time))


class Plan(NamedTuple):
    """A sentence without its values. `report` is "", or one of REPORTS: somebody says (knows, writes) that ..."""

    report: str
    shapes: tuple[Shape, ...]
    joins: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Clause:
    """A shape and its values; what a frame does not speak of stays empty. `who` is a key of PERSONS, VEHICLES or EVENTS."""

    shape: Shape
    who: str = ""
    things: tuple[int, str, str] = (0, "", "")  # number, thing, adjective
    money: tuple[int, str] = (0, "")
    duration: tuple[int, str] = (0, "")
    kilometers: int = 0
    people: int = 0
    place: str = ""
    route: tuple[str, str] = ("", "")
    means: str = ""
    time: tuple[int, ...] = ()  # date: day, month; dated year: and year; weekday: day, part; day: day; clock: hour, minute; year: year
    number: int = 0  # a cardinal or an ordinal that stands alone

    @property
    def plural(self) -> bool:
        """Whether the verb stands in the plural (in languages where the subject decides)."""
        return self.who in PLURAL

    @property
    def measure(self) -> tuple[int, str]:
        """The number and the unit or currency of an amount that stands alone."""
        return next((amount for amount in (self.money, self.duration) if amount[0]), (self.kilometers, "kilometer"))


class Meaning(NamedTuple):
    """A sentence: `reporter` says that (if report), clauses and what joins them."""

    report: str
    reporter: str
    clauses: tuple[Clause, ...]
    joins: tuple[str, ...]
    capital: bool = True
    stop: bool = True

    def written(self, text: str, initial: str) -> str:
        """Return the text with its capital and full stop, if it has them; `initial` is the capital of its first letter."""
        return (initial if self.capital else text[0]) + text[1:] + "." * self.stop


def home(first: int, second: int) -> str:
    """The one split in which two values may meet: a tenth of all pairs is test's, a tenth validation's."""
    return {0: "test", 5: "validation"}.get((first + 3 * second) % 10, "train")


def home_of_number(number: int) -> str:
    """The one split that may say a number above twenty: every seventh range of ten (60-69, 130-139, ...) is test's."""
    return {6: "test", 3: "validation"}.get(number // 10 % 7, "train")


def home_of_number_alone(number: int) -> str:
    """Return the one split that may have a number alone: training has all of one word, and of the others eight in ten, in every range."""
    if number <= 20 or len(str(number).rstrip("0")) == 1:
        return "train"
    return home(zlib.crc32(str(number).encode()), 0)


@cache
def is_held_out(piece: str) -> bool:
    """Whether a piece of template, spelled out, is test's alone: one in five, by CRC-32 (a stable hash)."""
    return zlib.crc32(piece.encode()) % 5 == 0


def held_out_pieces(plan: Plan) -> list[str]:
    """The pieces of a template that training never has: clause shapes with two options or more, joins of two frames, reports."""
    pieces = []
    for shape in plan.shapes:
        options = shape.future + shape.fronted + len(shape.extras)  # a plain clause is everybody's: its verb must be learnable
        if options >= 2 and is_held_out(shape.piece):
            pieces.append(shape.piece)
    frames = [shape.frame for shape in plan.shapes]
    links = map(" ".join, zip(frames, plan.joins, frames[1:], strict=False))
    pieces += [link for link in links if is_held_out(link)]
    # One report of the three for each frame, so that training has every verb's reported form (Turkish has one of its own).
    if plan.report and (REPORTS.index(plan.report) + list(FRAMES).index(frames[0])) % len(REPORTS) == 0:
        pieces.append(f"{plan.report} that {frames[0]}")
    return pieces
