"""Phrases in Spanish: numerals agree in gender, most adjectives follow their noun, the hour has an article."""

from __future__ import annotations

from functools import lru_cache

from jaxnmt.data.phrases import cldr
from jaxnmt.data.phrases.meaning import PLURAL, Clause, Meaning

_WHO = {"sister": "mi hermana", "brother": "mi hermano", "doctor": "el médico", "teacher": "el profesor", "neighbor": "nuestro vecino"}
_WHO |= {"baker": "el panadero", "farmer": "el granjero", "pilot": "el piloto", "queen": "la reina", "actress": "la actriz"}
_WHO |= {"engineer": "el ingeniero", "grandmother": "mi abuela", "children": "los niños", "parents": "mis padres"}
_WHO |= {
    "friends": "nuestros amigos",
    "students": "los estudiantes",
    "musicians": "los músicos",
    "women": "las mujeres",
    "aunts": "mis tías",
}
_THINGS = {
    "book": "libros",
    "chair": "sillas",
    "table": "mesas",
    "lamp": "lámparas",
    "shirt": "camisas",
    "hat": "sombreros",
    "bag": "bolsas",
}
_THINGS |= {"bicycle": "bicicletas", "umbrella": "paraguas", "glass": "vasos", "box": "cajas", "flower": "flores", "suitcase": "maletas"}
_THINGS |= {"picture": "cuadros", "letter": "cartas"}
_FEMININE = {"chair", "table", "lamp", "shirt", "bag", "bicycle", "box", "flower", "suitcase", "letter"}
_FEMININE |= {"GBP", "TRY", "hour", "week"}
# masculine plural, feminine plural
_AFTER = {"red": ("rojos", "rojas"), "blue": ("azules", "azules"), "green": ("verdes", "verdes"), "white": ("blancos", "blancas")}
_AFTER |= {"black": ("negros", "negras"), "yellow": ("amarillos", "amarillas"), "big": ("grandes", "grandes")}
_AFTER |= {"small": ("pequeños", "pequeñas")}
_BEFORE = {"new": ("nuevos", "nuevas")}
# past singular, past plural, future singular
_VERBS = {"buy": ("compró", "compraron", "comprará"), "sell": ("vendió", "vendieron", "venderá")}
_VERBS |= {"find": ("encontró", "encontraron", "encontrará"), "lose": ("perdió", "perdieron", "perderá")}
_VERBS |= {"repair": ("reparó", "repararon", "reparará"), "arrive": ("llegó", "llegaron", "llegará")}
_VERBS |= {"stay": ("permaneció", "permanecieron", "permanecerá"), "work": ("trabajó", "trabajaron", "trabajará")}
_VERBS |= {"wait": ("esperó", "esperaron", "esperará"), "live": ("vivió", "vivieron", "vivirá")}
_VERBS |= {"travel": ("viajó", "viajaron", "viajará"), "be born": ("nació", "nacieron", "nacerá")}
_REPORTS = {"say": ("dice", "dicen"), "know": ("sabe", "saben"), "write": ("escribe", "escriben")}
_MEANS = {"train": "tren", "bus": "autobús", "car": "coche", "ship": "barco", "plane": "avión"}
_EVENTS = {"concert": "el concierto", "meeting": "la reunión", "film": "la película", "course": "el curso", "exam": "el examen"}
_EVENTS |= {"party": "la fiesta"}
_PARTS = ("mañana", "tarde", "noche")
_JOINS = {"and": " y ", "but": ", pero ", "because": " porque ", "while": ", mientras que ", "when": " cuando "}


def sentence(meaning: Meaning) -> str:
    """The whole sentence, with its capital and full stop."""
    text = clause(meaning.clauses[0])
    if meaning.report:
        text = f"{_WHO[meaning.reporter]} {_REPORTS[meaning.report][meaning.reporter in PLURAL]} que {text}"
    for join, following in zip(meaning.joins, meaning.clauses[1:], strict=True):
        text += _JOINS[join] + clause(following)
    return text[0].upper() + text[1:] + "."


def clause(c: Clause) -> str:
    """One clause, without capital or full stop."""
    frame = c.shape.frame
    if frame == "clock":
        hour = _clock(*c.time)
        return ("es " if hour.startswith("la ") else "son ") + hour
    if frame == "distance":
        return f"hay {amount(c.kilometers, 'kilometer')} {_route(c)}"
    if frame == "population":
        return f"en {cldr.place('es', c.place)} viven {_number(c.people, True)} personas"
    if frame == "cost":
        return f"{_things(c)} cuestan {amount(*c.money)}"
    if frame == "leave":
        parts = [f"el {_MEANS[c.who]}", _route(c), "sale"]
    elif frame in ("begin", "last"):
        parts = [_EVENTS[c.who], "empieza" if frame == "begin" else "dura"]
    else:
        parts = [_WHO[c.who], _verb(c)]
    parts += [_things(c)] if c.things[0] else []
    parts += [f"por {amount(*c.money)}"] if c.money[0] else []
    parts += [_route(c), f"en {_MEANS[c.means]}"] if c.means else []
    parts += [("" if frame == "last" else "durante ") + amount(*c.duration)] if c.duration[0] else []
    parts += [("a " if frame == "arrive" else "en ") + cldr.place("es", c.place)] if c.place else []
    time = _time(c.shape.time, c.time) if c.time else ""
    return " ".join(filter(None, [time, *parts] if c.shape.fronted else [*parts, time]))


def _verb(c: Clause) -> str:
    singular, plural, future = _VERBS[c.shape.frame]
    if c.shape.future:
        return future + "n" if c.plural else future
    return plural if c.plural else singular


@lru_cache(maxsize=100_000)
def _number(value: int, feminine: bool) -> str:
    """A number before its noun: veintiún libros, veintiuna sillas, doscientas sillas."""
    words = cldr.number("es", value)
    if feminine:
        words = words.replace("cientos", "cientas").replace("quinientos", "quinientas")
        head = words[: -len("uno")] if words.endswith("uno") else ""
        return (head + "una" if head or words == "uno" else words).replace("veintiuno mil", "veintiún mil").replace(" uno mil", " un mil")
    words = words.replace("veintiuno", "veintiún")
    return words[:-1] if words.endswith(" uno") else words.replace(" uno mil", " un mil")


@lru_cache(maxsize=100_000)
def amount(number: int, noun: str) -> str:
    """A number and the plural of a unit or currency."""
    if noun.isupper():
        words = cldr.currency("es", noun)
    else:
        words = cldr.unit("es", "length-kilometer" if noun == "kilometer" else f"duration-{noun}")
    return f"{_number(number, noun in _FEMININE)} {words}"


def _things(c: Clause) -> str:
    number, thing, adjective = c.things
    feminine = thing in _FEMININE
    before, after = (table.get(adjective, ("", ""))[feminine] for table in (_BEFORE, _AFTER))
    return " ".join(filter(None, (_number(number, feminine), before, _THINGS[thing], after)))


def _route(c: Clause) -> str:
    return f"de {cldr.place('es', c.route[0])} a {cldr.place('es', c.route[1])}"


def _clock(hour: int, minute: int) -> str:
    past = minute <= 30
    hour = hour if past else hour % 12 + 1
    text = "la una" if hour == 1 else f"las {cldr.number('es', hour)}"
    special = {0: "", 15: " y cuarto", 30: " y media", 45: " menos cuarto"}
    return text + special.get(minute, f" y {cldr.number('es', minute)}" if past else f" menos {cldr.number('es', 60 - minute)}")


@lru_cache(maxsize=100_000)
def _time(kind: str, values: tuple[int, ...]) -> str:
    if kind == "clock":
        return "a " + _clock(*values)
    if kind == "weekday":
        return f"el {cldr.weekday('es', values[0])} por la {_PARTS[values[1]]}"
    if kind == "year":
        return "en " + cldr.number("es", values[0])
    date = f"el {cldr.number('es', values[0])} de {cldr.month('es', values[1])}"
    return date if kind == "date" else f"{date} de {cldr.number('es', values[2])}"
