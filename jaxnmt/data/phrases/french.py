"""French: gender and number agree, most adjectives follow their noun, "de" and "que" elide."""

from __future__ import annotations

from jaxnmt.data.phrases.grammar import Language


class French(Language):
    code = "fr"

    def joined(self, before: str, join: str, clause: str) -> str:
        return _elide(before + self.words["joins"][join], clause)

    def place(self, key: str, role: str) -> str:
        text = super().place(key, role)
        return _elide("de ", text[3:]) if text.startswith("de ") else text

    def count(self, value: int, feminine: bool) -> str:
        words = self.cardinal(value)
        return words + "e" if feminine and words.endswith("un") else words

    def day(self, value: int) -> str:
        return "premier" if value == 1 else self.cardinal(value)

    def year(self, value: int) -> str:
        """Return a year, which takes no plural s: mille neuf cent, mille neuf cent quatre-vingt."""
        words = self.cardinal(value)
        return words.removesuffix("s") if words.endswith(("cents", "vingts")) else words

    def clock(self, hour: int, minute: int) -> str:
        past = minute <= 30
        hour = hour if past else hour % 12 + 1
        text = f"{self.count(hour, True)} {'heure' if hour == 1 else 'heures'}"
        special = {0: "", 15: " et quart", 30: " et demie", 45: " moins le quart"}
        return text + special.get(minute, f" {self.cardinal(minute)}" if past else f" moins {self.cardinal(60 - minute)}")


def _elide(before: str, after: str) -> str:
    """Join two pieces of text: "que il" becomes "qu'il", "de Italie" d'Italie; "onze" and "huit" resist."""
    if before.endswith(("de ", "que ")) and after[0].lower() in "aeiouéè" and not after.startswith("onze"):
        return before[:-2] + "'" + after
    return before + after
