"""Turkish: the verb comes last, cases are suffixes in vowel harmony, subordinate clauses are verbal nouns before the main clause."""

from __future__ import annotations

from functools import cache, lru_cache

from jaxnmt.data.phrases.grammar import Language
from jaxnmt.data.phrases.meaning import Clause

_VOWELS = "aıoueiöü"
_HIGH = {"a": "ı", "ı": "ı", "o": "u", "u": "u", "e": "i", "i": "i", "ö": "ü", "ü": "ü"}
_CASES = {"in": "DA", "to": "(y)A", "from": "DAn"}


class Turkish(Language):
    def parts(self, c: Clause, join: str) -> dict[str, str]:
        """Return the parts of a clause; a price is in the dative, and the subject of a reported clause in the genitive."""
        frame, parts = c.form.frame, super().parts(c, join)
        subject = {"cost": parts["things"], "population": f"{parts['people']} kişi"}.get(frame, parts["subject"])
        if parts["money"] and frame not in ("cost", "alone"):
            # All currencies but the euro are compounds with a possessive ending, which takes n before a case.
            parts["money"] += suffix(parts["money"], "(y)A" if c.values["money"][1] == "EUR" else "nA")
        return parts | {"subject": _genitive(subject) if join == "that" and subject else subject}

    def verb(self, c: Clause, join: str) -> str:
        """Return the verb, or the verbal noun of what is reported ("that") or of the time of something else ("when")."""
        if present := self.words["present"].get(c.form.frame):
            return present[join == "that"]
        stem = self.words["verbs"].get(c.form.frame, "")
        return stem and _conjugate(stem, c.form.future, c.form.present, join if join in ("that", "when") else "")

    def place(self, key: str, role: str) -> str:
        """Return a proper name and its case: Paris'te, Roma'ya, Londra'dan."""
        return f"{self.name(key)}'{suffix(self.name(key), _CASES[role])}"

    def time_words(self, kind: str, values: tuple[int, ...]) -> dict[str, str]:
        if kind == "clock":
            return {"clock": self.clock(*values, at=True)}
        words = super().time_words(kind, values)
        if kind == "weekday":
            words["weekday"] = words["weekday"].lower()
        elif "month" in words:
            words["month_in"] = f"{words['month']}'{suffix(words['month'], 'DA')}"
        return words

    def clock(self, hour: int, minute: int, at: bool = False) -> str:
        """Return the hour: saat üç buçuk, saat üçü on geçiyor; with `at` as a time: saat üç buçukta, saat üçü on geçe."""
        past = minute <= 30
        name = self.number(hour if past else hour % 12 + 1)
        if minute in (0, 30):
            words = name + (" buçuk" if minute else "")
            return f"saat {words}" + (suffix(words, "DA") if at else "")
        count = "çeyrek" if minute in (15, 45) else self.number(minute if past else 60 - minute)
        stem = name[:-1] + "d" if name == "dört" else name  # dördü, dörde
        if past:
            return f"saat {stem}{suffix(stem, '(y)I')} {count} {'geçe' if at else 'geçiyor'}"
        return f"saat {stem}{suffix(stem, '(y)A')} {count} {'kala' if at else 'var'}"


@lru_cache(maxsize=10_000)
def suffix(word: str, pattern: str) -> str:
    """Return a suffix fitted to a word: A is a or e, I is ı, i, u or ü, D is d or t, and a letter in brackets follows a vowel only."""
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


@cache
def _conjugate(stem: str, future: bool, present: bool, role: str) -> str:
    if future or present:
        stem = stem[:-1] + "d" if stem.endswith(("et", "git")) else stem  # et-, git- soften before a vowel
        if present:
            stem = stem.rstrip("ae") if stem[-1] in "ae" else stem  # bekle-, yaşa- lose their vowel
            return stem + suffix(stem, "Iyor")
        return stem + suffix(stem, "(y)AcAğInI" if role == "that" else "(y)AcAk")
    return stem + suffix(stem, {"": "DI", "that": "DIğInI", "when": "DIğIndA"}[role])


def _genitive(noun: str) -> str:
    if noun.endswith(("k", "p")):  # kitap, gömlek: all nouns of the corpus soften
        noun = noun[:-1] + {"k": "ğ", "p": "b"}[noun[-1]]
    return noun + suffix(noun, "(n)In")
