"""German: the finite verb is second in main clauses and last in subordinate ones; time before place before object."""

from __future__ import annotations

from jaxnmt.data.phrases import cldr
from jaxnmt.data.phrases.grammar import Language
from jaxnmt.data.phrases.meaning import Clause


class German(Language):
    code = "de"

    def parts(self, c: Clause, join: str) -> dict[str, str]:
        """Return the parts of a clause; "hat gekauft" is split into the finite verb and what ends a main clause."""
        parts = super().parts(c, join)
        finite, _, end = parts["verb"].partition(" ")
        return parts | {"finite": finite, "end": end}

    def day(self, value: int) -> str:
        return self.ordinal(value)

    def year(self, value: int) -> str:
        return cldr.number(self.code, value, "year")

    def clock(self, hour: int, minute: int) -> str:
        words = {15: "Viertel", 45: "Viertel"}
        after = self.cardinal(hour % 12 + 1)
        if minute == 0:
            return f"{'ein' if hour == 1 else self.cardinal(hour)} Uhr"
        if minute < 30:
            return f"{words.get(minute) or self.cardinal(minute)} nach {self.cardinal(hour)}"
        return f"halb {after}" if minute == 30 else f"{words.get(minute) or self.cardinal(60 - minute)} vor {after}"
