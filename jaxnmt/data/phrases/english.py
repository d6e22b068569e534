"""Phrases in English: subject, verb, object, price, place, time."""

from __future__ import annotations

from functools import lru_cache

from jaxnmt.data.phrases import cldr
from jaxnmt.data.phrases.meaning import PLURAL, Clause, Meaning

_WHO = {
    name: f"the {name}" for name in "doctor teacher baker farmer pilot queen actress engineer children students musicians women".split()
}
_WHO |= {name: f"my {name}" for name in ("sister", "brother", "grandmother", "parents", "aunts")}
_WHO |= {"neighbor": "our neighbor", "friends": "our friends"}
_THINGS = {"glass": "glasses", "box": "boxes"}
_PAST = {"buy": "bought", "sell": "sold", "find": "found", "lose": "lost", "repair": "repaired", "arrive": "arrived", "stay": "stayed"}
_PAST |= {"work": "worked", "wait": "waited", "live": "lived", "travel": "traveled"}
_PARTS = ("morning", "afternoon", "evening")
_JOINS = {"and": " and ", "but": ", but ", "because": " because ", "while": ", while ", "when": " when "}


def sentence(meaning: Meaning) -> str:
    """Return the whole sentence, with capital and full stop if it has them."""
    text = clause(meaning.clauses[0])
    if meaning.report:
        verb = meaning.report if meaning.reporter in PLURAL else meaning.report + "s"
        text = f"{_WHO[meaning.reporter]} {verb} that {text}"
    for join, following in zip(meaning.joins, meaning.clauses[1:], strict=True):
        text += _JOINS[join] + clause(following)
    return meaning.written(text, text[0].upper())


def clause(c: Clause) -> str:
    """Return one clause, without capital or full stop."""
    frame = c.shape.frame
    if frame == "alone":
        return _alone(c)
    if frame == "clock":
        return f"it is {_clock(*c.time)}"
    if frame == "distance":
        return f"it is {amount(c.kilometers, 'kilometer')} {_route(c)}"
    if frame == "population":
        return f"{cldr.number('en', c.people)} people live in {cldr.place('en', c.place)}"
    if frame == "cost":
        return f"{_things(c)} cost {amount(*c.money)}"
    route = [_route(c)] if c.route[0] else []
    if frame == "leave":
        parts = [f"the {c.who}", *route, "leaves"]
    elif frame in ("begin", "last"):
        parts = [f"the {c.who}", frame + "s"]
    elif frame == "be born":
        parts = [_WHO[c.who], "were" if c.plural else "was", "born"]
    else:
        parts = [_WHO[c.who], _verb(c)]
    parts += route if frame == "travel" else []
    parts += [_things(c)] if c.things[0] else []
    parts += [f"for {amount(*c.money)}"] if c.money[0] else []
    parts += [f"by {c.means}"] if c.means else []
    parts += [("" if frame == "last" else "for ") + amount(*c.duration)] if c.duration[0] else []
    parts += [f"in {cldr.place('en', c.place)}"] if c.place else []
    time = _time(c.shape.time, c.time) if c.time else ""
    text = " ".join(parts)
    return f"{time}, {text}" if c.shape.fronted else f"{text} {time}".rstrip()


def _verb(c: Clause) -> str:
    frame = c.shape.frame
    if c.shape.future:
        return f"will {frame}"
    if c.shape.present:
        return frame if c.plural else frame + "s"
    return _PAST[frame]


def _alone(c: Clause) -> str:
    (part,) = c.shape.extras
    if part in ("number", "ordinal"):
        return cldr.number("en", c.number, "cardinal" if part == "number" else "ordinal")
    if part == "time":
        return _time(c.shape.time, c.time).removeprefix("on ")
    return _things(c) if part == "things" else amount(*c.measure)


@lru_cache(maxsize=100_000)
def amount(number: int, noun: str) -> str:
    """A number and the plural of a unit or currency."""
    if noun.isupper():
        words = cldr.currency("en", noun)
    else:
        words = cldr.unit("en", "length-kilometer" if noun == "kilometer" else f"duration-{noun}")
    return f"{cldr.number('en', number)} {words}"


def _things(c: Clause) -> str:
    number, thing, adjective = c.things
    return " ".join(filter(None, (cldr.number("en", number), adjective, _THINGS.get(thing, thing + "s"))))


def _route(c: Clause) -> str:
    return f"from {cldr.place('en', c.route[0])} to {cldr.place('en', c.route[1])}"


def _clock(hour: int, minute: int) -> str:
    words = {0: "", 15: "a quarter", 30: "half", 45: "a quarter"}
    if minute == 0:
        return f"{cldr.number('en', hour)} o'clock"
    if minute <= 30:
        return f"{words.get(minute) or cldr.number('en', minute)} past {cldr.number('en', hour)}"
    return f"{words.get(minute) or cldr.number('en', 60 - minute)} to {cldr.number('en', hour % 12 + 1)}"


@lru_cache(maxsize=100_000)
def _time(kind: str, values: tuple[int, ...]) -> str:
    if kind == "clock":
        return "at " + _clock(*values)
    if kind in ("weekday", "day"):
        return " ".join(["on", cldr.weekday("en", values[0]), *(_PARTS[part] for part in values[1:])])
    if kind == "year":
        return "in " + cldr.number("en", values[0], "year")
    date = f"on the {cldr.number('en', values[0], 'ordinal')} of {cldr.month('en', values[1])}"
    return date if kind == "date" else f"{date} {cldr.number('en', values[2], 'year')}"
