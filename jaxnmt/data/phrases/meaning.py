"""What a phrase says, before any language: clauses with values, drawn at random, and which split may say what.

Every draw is a pure function of (split, index, seed). What the test split keeps to itself is decided here, by two rules that
need no list and no memory: `home` for values and `is_held_out` for templates.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, TypeVar

Item = TypeVar("Item")
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
    """A kind of clause: who it is about, what it must say and what it may say besides."""

    who: str
    needs: tuple[str, ...]
    may: tuple[str, ...] = ()
    times: tuple[str, ...] = ()


FRAMES = {
    "buy": Frame("person", ("things",), ("money", "place", "time"), ANY_TIME),
    "sell": Frame("person", ("things",), ("money", "place", "time"), ANY_TIME),
    "find": Frame("person", ("things",), ("place", "time"), ANY_TIME),
    "lose": Frame("person", ("things",), ("place", "time"), ANY_TIME),
    "repair": Frame("person", ("things",), ("place", "time"), ANY_TIME),
    "arrive": Frame("person", ("place",), ("time",), ANY_TIME),
    "stay": Frame("person", ("duration", "place"), ("time",), ("date", "weekday", "year")),
    "work": Frame("person", ("duration",), ("place", "time"), ("date", "weekday", "year")),
    "wait": Frame("person", ("duration",), ("place", "time"), ("date", "weekday", "year")),
    "live": Frame("person", ("duration", "place")),
    "travel": Frame("person", ("route", "means"), ("time",), ANY_TIME),
    "be born": Frame("person", ("place", "time"), (), ("year", "dated year")),
    "leave": Frame("vehicle", ("route", "time"), (), ("date", "weekday", "clock")),
    "begin": Frame("event", ("time",), (), ("date", "weekday", "clock")),
    "last": Frame("event", ("duration",)),
    "cost": Frame("nobody", ("things", "money")),
    "distance": Frame("nobody", ("route", "kilometers")),
    "population": Frame("nobody", ("people", "place")),
    "clock": Frame("nobody", ("time",), (), ("clock",)),
}
PERSONAL = tuple(name for name, frame in FRAMES.items() if frame.who == "person")
ACTIONS = ("buy", "sell", "find", "lose", "repair", "arrive")  # what can be told with "when"
EMBEDDED = tuple(name for name in FRAMES if name != "clock")
JOINS = ("and", "but", "because", "while", "when")


class Shape(NamedTuple):
    """A clause without its values: with the joins, all that a template is."""

    frame: str
    future: bool = False
    fronted: bool = False  # the time comes first: "On Monday morning, my sister ..."
    extras: tuple[str, ...] = ()
    time: str = ""


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
    time: tuple[int, ...] = ()  # date: day, month; dated year: and year; weekday: day, part; clock: hour, minute; year: year

    @property
    def plural(self) -> bool:
        """Whether the verb stands in the plural (in languages where the subject decides)."""
        return self.who in PLURAL


class Meaning(NamedTuple):
    """A sentence: `reporter` says that (if report), clauses and what joins them."""

    report: str
    reporter: str
    clauses: tuple[Clause, ...]
    joins: tuple[str, ...]


def home(first: int, second: int) -> str:
    """The one split in which two values may meet: a tenth of all pairs is test's, a tenth validation's."""
    return {0: "test", 5: "validation"}.get((first + 3 * second) % 10, "train")


def home_of_number(number: int) -> str:
    """The one split that may say a number above twenty: every seventh range of ten (60-69, 130-139, ...) is test's."""
    return {6: "test", 3: "validation"}.get(number // 10 % 7, "train")


@cache
def is_held_out(piece: str) -> bool:
    """Whether a piece of template, spelled out, is test's alone: one in five, by CRC-32 (a stable hash)."""
    return zlib.crc32(piece.encode()) % 5 == 0


def held_out_pieces(plan: Plan) -> list[str]:
    """The pieces of a template that training never has: clause shapes with two options or more, joins of two frames, reports."""
    pieces = []
    for shape in plan.shapes:
        options = shape.future + shape.fronted + len(shape.extras)  # a plain clause is everybody's: its verb must be learnable
        if options >= 2 and is_held_out(repr(tuple(shape))):
            pieces.append(repr(tuple(shape)))
    frames = [shape.frame for shape in plan.shapes]
    links = map(" ".join, zip(frames, plan.joins, frames[1:], strict=False))
    pieces += [link for link in links if is_held_out(link)]
    # One report of the three for each frame, so that training has every verb's reported form (Turkish has one of its own).
    if plan.report and (REPORTS.index(plan.report) + list(FRAMES).index(frames[0])) % len(REPORTS) == 0:
        pieces.append(f"{plan.report} that {frames[0]}")
    return pieces


class _Dice:
    """Random choices that stay the same in every Python: only `random()` is used, whose sequence is promised."""

    def __init__(self, seed: str) -> None:
        self.random = random.Random(seed).random

    def one(self, items: Sequence[Item]) -> Item:
        return items[int(self.random() * len(items))]

    def chance(self, probability: float) -> bool:
        return self.random() < probability


def draw(split: str, index: int, seed: int) -> Meaning:
    """The sentence at a place of a split, the same in all languages. Test has at least one held-out piece in every template."""
    dice = _Dice(f"phrases {seed} {split} {index}")
    # Report and size come first, so that the test's sentences are not longer for having more pieces to hold out.
    report = dice.one(REPORTS) if dice.chance(0.2) else ""
    size = dice.one((1, 1, 1, 1, 2) if report else (1, 1, 1, 1, 2, 2, 2, 3))
    plan = _plan(dice, report, size)
    while bool(held_out_pieces(plan)) != (split == "test"):
        plan = _plan(dice, report, size)
    clauses: list[Clause] = []
    told: tuple[str, ...] = (dice.one(PERSONS),) if plan.report else ()
    for shape in plan.shapes:
        clause = _fill(shape, split, dice, told)
        clauses.append(clause)
        told += (clause.who,)
    return Meaning(plan.report, told[0] if plan.report else "", tuple(clauses), plan.joins)


def _plan(dice: _Dice, report: str, size: int) -> Plan:
    """Draw a template of one to three clauses, the first perhaps reported."""
    joins: list[str] = []
    while len(joins) < size - 1:  # no join twice, and "when" only right after a main clause
        joins.append(dice.one([join for join in JOINS if join not in joins and (join != "when" or not (report or joins))]))
    frames = tuple(FRAMES)
    told_when = "when" in joins
    first = _shape(dice, PERSONAL if told_when else EMBEDDED if report else frames, size, embedded=bool(report), past=told_when)
    shapes = [first]
    for join in joins:
        embedded = join in ("because", "while", "when")
        choice = ACTIONS if join == "when" else EMBEDDED if embedded else frames
        shapes.append(_shape(dice, choice, size, embedded, past=join == "when"))
    return Plan(report, tuple(shapes), tuple(joins))


def _shape(dice: _Dice, frames: tuple[str, ...], size: int, embedded: bool, past: bool) -> Shape:
    """Draw one clause's shape; the more clauses, the fewer options in each."""
    name = dice.one(frames)
    frame = FRAMES[name]
    extras = tuple(part for part in frame.may if dice.chance((0.5, 0.35, 0.2)[size - 1]))
    timed = "time" in frame.needs or "time" in extras
    time = dice.one(frame.times) if timed else ""
    # Years lie in the past, and so does "when".
    future = frame.who == "person" and "year" not in time and not past and dice.chance(0.4)
    fronted = timed and not embedded and name != "clock" and dice.chance(0.35)
    return Shape(name, future, fronted, extras, time)


def _fill(shape: Shape, split: str, dice: _Dice, told: tuple[str, ...]) -> Clause:
    """Give a shape values that live in the split; nobody in `told` is told of again."""
    frame = FRAMES[shape.frame]
    people = {"person": PERSONS, "vehicle": VEHICLES, "event": EVENTS, "nobody": ("",)}[frame.who]
    who = dice.one(people)
    while who and who in told:
        who = dice.one(people)
    values: dict = {"who": who}
    for part in frame.needs + shape.extras:
        if part == "things":
            number, thing = _amount(split, dice, THINGS, (0.6, 0.3, 0.1, 0.0))
            values[part] = number, thing, dice.one(_partners(split, THINGS.index(thing), ADJECTIVES))
        elif part == "money":
            values[part] = _amount(split, dice, CURRENCIES, (0.2, 0.4, 0.35, 0.05))
        elif part == "duration":
            values[part] = _amount(split, dice, UNITS, (0.8, 0.2, 0.0, 0.0))
        elif part == "kilometers":
            values[part] = dice.one(_numbers(split, dice.one((1, 2, 2, 3))))
        elif part == "people":
            values[part] = dice.one(_numbers(split, dice.one((2, 3, 4))))
        elif part == "place":
            person = PERSONS.index(who) if who else 0
            values[part] = dice.one(_partners(split, person, PLACES)) if who else dice.one(PLACES)
        elif part == "route":
            start = dice.one(PLACES)
            others = [place for place in _partners(split, PLACES.index(start), PLACES) if place != start]
            values[part] = start, dice.one(others)
        elif part == "means":
            values[part] = dice.one(MEANS)
        elif part == "time":
            values[part] = _time(shape.time, split, dice)
    return Clause(shape, **values)


@cache
def _partners(split: str, first: int, items: tuple[str, ...]) -> tuple[str, ...]:
    """The items that may meet the value `first` in a split."""
    return tuple(item for second, item in enumerate(items) if home(first, second) == split)


@cache
def _numbers(split: str, size: int) -> tuple[int, ...]:
    """The split's numbers of a size: 21-99, 100-999, 1000-9999, whole thousands. None ends in 01: no noun follows it well."""
    band = {1: range(21, 100), 2: range(100, 1000), 3: range(1000, 10_000), 4: range(2000, 1_000_000, 1000)}[size]
    return tuple(n for n in band if home_of_number(n) == split and n % 100 != 1)


@cache
def _small_amounts(split: str, items: tuple[str, ...]) -> tuple[tuple[int, str], ...]:
    """The split's pairs of a number from two to twenty and a noun."""
    return tuple((n, item) for n in range(2, 21) for place, item in enumerate(items) if home(n, place) == split)


def _amount(split: str, dice: _Dice, items: tuple[str, ...], sizes: tuple[float, ...]) -> tuple[int, str]:
    """A number and a noun; `sizes` are the chances of 2-20, 21-99, 100-999, 1000-9999."""
    roll, size = dice.random(), 0
    while size < 3 and roll >= sizes[size]:
        roll, size = roll - sizes[size], size + 1
    return dice.one(_small_amounts(split, items)) if size == 0 else (dice.one(_numbers(split, size)), dice.one(items))


@cache
def _times(kind: str, split: str) -> tuple[tuple[int, ...], ...]:
    """The split's values of a kind of time: pairs by `home`, years by their range of ten."""
    pairs = {
        "date": [(day, month) for day in range(1, 29) for month in range(1, 13)],
        "weekday": [(day, part) for day in range(7) for part in range(3)],
        "clock": [(hour, place) for hour in range(1, 13) for place in range(len(MINUTES))],
    }
    if kind == "year":
        return tuple((year,) for year in range(1850, 2020) if home_of_number(year) == split)
    fitting = [pair for pair in pairs[kind] if home(*pair) == split]
    return tuple((hour, MINUTES[place]) for hour, place in fitting) if kind == "clock" else tuple(fitting)


def _time(kind: str, split: str, dice: _Dice) -> tuple[int, ...]:
    if kind == "dated year":
        return dice.one(_times("date", split)) + dice.one(_times("year", split))
    return dice.one(_times(kind, split))
