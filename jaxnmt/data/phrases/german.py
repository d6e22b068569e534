"""Phrases in German: the finite verb second in main clauses and last in subordinate ones; time before place before object."""

from __future__ import annotations

from functools import cache, lru_cache

from jaxnmt.data.phrases import cldr
from jaxnmt.data.phrases.meaning import PLURAL, Clause, Meaning

_WHO = {"sister": "meine Schwester", "brother": "mein Bruder", "doctor": "der Arzt", "teacher": "der Lehrer", "neighbor": "unser Nachbar"}
_WHO |= {"baker": "der Bäcker", "farmer": "der Bauer", "pilot": "der Pilot", "queen": "die Königin", "actress": "die Schauspielerin"}
_WHO |= {"engineer": "der Ingenieur", "grandmother": "meine Großmutter", "children": "die Kinder", "parents": "meine Eltern"}
_WHO |= {
    "friends": "unsere Freunde",
    "students": "die Studenten",
    "musicians": "die Musiker",
    "women": "die Frauen",
    "aunts": "meine Tanten",
}
_THINGS = {"book": "Bücher", "chair": "Stühle", "table": "Tische", "lamp": "Lampen", "shirt": "Hemden", "hat": "Hüte", "bag": "Taschen"}
_THINGS |= {
    "bicycle": "Fahrräder",
    "umbrella": "Regenschirme",
    "glass": "Gläser",
    "box": "Kisten",
    "flower": "Blumen",
    "suitcase": "Koffer",
}
_THINGS |= {"picture": "Bilder", "letter": "Briefe"}
_ADJECTIVES = {"red": "rote", "blue": "blaue", "green": "grüne", "white": "weiße", "black": "schwarze", "yellow": "gelbe"}
_ADJECTIVES |= {"new": "neue", "big": "große", "small": "kleine"}
# participle, infinitive, present singular, present plural
_VERBS = {"buy": ("gekauft", "kaufen", "kauft", "kaufen"), "sell": ("verkauft", "verkaufen", "verkauft", "verkaufen")}
_VERBS |= {"find": ("gefunden", "finden", "findet", "finden"), "lose": ("verloren", "verlieren", "verliert", "verlieren")}
_VERBS |= {"repair": ("repariert", "reparieren", "repariert", "reparieren"), "arrive": ("angekommen", "ankommen", "kommt", "kommen")}
_VERBS |= {"stay": ("geblieben", "bleiben", "bleibt", "bleiben"), "work": ("gearbeitet", "arbeiten", "arbeitet", "arbeiten")}
_VERBS |= {"wait": ("gewartet", "warten", "wartet", "warten"), "live": ("gelebt", "leben", "lebt", "leben")}
_VERBS |= {"travel": ("gereist", "reisen", "reist", "reisen"), "be born": ("geboren", "geboren werden", "wird", "werden")}
_WITH_SEIN = {"arrive", "stay", "travel"}
_REPORTS = {"say": ("sagt", "sagen"), "know": ("weiß", "wissen"), "write": ("schreibt", "schreiben")}
_WITH_ARTICLE = {"TR", "CH"}  # die Türkei, die Schweiz
_MEANS = {"train": "dem Zug", "bus": "dem Bus", "car": "dem Auto", "ship": "dem Schiff", "plane": "dem Flugzeug"}
_VEHICLES = {"train": "der Zug", "bus": "der Bus", "ship": "das Schiff"}
_EVENTS = {"concert": "das Konzert", "meeting": "die Sitzung", "film": "der Film", "course": "der Kurs", "exam": "die Prüfung"}
_EVENTS |= {"party": "das Fest"}
_PARTS = ("morgen", "nachmittag", "abend")
_JOINS = {"and": ", und ", "but": ", aber ", "because": ", weil ", "while": ", während ", "when": ", als "}
_SUBORDINATE = {"because", "while", "when"}


def sentence(meaning: Meaning) -> str:
    """Return the whole sentence, with capital and full stop if it has them."""
    text = clause(meaning.clauses[0], subordinate=bool(meaning.report))
    if meaning.report:
        text = f"{_WHO[meaning.reporter]} {_REPORTS[meaning.report][meaning.reporter in PLURAL]}, dass {text}"
    for join, following in zip(meaning.joins, meaning.clauses[1:], strict=True):
        text += _JOINS[join] + clause(following, join in _SUBORDINATE)
    return meaning.written(text, text[0].upper())


def clause(c: Clause, subordinate: bool) -> str:
    """Return one clause, without capital or full stop."""
    frame = c.shape.frame
    if frame == "alone":
        return _alone(c)
    if frame == "clock":
        return f"es ist {_clock(*c.time)}"
    if frame == "distance":
        route, distance = _route(c), amount(c.kilometers, "kilometer")
        return f"es {route} {distance} sind" if subordinate else f"{route} sind es {distance}"
    if frame == "population":
        place, people = _in(c.place), f"{cldr.number('de', c.people)} Menschen"
        return f"{place} {people} leben" if subordinate else f"{place} leben {people}"
    subject, finite, end = _subject_and_verb(c)
    time = _time(c.shape.time, c.time) if c.time else ""
    middle = [] if c.shape.fronted else [time]
    middle += [amount(*c.duration) + (" lang" if frame != "last" else "")] if c.duration[0] else []
    middle += [_in(c.place)] if c.place else []
    middle += [_things(c)] if c.things[0] and frame != "cost" else []
    middle += [("für " if frame != "cost" else "") + amount(*c.money)] if c.money[0] else []
    middle += [f"mit {_MEANS[c.means]}"] if c.means else []
    middle += [_route(c)] if c.route[0] and frame == "travel" else []
    if subordinate:
        verb = [end + finite] if frame == "leave" else [end, finite]  # abfährt, but gekauft hat
        words = [subject, *middle, *verb]
    elif c.shape.fronted:
        words = [time, finite, subject, *middle, end]
    else:
        words = [subject, finite, *middle, end]
    return " ".join(filter(None, words))


def _subject_and_verb(c: Clause) -> tuple[str, str, str]:
    """The subject, the finite verb, and what closes a main clause."""
    frame = c.shape.frame
    if frame == "cost":
        return _things(c), "kosten", ""
    if frame == "leave":
        return " ".join([_VEHICLES[c.who], *([_route(c)] if c.route[0] else [])]), "fährt", "ab"
    if frame in ("begin", "last"):
        return _EVENTS[c.who], "beginnt" if frame == "begin" else "dauert", ""
    participle, infinitive, *present = _VERBS[frame]
    if c.shape.present:
        return _WHO[c.who], present[c.plural], "an" if frame == "arrive" else ""
    if c.shape.future:
        return _WHO[c.who], "werden" if c.plural else "wird", infinitive
    singular, plural = ("wurde", "wurden") if frame == "be born" else ("ist", "sind") if frame in _WITH_SEIN else ("hat", "haben")
    return _WHO[c.who], plural if c.plural else singular, participle


def _alone(c: Clause) -> str:
    (part,) = c.shape.extras
    if part in ("number", "ordinal"):
        return cldr.number("de", c.number, "cardinal" if part == "number" else "ordinal")
    if part == "time":
        return _time(c.shape.time, c.time, alone=True)
    return _things(c) if part == "things" else amount(*c.measure)


@lru_cache(maxsize=100_000)
def amount(number: int, noun: str) -> str:
    """A number and the plural (accusative) of a unit or currency."""
    if noun.isupper():
        words = cldr.currency("de", noun)
    else:
        words = cldr.unit("de", "length-kilometer" if noun == "kilometer" else f"duration-{noun}")
    return f"{cldr.number('de', number)} {words}"


def _things(c: Clause) -> str:
    number, thing, adjective = c.things
    return " ".join(filter(None, (cldr.number("de", number), _ADJECTIVES.get(adjective, ""), _THINGS[thing])))


@cache
def _in(place: str) -> str:
    return ("in der " if place in _WITH_ARTICLE else "in ") + cldr.place("de", place)


def _route(c: Clause) -> str:
    start, goal = c.route
    source = ("von der " if start in _WITH_ARTICLE else "von ") + cldr.place("de", start)
    return f"{source} {'in die' if goal in _WITH_ARTICLE else 'nach'} {cldr.place('de', goal)}"


def _clock(hour: int, minute: int) -> str:
    words = {15: "Viertel", 45: "Viertel"}
    after = cldr.number("de", hour % 12 + 1)
    if minute == 0:
        return f"{'ein' if hour == 1 else cldr.number('de', hour)} Uhr"
    if minute < 30:
        return f"{words.get(minute) or cldr.number('de', minute)} nach {cldr.number('de', hour)}"
    return f"halb {after}" if minute == 30 else f"{words.get(minute) or cldr.number('de', 60 - minute)} vor {after}"


@lru_cache(maxsize=100_000)
def _time(kind: str, values: tuple[int, ...], alone: bool = False) -> str:
    """Return when something happens; a day that stands alone is in the nominative."""
    if kind == "clock":
        return "um " + _clock(*values)
    if kind in ("weekday", "day"):
        day = "".join([cldr.weekday("de", values[0]), *(_PARTS[part] for part in values[1:])])
        return day if alone else f"am {day}"
    if kind == "year":
        return "im Jahr " + cldr.number("de", values[0], "year")
    day = cldr.number("de", values[0], "ordinal")
    date = f"{f'der {day}' if alone else f'am {day}n'} {cldr.month('de', values[1])}"
    return date if kind == "date" else f"{date} {cldr.number('de', values[2], 'year')}"
