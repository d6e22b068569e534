"""English: the verb has few forms, and a year is read in pairs of digits."""

from __future__ import annotations

from jaxnmt.data.phrases import cldr
from jaxnmt.data.phrases.grammar import Language


class English(Language):
    code = "en"

    def day(self, value: int) -> str:
        return self.ordinal(value)

    def year(self, value: int) -> str:
        return cldr.number(self.code, value, "year")

    def clock(self, hour: int, minute: int) -> str:
        words = {15: "a quarter", 30: "half", 45: "a quarter"}
        if minute == 0:
            return f"{self.cardinal(hour)} o'clock"
        if minute <= 30:
            return f"{words.get(minute) or self.cardinal(minute)} past {self.cardinal(hour)}"
        return f"{words.get(minute) or self.cardinal(60 - minute)} to {self.cardinal(hour % 12 + 1)}"
