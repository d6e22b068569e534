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
# past singular, past plural, future singular, present singular; the plurals of future and present take an n
_VERBS = {"buy": ("compró", "compraron", "comprará", "compra"), "sell": ("vendió", "vendieron", "venderá", "vende")}
_VERBS |= {"find": ("encontró", "encontraron", "encontrará", "encuentra"), "lose": ("perdió", "perdieron", "perderá", "pierde")}
_VERBS |= {"repair": ("reparó", "repararon", "reparará", "repara"), "arrive": ("llegó", "llegaron", "llegará", "llega")}
_VERBS |= {"stay": ("permaneció", "permanecieron", "permanecerá", "permanece")}
_VERBS |= {"work": ("trabajó", "trabajaron", "trabajará", "trabaja"), "wait": ("esperó", "esperaron", "esperará", "espera")}
_VERBS |= {"live": ("vivió", "vivieron", "vivirá", "vive"), "travel": ("viajó", "viajaron", "viajará", "viaja")}
_VERBS |= {"be born": ("nació", "nacieron", "nacerá", "nace")}
_REPORTS = {"say": ("dice", "dicen"), "know": ("sabe", "saben"), "write": ("escribe", "escriben")}
_MEANS = {"train": "tren", "bus": "autobús", "car": "coche", "ship": "barco", "plane": "avión"}
_EVENTS = {"concert": "el concierto", "meeting": "la reunión", "film": "la película", "course": "el curso", "exam": "el examen"}
_EVENTS |= {"party": "la fiesta"}
_PARTS = ("mañana", "tarde", "noche")
_JOINS = {"and": " y ", "but": ", pero ", "because": " porque ", "while": ", mientras que ", "when": " cuando "}


def sentence(meaning: Meaning) -> str:
    """Return the whole sentence, with capital and full stop if it has them."""
    text = clause(meaning.clauses[0])
    if meaning.report:
        text = f"{_WHO[meaning.reporter]} {_REPORTS[meaning.report][meaning.reporter in PLURAL]} que {text}"
    for join, following in zip(meaning.joins, meaning.clauses[1:], strict=True):
        text += _JOINS[join] + clause(following)
    return meaning.written(text, text[0].upper())


def clause(c: Clause) -> str:
    """Return one clause, without capital or full stop."""
    frame = c.shape.frame
    if frame == "alone":
        return _alone(c)
    if frame == "clock":
        hour = _clock(*c.time)
        return ("es " if hour.startswith("la ") else "son ") + hour
    if frame == "distance":
        return f"hay {amount(c.kilometers, 'kilometer')} {_route(c)}"
    if frame == "population":
        return f"en {cldr.place('es', c.place)} viven {_number(c.people, True)} personas"
    if frame == "cost":
        return f"{_things(c)} cuestan {amount(*c.money)}"
    route = [_route(c)] if c.route[0] else []
    if frame == "leave":
        parts = [f"el {_MEANS[c.who]}", *route, "sale"]
    elif frame in ("begin", "last"):
        parts = [_EVENTS[c.who], "empieza" if frame == "begin" else "dura"]
    else:
        parts = [_WHO[c.who], _verb(c)]
    parts += route if frame == "travel" else []
    parts += [_things(c)] if c.things[0] else []
    parts += [f"por {amount(*c.money)}"] if c.money[0] else []
    parts += [f"en {_MEANS[c.means]}"] if c.means else []
    parts += [("" if frame == "last" else "durante ") + amount(*c.duration)] if c.duration[0] else []
    parts += [("a " if frame == "arrive" else "en ") + cldr.place("es", c.place)] if c.place else []
    time = _time(c.shape.time, c.time) if c.time else ""
    return " ".join(filter(None, [time, *parts] if c.shape.fronted else [*parts, time]))


def _verb(c: Clause) -> str:
    singular, plural, future, present = _VERBS[c.shape.frame]
    if c.shape.future or c.shape.present:
        return (future if c.shape.future else present) + "n" * c.plural
    return plural if c.plural else singular


def _alone(c: Clause) -> str:
    (part,) = c.shape.extras
    if part == "number":
        return cldr.number("es", c.number)
    if part == "ordinal":
        return _ordinal(c.number)
    if part == "time":
        time = _time(c.shape.time, c.time)
        return time.removeprefix("el ") if c.shape.time in ("weekday", "day") else time
    return _things(c) if part == "things" else amount(*c.measure)


def _ordinal(value: int) -> str:
    """Return an ordinal in the masculine; num2words has none from 11 to 19 that the Academy knows."""
    if not 11 <= value <= 19:
        return cldr.number("es", value, "ordinal")
    return {11: "undécimo", 12: "duodécimo"}.get(value) or "decimo" + cldr.number("es", value - 10, "ordinal").replace("oct", "ct")


@lru_cache(maxsize=100_000)
def _number(value: int, feminine: bool) -> str:
    """A number before its noun: veintiún libros, veintiuna sillas, doscientas sillas."""
    words = cldr.number("es", value)
    if feminine:
        words = words.replace("cientos", "cientas").replace("quinientos", "quinientas")
        head = words[: -len("uno")] if words.endswith("uno") else ""
        return head + "una" if head or words == "uno" else words
    words = words.replace("veintiuno", "veintiún")
    return words[:-1] if words.endswith(" uno") else words


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
    if kind in ("weekday", "day"):
        return " ".join(["el", cldr.weekday("es", values[0]), *(f"por la {_PARTS[part]}" for part in values[1:])])
    if kind == "year":
        return "en " + cldr.number("es", values[0])
    date = f"el {cldr.number('es', values[0])} de {cldr.month('es', values[1])}"
    return date if kind == "date" else f"{date} de {cldr.number('es', values[2])}"
