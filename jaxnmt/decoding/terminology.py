"""A terminology: source phrases and the target phrases that must translate them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from jaxnmt.errors import UserError
from jaxnmt.io.text import read_lines

LETTER = r"[^\W\u3040-\u30ff\u3400-\u9fff]"
"""A character of a word, in scripts that are written with spaces."""
# Words, punctuation marks, and the characters of scripts that are written without spaces, one by one.
_UNITS = re.compile(rf"[\u3040-\u30ff\u3400-\u9fff]|{LETTER}+|[^\w\s]")


class Terminology:
    """Constraints for sentences that contain terms.

    Args:
        terms: for each source phrase, the target phrases of which one must occur, as a constraint writes them: `a|b`.
    """

    def __init__(self, terms: Mapping[str, str]) -> None:
        self._terms = {_units(source): target for source, target in terms.items()}
        self._longest = max(map(len, self._terms), default=0)

    def translation(self, phrase: str) -> str:
        """Return the first target phrase of a source phrase; "" if it is no term."""
        return self._terms.get(_units(phrase), "").split("|")[0]

    def constraints(self, sentence: str) -> list[str]:
        """Return the target phrases of the terms in a sentence, in its order, each once.

        A term matches whole words, letter by letter. Of terms that overlap, the one that begins first counts; of these, the longest.
        """
        units, start = _units(sentence), 0
        found: list[str] = []
        while start < len(units):
            ends = range(min(start + self._longest, len(units)), start, -1)
            end = next((end for end in ends if units[start:end] in self._terms), None)
            if end:
                found.append(self._terms[units[start:end]])
            start = end or start + 1
        return list(dict.fromkeys(found))


def read_terminology(name: str, field: str = "--terminology") -> Terminology:
    """Read a file of lines `source phrase TAB target phrase`, with `|` between alternatives; empty lines are skipped.

    A source phrase that occurs twice has the alternatives of both lines.

    Raises:
        UserError: the file cannot be read, or a line is not such a pair.
    """
    terms: dict[str, str] = {}
    for number, line in enumerate(read_lines(name, field), 1):
        if not line.strip():
            continue
        source, *targets = (cell.strip() for cell in line.removeprefix("\ufeff").split("\t"))
        if len(targets) != 1 or not _units(source) or not all(map(str.strip, targets[0].split("|"))):
            raise UserError(
                f"{field}: {name}, line {number} is not `source phrase TAB target phrase` with `|` between alternatives: {line!r}"
            )
        terms[source] = f"{terms[source]}|{targets[0]}" if source in terms else targets[0]
    return Terminology(terms)


def _units(text: str) -> tuple[str, ...]:
    return tuple(_UNITS.findall(unicodedata.normalize("NFC", text)))
