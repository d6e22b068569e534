"""Phrases in Turkish: the verb last, cases as suffixes in vowel harmony, subordinate clauses as verbal nouns before the main one."""

from __future__ import annotations

from functools import lru_cache

from jaxnmt.data.phrases import cldr
from jaxnmt.data.phrases.meaning import Clause, Meaning

_WHO = {"sister": "kız kardeşim", "brother": "erkek kardeşim", "doctor": "doktor", "teacher": "öğretmen", "neighbor": "komşumuz"}
_WHO |= {"baker": "fırıncı", "farmer": "çiftçi", "pilot": "pilot", "queen": "kraliçe", "actress": "aktris", "engineer": "mühendis"}
_WHO |= {"grandmother": "büyükannem", "children": "çocuklar", "parents": "annemle babam", "friends": "arkadaşlarımız"}
_WHO |= {"students": "öğrenciler", "musicians": "müzisyenler", "women": "kadınlar", "aunts": "teyzelerim"}
_THINGS = {"book": "kitap", "chair": "sandalye", "table": "masa", "lamp": "lamba", "shirt": "gömlek", "hat": "şapka", "bag": "çanta"}
_THINGS |= {"bicycle": "bisiklet", "umbrella": "şemsiye", "glass": "bardak", "box": "kutu", "flower": "çiçek", "suitcase": "bavul"}
_THINGS |= {"picture": "tablo", "letter": "mektup"}
_ADJECTIVES = {"red": "kırmızı", "blue": "mavi", "green": "yeşil", "white": "beyaz", "black": "siyah", "yellow": "sarı"}
_ADJECTIVES |= {"new": "yeni", "big": "büyük", "small": "küçük"}
_VERBS = {"buy": "satın al", "sell": "sat", "find": "bul", "lose": "kaybet", "repair": "tamir et", "arrive": "var", "stay": "kal"}
_VERBS |= {"work": "çalış", "wait": "bekle", "live": "yaşa", "travel": "git", "be born": "doğ"}
# present, and the same as a verbal noun
_PRESENT = {"leave": ("kalkıyor", "kalktığını"), "begin": ("başlıyor", "başladığını"), "last": ("sürüyor", "sürdüğünü")}
_PRESENT |= {"cost": ("tutuyor", "tuttuğunu"), "distance": ("var", "olduğunu"), "population": ("yaşıyor", "yaşadığını")}
_REPORTS = {"say": "söylüyor", "know": "biliyor", "write": "yazıyor"}
_MEANS = {"train": "trenle", "bus": "otobüsle", "car": "arabayla", "ship": "gemiyle", "plane": "uçakla"}
_VEHICLES = {"train": "tren", "bus": "otobüs", "ship": "gemi"}
_EVENTS = {"concert": "konser", "meeting": "toplantı", "film": "film", "course": "kurs", "exam": "sınav", "party": "parti"}
_PARTS = ("sabahı", "öğleden sonra", "akşamı")
_JOINS = {"and": " ve ", "but": ", ama ", "because": ", çünkü ", "while": ", oysa "}
_VOWELS = "aıoueiöü"
_HIGH = {"a": "ı", "ı": "ı", "o": "u", "u": "u", "e": "i", "i": "i", "ö": "ü", "ü": "ü"}


def sentence(meaning: Meaning) -> str:
    """Return the whole sentence, with capital and full stop if it has them."""
    clauses = list(meaning.clauses)
    joins = list(meaning.joins)
    text = clause(clauses[0], "that" if meaning.report else "")
    if meaning.report:
        text = f"{_WHO[meaning.reporter]}, {text} {_REPORTS[meaning.report]}"
    for join, following in zip(joins, clauses[1:], strict=True):
        text = f"{clause(following, 'when')} {text}" if join == "when" else text + _JOINS[join] + clause(following)
    return meaning.written(text, "İ" if text[0] == "i" else text[0].upper())


def clause(c: Clause, role: str = "") -> str:
    """Return one clause: a main one, what somebody says (role "that"), or the time of another (role "when")."""
    frame = c.shape.frame
    if frame == "alone":
        return _alone(c)
    if frame == "clock":
        return _clock(c.time[0], c.time[1], at=False)
    subject, verb = _subject(c), _verb(c, role)
    if role == "that" and subject:
        subject = _genitive(subject)
    time = _time(c.shape.time, c.time) if c.time else ""
    place = _case(c.place, "(y)A" if frame == "arrive" else "DA") if c.place else ""
    rest = [f"{amount(*c.duration)}{' boyunca' if frame != 'last' else ''}"] if c.duration[0] else []
    rest += [_MEANS[c.means]] if c.means else []
    rest += [_route(c)] if c.route[0] and frame != "leave" else []
    rest += [amount(c.kilometers, "kilometer")] if c.kilometers else []
    rest += [amount(*c.money, dative=frame != "cost")] if c.money[0] else []
    rest += [_things(c)] if c.things[0] and frame != "cost" else []
    start = [place, subject] if frame == "population" else [time, subject, place] if c.shape.fronted else [subject, time, place]
    return " ".join(filter(None, [*start, *rest, verb]))


def _subject(c: Clause) -> str:
    frame = c.shape.frame
    if frame == "leave":
        return (f"{_route(c)} giden " if c.route[0] else "") + _VEHICLES[c.who]
    if frame == "cost":
        return _things(c)
    if frame == "population":
        return f"{_number(c.people)} kişi"
    return (_WHO | _EVENTS).get(c.who, "")


@lru_cache(maxsize=10_000)
def _conjugate(frame: str, future: bool, present: bool, role: str) -> str:
    if frame in _PRESENT:
        return _PRESENT[frame][role == "that"]
    stem = _VERBS[frame]
    if future or present:
        stem = stem[:-1] + "d" if stem.endswith(("et", "git")) else stem  # et-, git- soften before a vowel
        if present:
            stem = stem.rstrip("ae") if stem[-1] in "ae" else stem  # bekle-, yaşa- lose their vowel
            return stem + suffix(stem, "Iyor")
        return stem + suffix(stem, "(y)AcAğInI" if role == "that" else "(y)AcAk")
    return stem + suffix(stem, {"": "DI", "that": "DIğInI", "when": "DIğIndA"}[role])


def _verb(c: Clause, role: str) -> str:
    return _conjugate(c.shape.frame, c.shape.future, c.shape.present, role)


def _alone(c: Clause) -> str:
    (part,) = c.shape.extras
    if part == "number":
        return _number(c.number)
    if part == "ordinal":
        return _ordinal(c.number)
    if part == "time":
        return _time(c.shape.time, c.time, alone=True)
    return _things(c) if part == "things" else amount(*c.measure)


@lru_cache(maxsize=10_000)
def suffix(word: str, pattern: str) -> str:
    """A suffix fitted to a word: A is a or e, I is ı, i, u or ü, D is d or t, and a letter in brackets follows a vowel only."""
    text = word.lower()
    if pattern.startswith("("):
        pattern = pattern[1] + pattern[3:] if text[-1] in _VOWELS else pattern[3:]
    for letter in pattern:
        last = next(c for c in reversed(text) if c in _VOWELS)
        if letter == "A":
            letter = "a" if last in "aıou" else "e"
        elif letter == "I":
            letter = _HIGH[last]
        elif letter == "D":
            letter = "t" if text[-1] in "fstkçşhp" else "d"
        text += letter
    return text[len(word.lower()) :]


def _genitive(noun: str) -> str:
    if noun.endswith(("k", "p")):  # kitap, gömlek: all of ours soften
        noun = noun[:-1] + {"k": "ğ", "p": "b"}[noun[-1]]
    return noun + suffix(noun, "(n)In")


@lru_cache(maxsize=10_000)
def _case(place: str, pattern: str) -> str:
    """A proper name and its case: Paris'te, Roma'ya, Londra'dan."""
    name = cldr.place("tr", place)
    return f"{name}'{suffix(name, pattern)}"


def _route(c: Clause) -> str:
    return f"{_case(c.route[0], 'DAn')} {_case(c.route[1], '(y)A')}"


@lru_cache(maxsize=100_000)
def _number(value: int) -> str:
    """A number as separate words (num2words writes them as one), as the dictionary asks: üç yüz kırk beş."""
    if value == 0:
        return cldr.number("tr", 0)
    thousands, rest = divmod(value, 1000)
    hundreds, rest = divmod(rest, 100)
    words = ([_number(thousands)] if thousands > 1 else []) + ([cldr.number("tr", 1000)] if thousands else [])
    words += ([cldr.number("tr", hundreds)] if hundreds > 1 else []) + ([cldr.number("tr", 100)] if hundreds else [])
    return " ".join(words + [cldr.number("tr", part) for part in (rest - rest % 10, rest % 10) if part])


def _ordinal(value: int) -> str:
    words = _number(value)
    words = words[:-1] + "d" if words.endswith("dört") else words  # dördüncü
    return words + suffix(words, "ncI" if words[-1] in _VOWELS else "IncI")


@lru_cache(maxsize=100_000)
def amount(number: int, noun: str, dative: bool = False) -> str:
    """A number and a unit or currency, in the singular as Turkish counts; as a price in the dative."""
    if not noun.isupper():
        return f"{_number(number)} {cldr.unit('tr', 'length-kilometer' if noun == 'kilometer' else f'duration-{noun}')}"
    name = "euro" if noun == "EUR" else cldr.currency("tr", noun)
    # All but the euro are compounds with a possessive ending, which takes n before a case.
    ending = suffix(name, "(y)A" if noun == "EUR" else "nA") if dative else ""
    return f"{_number(number)} {name}{ending}"


def _things(c: Clause) -> str:
    number, thing, adjective = c.things
    return " ".join(filter(None, (_number(number), _ADJECTIVES.get(adjective, ""), _THINGS[thing])))


def _clock(hour: int, minute: int, at: bool) -> str:
    """The hour: saat üç buçuk, saat üçü on geçiyor; as a time: saat üç buçukta, saat üçü on geçe."""
    past = minute <= 30
    name = _number(hour if past else hour % 12 + 1)
    if minute in (0, 30):
        words = name + (" buçuk" if minute else "")
        return f"saat {words}" + (suffix(words, "DA") if at else "")
    count = "çeyrek" if minute in (15, 45) else _number(minute if past else 60 - minute)
    stem = name[:-1] + "d" if name == "dört" else name  # dördü, dörde
    if past:
        return f"saat {stem}{suffix(stem, '(y)I')} {count} {'geçe' if at else 'geçiyor'}"
    return f"saat {stem}{suffix(stem, '(y)A')} {count} {'kala' if at else 'var'}"


@lru_cache(maxsize=100_000)
def _time(kind: str, values: tuple[int, ...], alone: bool = False) -> str:
    """Return when something happens; a date that stands alone has no case."""
    if kind == "clock":
        return _clock(values[0], values[1], at=True)
    if kind in ("weekday", "day"):
        return " ".join([cldr.weekday("tr", values[0]).lower(), *(_PARTS[part] for part in values[1:])])
    if kind == "year":
        return f"{_number(values[0])} yılında"
    month = cldr.month("tr", values[1])
    if kind == "date":
        return f"{_number(values[0])} {month}" + ("" if alone else f"'{suffix(month, 'DA')}")
    return f"{_number(values[0])} {month} {_number(values[2])}" + ("" if alone else " tarihinde")
