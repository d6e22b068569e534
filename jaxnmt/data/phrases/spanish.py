"""Spanish: numerals agree in gender, most adjectives follow their noun, the hour has an article."""

from __future__ import annotations

from jaxnmt.data.phrases.grammar import Language
from jaxnmt.data.phrases.meaning import Clause


class Spanish(Language):
    code = "es"

    def clause(self, c: Clause, join: str = "") -> str:
        text = super().clause(c, join)
        return text.replace("son la ", "es la ") if c.form.frame == "clock" else text

    def ordinal(self, value: int) -> str:
        """Return an ordinal in the masculine; num2words does not follow the Academy from 11 to 19."""
        if not 11 <= value <= 19:
            return super().ordinal(value)
        return {11: "undécimo", 12: "duodécimo"}.get(value) or "decimo" + super().ordinal(value - 10).replace("oct", "ct")

    def count(self, value: int, feminine: bool) -> str:
        """Return a number before its noun: veintiún libros, veintiuna sillas, doscientas sillas."""
        words = self.cardinal(value)
        if feminine:
            words = words.replace("cientos", "cientas").replace("quinientos", "quinientas")
            head = words[: -len("uno")] if words.endswith("uno") else ""
            return head + "una" if head or words == "uno" else words
        words = words.replace("veintiuno", "veintiún")
        return words[:-1] if words.endswith(" uno") else words

    def clock(self, hour: int, minute: int) -> str:
        past = minute <= 30
        hour = hour if past else hour % 12 + 1
        text = "la una" if hour == 1 else f"las {self.cardinal(hour)}"
        special = {0: "", 15: " y cuarto", 30: " y media", 45: " menos cuarto"}
        return text + special.get(minute, f" y {self.cardinal(minute)}" if past else f" menos {self.cardinal(60 - minute)}")
