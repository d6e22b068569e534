"""XLIFF 1.2 and 2: https://docs.oasis-open.org/xliff/v1.2/os/xliff-core.html, https://docs.oasis-open.org/xliff/xliff-core/v2.1/"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator

from jaxnmt.data.formats.tmx import text_of
from jaxnmt.data.formats.units import Entry, Reader
from jaxnmt.data.language_codes import in_order
from jaxnmt.errors import UserError
from jaxnmt.io.text import open_binary
from jaxnmt.io.xml import Event, events

CODES = frozenset(("bpt", "ept", "it", "ph"))
"""Inline elements whose text is code of the document."""
UNITS = frozenset(("trans-unit", "segment"))
"""The parents of a source and its target, of version 1.2 and of version 2."""


class Xliff(Reader):
    """The units that have a target which is not marked as new, initial or in need of work."""

    def languages(self) -> tuple[str, str]:
        """Return the requested languages; if one is not requested, that of the file.

        Raises:
            UserError: the file is of other languages.
        """
        with contextlib.closing(self._units()) as units:
            found, *_ = next(units, (("", ""),))
        order, wanted = in_order(self.request.languages, found), self.request.languages
        if order is None:
            raise UserError(f"{self.request.where} is of the languages {' and '.join(found)}, not {' and '.join(filter(None, wanted))}")
        source, target = found[::order]
        return wanted[0] or source, wanted[1] or target

    def entries(self, languages: tuple[str, str]) -> Iterator[Entry]:
        for found, line, sides, state in self._units():
            source, target = (sides.get(side, "").strip() for side in ("source", "target"))
            order = in_order(languages, found)
            left_out = "of other languages" if order is None else "" if source and target else "untranslated"
            if is_unfinished(state):
                left_out = left_out or "not final"
            if order == -1:
                source, target = target, source
            yield Entry(f":{line}", source.encode(), target.encode(), left_out)

    def _units(self) -> Generator[tuple[tuple[str, str], int, dict[str, str], str]]:
        """Yield the languages of each unit, its line, the texts of its sides, and the state of its target."""
        request, languages = self.request, ("", "")
        with open_binary(self.files[0], request.field) as file:
            found = events(file, request.name, request.field)
            root = next(found)
            if root.name != "xliff":
                raise UserError(f"{request.where}:{root.line} is not XLIFF: its first element is {root.name}")
            languages = languages_of(root, languages)
            for event in found:
                if event.kind == "start":
                    languages = languages_of(event, languages)
                    if event.name in UNITS:
                        yield languages, event.line, *self._sides(found, event)

    def _sides(self, found: Iterator[Event], unit: Event) -> tuple[dict[str, str], str]:
        """Return the texts of a unit's source and target, and the target's state."""
        sides, state, depth = dict[str, str](), unit.attributes.get("state", ""), 0
        for event in found:
            if event.kind == "start" and not depth and event.name in ("source", "target"):
                sides[event.name] = text_of(found, event.name, CODES, f"{self.request.where}:{event.line}")
                state = event.attributes.get("state", state)
            elif event.kind == "start":
                depth += 1  # inside it may be other sources and targets: proposals, notes, extensions
            elif event.kind == "end":
                if not depth:
                    break
                depth -= 1
        return sides, state


def languages_of(event: Event, before: tuple[str, str]) -> tuple[str, str]:
    """Return the languages after a start tag: `<file>` has them in version 1.2, `<xliff>` in version 2."""
    if event.name == "file" and "source-language" in event.attributes:
        return event.attributes["source-language"], event.attributes.get("target-language", "")
    if event.name == "xliff":
        return event.attributes.get("srcLang", ""), event.attributes.get("trgLang", "")
    return before


def is_unfinished(state: str) -> bool:
    """Return whether a target of this state is not a translation to learn from."""
    return state in ("new", "initial") or state.startswith("needs-")
