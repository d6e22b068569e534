"""Words from libraries: numbers from num2words; months, days, places, units and currencies from CLDR (Babel)."""

from __future__ import annotations

from functools import cache, lru_cache

# What num2words writes for whole thousands, and the correct form.
_CORRECTIONS = {"de": (("einstausend", "eintausend"),), "es": (("veintiuno mil", "veintiún mil"), ("uno mil", "un mil"))}


@cache
def _locale(language: str):
    from babel import Locale  # imported late: training on files needs no Babel

    return Locale(language)


@lru_cache(maxsize=100_000)
def number(language: str, value: int, form: str = "cardinal") -> str:
    """Return a number in words; `form` is num2words's: cardinal, ordinal or year."""
    from num2words import num2words

    words = num2words(value, lang=language, to=form).replace(",", "")
    for wrong, right in _CORRECTIONS.get(language, ()):
        words = words.replace(wrong, right)
    return words


@cache
def month(language: str, value: int) -> str:
    """Return the name of month 1 to 12, in the form used beside a day."""
    return _locale(language).months["format"]["wide"][value]


@cache
def weekday(language: str, value: int) -> str:
    """Return the name of weekday 0 (Monday) to 6."""
    return _locale(language).days["format"]["wide"][value]


@cache
def place(language: str, key: str) -> str:
    """Return a country by its territory code, or a city by its time zone."""
    if "/" not in key:
        return _locale(language).territories[key]
    # CLDR names a zone's city only where it differs from the zone's own name.
    return (_locale(language).time_zones.get(key) or {}).get("city", key.split("/")[1])


@cache
def unit(language: str, noun: str) -> str:
    """Return the plural of a unit, "kilometer" or one of `meaning.UNITS`, without its number."""
    from babel.units import format_unit

    key = "length-kilometer" if noun == "kilometer" else f"duration-{noun}"
    text = format_unit(12, key, "long", locale=_locale(language))
    if key in text:  # CLDR omits the long form if it equals the short one
        text = format_unit(12, key, "short", locale=_locale(language))
    return text.replace("12", "").strip()


@cache
def currency(language: str, code: str) -> str:
    """Return the plural name of a currency."""
    from babel.numbers import get_currency_name

    return get_currency_name(code, count=12, locale=_locale(language))
