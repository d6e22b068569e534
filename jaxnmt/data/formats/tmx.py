"""Translation memories, TMX 1.4: https://www.gala-global.org/tmx-14b

Segments are read as Level 1: inline tags are left out, and so are the codes inside them.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Generator, Iterator

from jaxnmt.data.formats.units import LONGEST, Entry, Reader
from jaxnmt.data.language_codes import same_language
from jaxnmt.errors import UserError
from jaxnmt.io.text import open_binary
from jaxnmt.io.xml import Event, events

MOST_VARIANTS = 1000
"""The most segments of a unit: one for each language."""
_LONGEST_UNIT = 4 * LONGEST
"""The most characters of a unit in all its languages."""
_CODES = frozenset(("bpt", "ept", "it", "ph", "ut"))
"""Inline elements whose text is code of the document."""


class Tmx(Reader):
    """The translation units that have a segment in both languages."""

    def languages(self) -> tuple[str, str]:
        """Return the requested languages. Otherwise take them from the first unit that has two, the requested one among them.

        Raises:
            UserError: no unit has two such languages.
        """
        source, target = self.request.languages
        if source and target:
            return source, target
        wanted, unit = source or target, None
        with contextlib.closing(self._units()) as units:
            for unit in units:
                codes = dict.fromkeys(code for code, _ in unit[1] if code)
                others = [code for code in codes if not wanted or not same_language(wanted, code)]
                if others and (len(others) < len(codes) if wanted else len(others) >= 2):
                    return source or others.pop(0), target or others.pop(0)
        if unit is None:
            return source, target
        among = f", one of them {wanted}" if wanted else ""
        raise UserError(f"{self.request.where} has no unit in two languages{among}: set data.source_language and data.target_language")

    def entries(self, languages: tuple[str, str]) -> Iterator[Entry]:
        without = f"without {' or '.join(languages)}"
        for line, variants in self._units():
            sides = [next((text for code, text in variants if same_language(language, code)), "") for language in languages]
            source, target = (side.strip() for side in sides)
            yield Entry(f":{line}", source.encode(), target.encode(), "" if source and target else without)

    def _units(self) -> Generator[tuple[int, list[tuple[str, str]]]]:
        """Yield each unit's line, and its languages with their texts."""
        request = self.request
        with open_binary(self.files[0], request.field) as file:
            found = events(file, request.name, request.field)
            root = next(found)
            if root.name != "tmx":
                raise UserError(f"{request.where}:{root.line} is not TMX: its first element is {root.name}")
            for event in found:
                if event.kind == "start" and event.name == "tu":
                    variants = list(itertools.islice(self._variants(found), MOST_VARIANTS))
                    if len(variants) == MOST_VARIANTS:
                        raise UserError(f"{request.where}:{event.line}: a unit has {MOST_VARIANTS:,} segments or more: the file is damaged")
                    yield event.line, variants

    def _variants(self, found: Iterator[Event]) -> Iterator[tuple[str, str]]:
        """Yield language and text of each variant, to the end of the unit."""
        language, length = "", 0
        for event in found:
            if event.kind == "start" and event.name == "tuv":
                language = event.attributes.get("xml:lang") or event.attributes.get("lang", "")
            elif event.kind == "start" and event.name == "seg":
                text = text_of(found, "seg", _CODES, f"{self.request.where}:{event.line}")
                length += len(language) + len(text)
                if length > _LONGEST_UNIT:
                    raise UserError(
                        f"{self.request.where}:{event.line}: a unit has more than {_LONGEST_UNIT:,} characters: the file is damaged"
                    )
                yield language, text
            elif event.kind == "end" and event.name == "tu":
                return


def text_of(found: Iterator[Event], name: str, codes: frozenset[str], where: str) -> str:
    """Return the text up to the end of an element whose start tag has been read, without that of code elements.

    Args:
        name: of the element.
        codes: names of the elements whose text is left out.
        where: file and line, for messages.

    Raises:
        UserError: the text is longer than `LONGEST`.
    """
    texts, length, depth, inside = list[str](), 0, 0, 0
    for event in found:
        if event.kind == "start":
            depth += 1
            inside += event.name in codes
        elif event.kind == "end" and not depth:
            return "".join(texts)
        elif event.kind == "end":
            depth -= 1
            inside -= event.name in codes
        elif not inside:
            texts.append(event.name)
            length += len(event.name)
            if length > LONGEST:
                raise UserError(f"{where}: {name} has more than {LONGEST:,} characters: the file is damaged, or it has no sentences")
    return "".join(texts)
