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
    """The whole sentence, with its capital and full stop."""
    text = clause(meaning.clauses[0])
    if meaning.report:
        verb = meaning.report if meaning.reporter in PLURAL else meaning.report + "s"
        text = f"{_WHO[meaning.reporter]} {verb} that {text}"
    for join, following in zip(meaning.joins, meaning.clauses[1:], strict=True):
        text += _JOINS[join] + clause(following)
    return text[0].upper() + text[1:] + "."


def clause(c: Clause) -> str:
    """One clause, without capital or full stop."""
    frame = c.shape.frame
    if frame == "clock":
        return f"it is {_clock(*c.time)}"
    if frame == "distance":
        return f"it is {amount(c.kilometers, 'kilometer')} {_route(c)}"
    if frame == "population":
        return f"{cldr.number('en', c.people)} people live in {cldr.place('en', c.place)}"
    if frame == "cost":
        return f"{_things(c)} cost {amount(*c.money)}"
    if frame == "leave":
        parts = [f"the {c.who}", _route(c), "leaves"]
    elif frame in ("begin", "last"):
        parts = [f"the {c.who}", frame + "s"]
    elif frame == "be born":
        parts = [_WHO[c.who], "were" if c.plural else "was", "born"]
    else:
        parts = [_WHO[c.who], f"will {frame}" if c.shape.future else _PAST[frame]]
    parts += [_things(c)] if c.things[0] else []
    parts += [f"for {amount(*c.money)}"] if c.money[0] else []
    parts += [_route(c), f"by {c.means}"] if c.means else []
    parts += [("" if frame == "last" else "for ") + amount(*c.duration)] if c.duration[0] else []
    parts += [f"in {cldr.place('en', c.place)}"] if c.place else []
    time = _time(c.shape.time, c.time) if c.time else ""
    text = " ".join(parts)
    return f"{time}, {text}" if c.shape.fronted else f"{text} {time}".rstrip()


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
    if kind == "weekday":
        return f"on {cldr.weekday('en', values[0])} {_PARTS[values[1]]}"
    if kind == "year":
        return "in " + cldr.number("en", values[0], "year")
    date = f"on the {cldr.number('en', values[0], 'ordinal')} of {cldr.month('en', values[1])}"
    return date if kind == "date" else f"{date} {cldr.number('en', values[2], 'year')}"
