"""Phrases drawn at random: each a pure function of (split, index, seed)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from typing import TypeVar

from jaxnmt.data.phrases import meaning as m
from jaxnmt.data.phrases.meaning import FRAMES, Clause, Meaning, Plan, Shape, held_out_pieces, home, home_of_number, home_of_number_alone

Item = TypeVar("Item")
PLAIN = 0.4  # the share of plain sentences in training and validation
ALONE = 0.4  # the share of these that are a number, an amount or a time alone


class _Dice:
    """Random choices that stay the same in every Python: only `random()` is used, whose sequence is promised."""

    def __init__(self, seed: str) -> None:
        self.random = random.Random(seed).random

    def one(self, items: Sequence[Item]) -> Item:
        return items[int(self.random() * len(items))]

    def chance(self, probability: float) -> bool:
        return self.random() < probability


def draw(split: str, index: int, seed: int) -> Meaning:
    """Return the sentence at a place of a split, the same in all languages.

    Every test sentence has at least one held-out piece in its template. A plain sentence has too small a template for that, so
    only training and validation have them.
    """
    dice = _Dice(f"phrases {seed} {split} {index}")
    if split != "test" and dice.chance(PLAIN):
        return _alone(dice, split) if dice.chance(ALONE) else _plain(dice, split)
    # Report and size come first, so that the test's sentences are not longer for having more pieces to hold out.
    report = dice.one(m.REPORTS) if dice.chance(0.2) else ""
    size = dice.one((1, 1, 1, 1, 2) if report else (1, 1, 1, 1, 2, 2, 2, 3))
    plan = _plan(dice, report, size)
    while bool(held_out_pieces(plan)) != (split == "test"):
        plan = _plan(dice, report, size)
    clauses: list[Clause] = []
    mentioned: tuple[str, ...] = (dice.one(m.PERSONS),) if plan.report else ()
    for shape in plan.shapes:
        clause = _fill(shape, split, dice, mentioned)
        clauses.append(clause)
        mentioned += (clause.who,)
    return Meaning(plan.report, mentioned[0] if plan.report else "", tuple(clauses), plan.joins)


def _plain(dice: _Dice, split: str) -> Meaning:
    """Draw one short clause: what it must say, and at most one addition. Clauses without a value of one split are training's."""
    shape = _plain_shape(dice)
    while held_out_pieces(Plan("", (shape,), ())) or (split != "train" and not _has_value_of_a_split(shape)):
        shape = _plain_shape(dice)
    capital, stop = (True, True) if dice.chance(0.7) else dice.one(((True, False), (False, False)))
    return Meaning("", "", (_fill(shape, split, dice, ()),), (), capital, stop)


def _has_value_of_a_split(shape: Shape) -> bool:
    """Return whether a clause of this shape has a value that belongs to one split."""
    frame = FRAMES[shape.frame]
    shared = {"means"} | ({"time"} if shape.time == "day" else set()) | ({"place"} if frame.who != "person" else set())
    return not {*frame.needs, *shape.extras} - {*shape.omits} <= shared


def _plain_shape(dice: _Dice) -> Shape:
    name = dice.one(m.PERSONAL if dice.chance(0.5) else m.CLAUSES)
    frame = FRAMES[name]
    parts = dice.one(frame.brief or (frame.needs,))
    more = [part for part in frame.needs + frame.may if part not in parts]
    if more and dice.chance(0.5):
        parts += (dice.one(more),)
    time = dice.one(frame.times) if "time" in parts else ""
    tense = "past"
    if frame.who == "person" and name != "be born" and "year" not in time:
        tense = dice.one(("past", "present", "present", "future"))
    return Shape(
        name,
        future=tense == "future",
        fronted=bool(time) and name != "clock" and dice.chance(0.25),
        extras=tuple(part for part in frame.may if part in parts),
        time=time,
        present=tense == "present",
        omits=tuple(part for part in frame.needs if part not in parts),
    )


def _alone(dice: _Dice, split: str) -> Meaning:
    """Draw a number, an amount or a time that stands alone."""
    frame = FRAMES["alone"]
    part = dice.one(("number",) * 4 + ("time",) + frame.may)
    time = dice.one(frame.times) if part == "time" else ""
    if split != "train":  # too few ordinals and days for three splits: they are training's
        part, time = {"ordinal": "number"}.get(part, part), {"day": "weekday"}.get(time, time)
    clause = _fill(Shape("alone", extras=(part,), time=time), split, dice, ())
    styles = [(True, True), (False, False), (False, False)]
    # "Monday" has a capital in some languages wherever it stands, so that only the full stop tells others to write one.
    styles += [] if time in ("weekday", "day") else [(True, False)]
    return Meaning("", "", (clause,), (), *dice.one(styles))


def _plan(dice: _Dice, report: str, size: int) -> Plan:
    """Draw a template of one to three clauses, the first perhaps reported."""
    joins: list[str] = []
    while len(joins) < size - 1:  # no join twice, and "when" only right after a main clause
        joins.append(dice.one([join for join in m.JOINS if join not in joins and (join != "when" or not (report or joins))]))
    frames = m.CLAUSES
    told_when = "when" in joins
    first = _shape(dice, m.PERSONAL if told_when else m.EMBEDDED if report else frames, size, embedded=bool(report), past=told_when)
    shapes = [first]
    for join in joins:
        embedded = join in ("because", "while", "when")
        choice = m.ACTIONS if join == "when" else m.EMBEDDED if embedded else frames
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


def _fill(shape: Shape, split: str, dice: _Dice, mentioned: tuple[str, ...]) -> Clause:
    """Give a shape values that belong to the split; its person is not one of `mentioned`."""
    frame = FRAMES[shape.frame]
    people = {"person": m.PERSONS, "vehicle": m.VEHICLES, "event": m.EVENTS, "nobody": ("",)}[frame.who]
    who = dice.one(people)
    while who and who in mentioned:
        who = dice.one(people)
    values: dict = {"who": who}
    for part in [*(part for part in frame.needs if part not in shape.omits), *shape.extras]:
        if part == "things":
            number, thing = _amount(split, dice, m.THINGS, (0.6, 0.3, 0.1, 0.0))
            values[part] = number, thing, dice.one(_partners(split, m.THINGS.index(thing), m.ADJECTIVES))
        elif part == "money":
            values[part] = _amount(split, dice, m.CURRENCIES, (0.2, 0.4, 0.35, 0.05))
        elif part == "duration":
            values[part] = _amount(split, dice, m.UNITS, (0.8, 0.2, 0.0, 0.0))
        elif part == "kilometers":
            values[part] = dice.one(_numbers(split, dice.one((1, 2, 2, 3))))
        elif part == "people":
            values[part] = dice.one(_numbers(split, dice.one((2, 3, 4))))
        elif part == "place":
            person = m.PERSONS.index(who) if who else 0
            values[part] = dice.one(_partners(split, person, m.PLACES)) if who else dice.one(m.PLACES)
        elif part == "route":
            start = dice.one(m.PLACES)
            others = [place for place in _partners(split, m.PLACES.index(start), m.PLACES) if place != start]
            values[part] = start, dice.one(others)
        elif part == "means":
            values[part] = dice.one(m.MEANS)
        elif part == "time":
            values[part] = _time(shape.time, split, dice)
        elif part == "number":
            sizes = (1, 1, 2, 2, 2, 3, 3, 4) + (0, 0) * (split == "train")
            values["number"] = dice.one(_numbers_alone(split, dice.one(sizes)))
        elif part == "ordinal":
            values["number"] = dice.one(range(1, 29))
    return Clause(shape, **values)


@cache
def _partners(split: str, first: int, items: tuple[str, ...]) -> tuple[str, ...]:
    """The items that may meet the value `first` in a split."""
    return tuple(item for second, item in enumerate(items) if home(first, second) == split)


BANDS = (range(21), range(21, 100), range(100, 1000), range(1000, 10_000), range(2000, 1_000_000, 1000))


@cache
def _numbers(split: str, size: int) -> tuple[int, ...]:
    """Return the split's numbers of a size above 20, from BANDS. None ends in 01: no noun follows it well."""
    return tuple(n for n in BANDS[size] if home_of_number(n) == split and n % 100 != 1)


@cache
def _numbers_alone(split: str, size: int) -> tuple[int, ...]:
    return tuple(n for n in BANDS[size] if home_of_number_alone(n) == split)


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
        "clock": [(hour, place) for hour in range(1, 13) for place in range(len(m.MINUTES))],
    }
    if kind == "day":
        return tuple((day,) for day in range(7))
    if kind == "year":
        return tuple((year,) for year in range(1850, 2020) if home_of_number(year) == split)
    fitting = [pair for pair in pairs[kind] if home(*pair) == split]
    return tuple((hour, m.MINUTES[place]) for hour, place in fitting) if kind == "clock" else tuple(fitting)


def _time(kind: str, split: str, dice: _Dice) -> tuple[int, ...]:
    if kind == "dated year":
        return dice.one(_times("date", split)) + dice.one(_times("year", split))
    return dice.one(_times(kind, split))
