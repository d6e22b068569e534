"""Words from CLDR (Babel): months, days, places, units and currencies."""

from __future__ import annotations

from functools import cache


@cache
def _locale(language: str):
    from babel import Locale  # imported late: training on files needs no Babel

    return Locale(language)


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
def measure(language: str, noun: str) -> str:
    """Return the plural of a currency (by its code) or of a unit, "kilometer" or one of `meaning.UNITS`, without its number."""
    from babel import numbers, units

    if noun.isupper():
        return numbers.get_currency_name(noun, count=12, locale=_locale(language))
    key = "length-kilometer" if noun == "kilometer" else f"duration-{noun}"
    text = units.format_unit(12, key, "long", locale=_locale(language))
    if key in text:  # CLDR omits the long form if it equals the short one
        text = units.format_unit(12, key, "short", locale=_locale(language))
    return text.replace("12", "").strip()
