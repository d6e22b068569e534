"""Draws meanings at random: each is a pure function of (split, index, seed)."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from functools import cache
from typing import Any

from jaxnmt.data.phrases import meaning as m
from jaxnmt.data.phrases.meaning import FRAMES, Clause, Form, Meaning, is_held_out, split_of_pair

PLAIN = 0.4  # share of plain sentences in training and validation
ALONE = 0.4  # share of plain sentences that are a number, an amount or a time alone

BANDS = (range(21), range(21, 100), range(100, 1000), range(1000, 10_000), range(2000, 1_000_000, 1000))
"""Numbers by size."""


class Random:
    """Random choices that are the same in every Python version: only `random()` is used, whose sequence Python guarantees."""

    def __init__(self, seed: str) -> None:
        self.random = random.Random(seed).random

    def one(self, items: Sequence[Any]) -> Any:
        return items[int(self.random() * len(items))]

    def chance(self, probability: float) -> bool:
        return self.random() < probability


def draw(split: str, index: int, seed: int) -> Meaning:
    """Return the sentence at an index of a split, the same in all languages.

    Every test sentence has at least one held-out piece in its template. A plain sentence has too small a template for that, so
    only training and validation have them.
    """
    rng = Random(f"phrases {seed} {split} {index}")
    if split != "test" and rng.chance(PLAIN):
        return _alone(rng, split) if rng.chance(ALONE) else _plain(rng, split)
    # Report and size come first, so that test sentences are not longer because more pieces can be held out of them.
    report = rng.one(m.REPORTS) if rng.chance(0.2) else ""
    size = rng.one((1, 1, 1, 1, 2) if report else (1, 1, 1, 1, 2, 2, 2, 3))
    forms, joins = _template(rng, report, size)
    while is_held_out(report, forms, joins) != (split == "test"):
        forms, joins = _template(rng, report, size)
    reporter = rng.one(m.PERSONS) if report else ""
    people, clauses = [reporter], []
    for form in forms:
        clauses.append(draw_clause(form, split, rng, people))
        people.append(clauses[-1].who)
    return Meaning(report, reporter, tuple(clauses), tuple(joins))


def _plain(rng: Random, split: str) -> Meaning:
    """Draw one short clause: its required parts, and at most one more. Clauses without a value of one split are for training."""
    form = _plain_form(rng)
    while is_held_out("", [form], []) or (split != "train" and not _has_value_of_a_split(form)):
        form = _plain_form(rng)
    capital, stop = (True, True) if rng.chance(0.7) else rng.one(((True, False), (False, False)))
    return Meaning("", "", (draw_clause(form, split, rng),), (), capital, stop)


def _has_value_of_a_split(form: Form) -> bool:
    """Return whether a clause of this form has a value that belongs to one split."""
    frame = FRAMES[form.frame]
    shared = {"means"} | ({"time"} if form.time == "day" else set()) | ({"place"} if frame.who != "person" else set())
    return not {*frame.needs, *form.extras} - {*form.omits} <= shared


def _plain_form(rng: Random) -> Form:
    name = rng.one(m.PERSONAL if rng.chance(0.5) else m.CLAUSES)
    frame = FRAMES[name]
    parts = rng.one(frame.brief or (frame.needs,))
    more = [part for part in frame.needs + frame.may if part not in parts]
    if more and rng.chance(0.5):
        parts += (rng.one(more),)
    time = rng.one(frame.times) if "time" in parts else ""
    has_tenses = frame.who == "person" and name != "be born" and "year" not in time
    tense = rng.one(("past", "present", "present", "future")) if has_tenses else "past"
    fronted = bool(time) and name != "clock" and rng.chance(0.25)
    extras = tuple(part for part in frame.may if part in parts)
    omits = tuple(part for part in frame.needs if part not in parts)
    return Form(name, tense == "future", fronted, extras, time, tense == "present", omits)


def _alone(rng: Random, split: str) -> Meaning:
    """Draw a number, an amount or a time that stands alone."""
    frame = FRAMES["alone"]
    part = rng.one(("number",) * 4 + ("time",) + frame.may)
    time = rng.one(frame.times) if part == "time" else ""
    if split != "train":  # ordinals and days are too few for three splits: they are for training
        part, time = {"ordinal": "number"}.get(part, part), {"day": "weekday"}.get(time, time)
    clause = draw_clause(Form("alone", extras=(part,), time=time), split, rng)
    styles = [(True, True), (False, False), (False, False)]
    # Some languages write "Monday" with a capital everywhere, so that only the full stop would show the others whether to write one.
    styles += [] if time in ("weekday", "day") else [(True, False)]
    return Meaning("", "", (clause,), (), *rng.one(styles))


def _template(rng: Random, report: str, size: int) -> tuple[list[Form], list[str]]:
    """Draw the forms of one to three clauses, the first perhaps reported, and the joins between them."""
    joins: list[str] = []
    while len(joins) < size - 1:  # each join once, and "when" only right after a main clause
        joins.append(rng.one([join for join in m.JOINS if join not in joins and (join != "when" or not (report or joins))]))
    past = "when" in joins
    forms = [_form(rng, m.PERSONAL if past else m.EMBEDDED if report else m.CLAUSES, size, embedded=bool(report), past=past)]
    for join in joins:
        embedded = join in ("because", "while", "when")
        frames = m.ACTIONS if join == "when" else m.EMBEDDED if embedded else m.CLAUSES
        forms.append(_form(rng, frames, size, embedded, past=join == "when"))
    return forms, joins


def _form(rng: Random, frames: tuple[str, ...], size: int, embedded: bool, past: bool) -> Form:
    """Draw one clause's form; the more clauses, the fewer options in each."""
    name = rng.one(frames)
    frame = FRAMES[name]
    extras = tuple(part for part in frame.may if rng.chance((0.5, 0.35, 0.2)[size - 1]))
    timed = "time" in frame.needs or "time" in extras
    time = rng.one(frame.times) if timed else ""
    # Years are in the past, and so is "when".
    future = frame.who == "person" and "year" not in time and not past and rng.chance(0.4)
    fronted = timed and not embedded and name != "clock" and rng.chance(0.35)
    return Form(name, future, fronted, extras, time)


def draw_clause(form: Form, split: str, rng: Random, mentioned: Sequence[str] = ()) -> Clause:
    """Give a form values that belong to the split; its person is not one of `mentioned`."""
    frame = FRAMES[form.frame]
    people = {"person": m.PERSONS, "vehicle": m.VEHICLES, "event": m.EVENTS, "nobody": ("",)}[frame.who]
    who = rng.one(people)
    while who and who in mentioned:
        who = rng.one(people)
    parts = [*(part for part in frame.needs if part not in form.omits), *form.extras]
    return Clause(form, who, {"number" if part == "ordinal" else part: _value(part, form, who, split, rng) for part in parts})


def _value(part: str, form: Form, who: str, split: str, rng: Random) -> Any:
    """Draw a part's value."""
    match part:
        case "things":
            number, thing = _amount(split, rng, m.THINGS, (0.6, 0.3, 0.1, 0.0))
            return number, thing, rng.one(_partners(split, m.THINGS.index(thing), m.ADJECTIVES))
        case "money":
            return _amount(split, rng, m.CURRENCIES, (0.2, 0.4, 0.35, 0.05))
        case "duration":
            return _amount(split, rng, m.UNITS, (0.8, 0.2, 0.0, 0.0))
        case "kilometers":
            return rng.one(_numbers(split, rng.one((1, 2, 2, 3))))
        case "people":
            return rng.one(_numbers(split, rng.one((2, 3, 4))))
        case "place":
            return rng.one(_partners(split, m.PERSONS.index(who), m.PLACES) if who else m.PLACES)
        case "route":
            start = rng.one(m.PLACES)
            return start, rng.one([place for place in _partners(split, m.PLACES.index(start), m.PLACES) if place != start])
        case "means":
            return rng.one(m.MEANS)
        case "number":
            sizes = (1, 1, 2, 2, 2, 3, 3, 4) + (0, 0) * (split == "train")
            return rng.one(_lone_numbers(split, rng.one(sizes)))
        case "ordinal":
            return rng.one(range(1, 29))
    kinds = ("date", "year") if form.time == "dated year" else (form.time,)
    return tuple(value for kind in kinds for value in rng.one(_times(kind, split)))


@cache
def _partners(split: str, first: int, items: tuple[str, ...]) -> tuple[str, ...]:
    """Return the items that occur together with the value `first` in a split."""
    return tuple(item for second, item in enumerate(items) if split_of_pair(first, second) == split)


@cache
def _numbers(split: str, size: int) -> tuple[int, ...]:
    """Return the split's numbers of a size above 20, from BANDS. None ends in 01: few nouns follow it well."""
    return tuple(n for n in BANDS[size] if m.split_of_number(n) == split and n % 100 != 1)


@cache
def _lone_numbers(split: str, size: int) -> tuple[int, ...]:
    return tuple(n for n in BANDS[size] if m.split_of_lone_number(n) == split)


@cache
def _small_amounts(split: str, items: tuple[str, ...]) -> tuple[tuple[int, str], ...]:
    """Return the split's pairs of a number from two to twenty and a noun."""
    return tuple((n, item) for n in range(2, 21) for place, item in enumerate(items) if split_of_pair(n, place) == split)


def _amount(split: str, rng: Random, items: tuple[str, ...], sizes: tuple[float, ...]) -> tuple[int, str]:
    """Draw a number and a noun; `sizes` are the probabilities of 2-20, 21-99, 100-999, 1000-9999."""
    roll, size = rng.random(), 0
    while size < 3 and roll >= sizes[size]:
        roll, size = roll - sizes[size], size + 1
    return rng.one(_small_amounts(split, items)) if size == 0 else (rng.one(_numbers(split, size)), rng.one(items))


@cache
def _times(kind: str, split: str) -> tuple[tuple[int, ...], ...]:
    """Return the split's values of a kind of time: pairs by `split_of_pair`, years by their range of ten."""
    if kind == "day":
        return tuple(itertools.product(range(7)))
    if kind == "year":
        return tuple((year,) for year in range(1850, 2020) if m.split_of_number(year) == split)
    first, second = {
        "date": (range(1, 29), range(1, 13)),
        "weekday": (range(7), range(3)),
        "clock": (range(1, 13), range(len(m.MINUTES))),
    }[kind]
    fitting = tuple(pair for pair in itertools.product(first, second) if split_of_pair(*pair) == split)
    return tuple((hour, m.MINUTES[place]) for hour, place in fitting) if kind == "clock" else fitting
