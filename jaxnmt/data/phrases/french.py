"""Phrases in French: gender and number agree, most adjectives follow their noun, "de" and "que" elide."""

from __future__ import annotations

from functools import cache, lru_cache

from jaxnmt.data.phrases import cldr
from jaxnmt.data.phrases.meaning import PLURAL, Clause, Meaning

_WHO = {"sister": "ma sœur", "brother": "mon frère", "doctor": "le médecin", "teacher": "le professeur", "neighbor": "notre voisin"}
_WHO |= {"baker": "le boulanger", "farmer": "le fermier", "pilot": "le pilote", "queen": "la reine", "actress": "l'actrice"}
_WHO |= {"engineer": "l'ingénieur", "grandmother": "ma grand-mère", "children": "les enfants", "parents": "mes parents"}
_WHO |= {"friends": "nos amis", "students": "les étudiants", "musicians": "les musiciens", "women": "les femmes", "aunts": "mes tantes"}
_FEMALE = {"sister", "queen", "actress", "grandmother", "women", "aunts"}
_THINGS = {"book": "livres", "chair": "chaises", "table": "tables", "lamp": "lampes", "shirt": "chemises", "hat": "chapeaux", "bag": "sacs"}
_THINGS |= {"bicycle": "vélos", "umbrella": "parapluies", "glass": "verres", "box": "boîtes", "flower": "fleurs", "suitcase": "valises"}
_THINGS |= {"picture": "tableaux", "letter": "lettres"}
_FEMININE = {"chair", "table", "lamp", "shirt", "box", "flower", "suitcase", "letter", "GBP", "TRY", "minute", "hour", "week"}
# masculine plural, feminine plural
_AFTER = {"red": ("rouges", "rouges"), "blue": ("bleus", "bleues"), "green": ("verts", "vertes"), "white": ("blancs", "blanches")}
_AFTER |= {"black": ("noirs", "noires"), "yellow": ("jaunes", "jaunes")}
_BEFORE = {"new": ("nouveaux", "nouvelles"), "big": ("grands", "grandes"), "small": ("petits", "petites")}
# participle, future singular, present singular, present plural
_VERBS = {"buy": ("acheté", "achètera", "achète", "achètent"), "sell": ("vendu", "vendra", "vend", "vendent")}
_VERBS |= {"find": ("trouvé", "trouvera", "trouve", "trouvent"), "lose": ("perdu", "perdra", "perd", "perdent")}
_VERBS |= {"repair": ("réparé", "réparera", "répare", "réparent"), "arrive": ("arrivé", "arrivera", "arrive", "arrivent")}
_VERBS |= {"stay": ("resté", "restera", "reste", "restent"), "work": ("travaillé", "travaillera", "travaille", "travaillent")}
_VERBS |= {"wait": ("attendu", "attendra", "attend", "attendent"), "live": ("vécu", "vivra", "vit", "vivent")}
_VERBS |= {"travel": ("voyagé", "voyagera", "voyage", "voyagent"), "be born": ("né", "naîtra", "naît", "naissent")}
_WITH_ETRE = {"arrive", "stay", "be born"}
_REPORTS = {"say": ("dit", "disent"), "know": ("sait", "savent"), "write": ("écrit", "écrivent")}
_MASCULINE_COUNTRIES = {"JP", "BR", "CA", "PT", "MA", "MX"}
_MEANS = {"train": "train", "bus": "bus", "car": "voiture", "ship": "bateau", "plane": "avion"}
_EVENTS = {
    "concert": "le concert",
    "meeting": "la réunion",
    "film": "le film",
    "course": "le cours",
    "exam": "l'examen",
    "party": "la fête",
}
_PARTS = ("matin", "après-midi", "soir")
_JOINS = {"and": " et ", "but": ", mais ", "because": " parce que ", "while": ", tandis que ", "when": " quand "}


def sentence(meaning: Meaning) -> str:
    """Return the whole sentence, with capital and full stop if it has them."""
    text = clause(meaning.clauses[0])
    if meaning.report:
        text = _elide(f"{_WHO[meaning.reporter]} {_REPORTS[meaning.report][meaning.reporter in PLURAL]} que ", text)
    for join, following in zip(meaning.joins, meaning.clauses[1:], strict=True):
        text = _elide(text + _JOINS[join], clause(following))
    return meaning.written(text, text[0].upper())


def clause(c: Clause) -> str:
    """Return one clause, without capital or full stop."""
    frame = c.shape.frame
    if frame == "alone":
        return _alone(c)
    if frame == "clock":
        return f"il est {_clock(*c.time)}"
    if frame == "distance":
        return f"il y a {amount(c.kilometers, 'kilometer')} {_route(c)}"
    if frame == "population":
        return f"{_number(c.people, True)} personnes vivent {_at(c.place)}"
    if frame == "cost":
        return f"{_things(c)} coûtent {amount(*c.money)}"
    route = [_route(c)] if c.route[0] else []
    if frame == "leave":
        parts = [f"le {_MEANS[c.who]}", *route, "part"]
    elif frame in ("begin", "last"):
        parts = [_EVENTS[c.who], "commence" if frame == "begin" else "dure"]
    else:
        parts = [_WHO[c.who], _verb(c)]
    parts += route if frame == "travel" else []
    parts += [_things(c)] if c.things[0] else []
    parts += [f"pour {amount(*c.money)}"] if c.money[0] else []
    parts += [f"en {_MEANS[c.means]}"] if c.means else []
    parts += [("" if frame == "last" else "pendant ") + amount(*c.duration)] if c.duration[0] else []
    parts += [_at(c.place)] if c.place else []
    time = _time(c.shape.time, c.time) if c.time else ""
    text = " ".join(parts)
    return f"{time}, {text}" if c.shape.fronted else f"{text} {time}".rstrip()


def _alone(c: Clause) -> str:
    (part,) = c.shape.extras
    if part in ("number", "ordinal"):
        return cldr.number("fr", c.number, "cardinal" if part == "number" else "ordinal")
    if part == "time":
        return _time(c.shape.time, c.time)
    return _things(c) if part == "things" else amount(*c.measure)


def _elide(before: str, after: str) -> str:
    """Join two pieces of text: "que il" becomes "qu'il", "de Italie" d'Italie; "onze" and "huit" resist."""
    if before.endswith(("de ", "que ")) and after[0].lower() in "aeiouéè" and not after.startswith("onze"):
        return before[:-2] + "'" + after
    return before + after


def _verb(c: Clause) -> str:
    participle, future, *present = _VERBS[c.shape.frame]
    if c.shape.present:
        return present[c.plural]
    if c.shape.future:
        return future[:-1] + "ont" if c.plural else future
    if c.shape.frame in _WITH_ETRE:
        return ("sont " if c.plural else "est ") + participle + "e" * (c.who in _FEMALE) + "s" * c.plural
    return ("ont " if c.plural else "a ") + participle


@lru_cache(maxsize=100_000)
def _number(value: int, feminine: bool) -> str:
    words = cldr.number("fr", value)
    return words + "e" if feminine and words.endswith("un") else words


@lru_cache(maxsize=100_000)
def amount(number: int, noun: str) -> str:
    """A number and the plural of a unit or currency."""
    if noun.isupper():
        words = cldr.currency("fr", noun)
    else:
        words = cldr.unit("fr", "length-kilometer" if noun == "kilometer" else f"duration-{noun}")
    return f"{_number(number, noun in _FEMININE)} {words}"


def _things(c: Clause) -> str:
    number, thing, adjective = c.things
    feminine = thing in _FEMININE
    before, after = (table.get(adjective, ("", ""))[feminine] for table in (_BEFORE, _AFTER))
    return " ".join(filter(None, (_number(number, feminine), before, _THINGS[thing], after)))


@cache
def _at(place: str) -> str:
    """In or to a place: à Paris, en France, au Japon."""
    return ("à " if "/" in place else "au " if place in _MASCULINE_COUNTRIES else "en ") + cldr.place("fr", place)


def _route(c: Clause) -> str:
    start = cldr.place("fr", c.route[0])
    return ("du " + start if c.route[0] in _MASCULINE_COUNTRIES else _elide("de ", start)) + " " + _at(c.route[1])


def _clock(hour: int, minute: int) -> str:
    past = minute <= 30
    hour = hour if past else hour % 12 + 1
    text = f"{_number(hour, True)} {'heure' if hour == 1 else 'heures'}"
    special = {0: "", 15: " et quart", 30: " et demie", 45: " moins le quart"}
    return text + special.get(minute, f" {cldr.number('fr', minute)}" if past else f" moins {cldr.number('fr', 60 - minute)}")


@lru_cache(maxsize=100_000)
def _time(kind: str, values: tuple[int, ...]) -> str:
    if kind == "clock":
        return "à " + _clock(*values)
    if kind in ("weekday", "day"):
        return " ".join([cldr.weekday("fr", values[0]), *(_PARTS[part] for part in values[1:])])
    if kind == "year":
        return "en " + _year(values[0])
    day = "premier" if values[0] == 1 else cldr.number("fr", values[0])
    date = f"le {day} {cldr.month('fr', values[1])}"
    return date if kind == "date" else f"{date} {_year(values[2])}"


def _year(value: int) -> str:
    """A year takes no plural s: mille neuf cent, mille neuf cent quatre-vingt."""
    words = cldr.number("fr", value)
    return words.removesuffix("s") if words.endswith(("cents", "vingts")) else words
