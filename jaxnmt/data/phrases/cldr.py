"""Words that we need not write ourselves: numbers from num2words; months, days, places, units and currencies from CLDR (Babel)."""

from __future__ import annotations

from functools import cache, lru_cache

# What num2words says of whole thousands, and what the languages do.
_CORRECTIONS = {"de": (("einstausend", "eintausend"),), "es": (("veintiuno mil", "veintiún mil"), ("uno mil", "un mil"))}


@cache
def _locale(language: str):
    from babel import Locale  # lazy: who trains on files needs no Babel

    return Locale(language)


@lru_cache(maxsize=100_000)
def number(language: str, value: int, form: str = "cardinal") -> str:
    """A number in words; `form` is num2words's: cardinal, ordinal or year."""
    from num2words import num2words

    words = num2words(value, lang=language, to=form).replace(",", "")
    for wrong, right in _CORRECTIONS.get(language, ()):
        words = words.replace(wrong, right)
    return words


@cache
def month(language: str, value: int) -> str:
    """The name of month 1 to 12, as it stands beside a day."""
    return _locale(language).months["format"]["wide"][value]


@cache
def weekday(language: str, value: int) -> str:
    """The name of day 0 (Monday) to 6."""
    return _locale(language).days["format"]["wide"][value]


@cache
def place(language: str, key: str) -> str:
    """A country by its territory code, or a city by its time zone."""
    if "/" not in key:
        return _locale(language).territories[key]
    # CLDR names a zone's city only where it differs from the zone's own name.
    return (_locale(language).time_zones.get(key) or {}).get("city", key.split("/")[1])


@cache
def unit(language: str, key: str) -> str:
    """The plural of a unit such as duration-week or length-kilometer, without its number."""
    from babel.units import format_unit

    text = format_unit(12, key, "long", locale=_locale(language))
    if key in text:  # CLDR leaves out the long form where the short one is the same word
        text = format_unit(12, key, "short", locale=_locale(language))
    return text.replace("12", "").strip()


@cache
def currency(language: str, code: str) -> str:
    """The plural name of a currency."""
    from babel.numbers import get_currency_name

    return get_currency_name(code, count=12, locale=_locale(language))
