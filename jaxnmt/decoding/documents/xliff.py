"""XLIFF 1.2 and 2: translations are written as targets, whose state says that a machine made them."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from xml.sax.saxutils import quoteattr

from jaxnmt.data.formats.xliff import CODES, UNITS, languages_of
from jaxnmt.data.language_codes import in_order
from jaxnmt.decoding.documents.document import Document, Tags, decoded, has_words
from jaxnmt.errors import UserError
from jaxnmt.io.text import normalise
from jaxnmt.io.xml import Event, events

_TAG = re.compile(rb"""<(?:[^"'<>]|"[^"]*"|'[^']*')*>""")
_ENCODING = re.compile(rb"""(?:\xef\xbb\xbf)?<\?xml[^>]*encoding\s*=\s*["']([\w.-]+)""")
_UNTRANSLATED = ("new", "needs-translation", "initial")
"""States of targets that stand for a missing translation."""


class _Unit(NamedTuple):
    """A unit to translate.

    Attributes:
        source: its source's start tag.
        before, after: spaces at the ends of the source.
        start, end: where the target belongs, or where it is.
        target: its start tag, or None.
        segment: the start tag of the unit.
    """

    source: Event
    tags: Tags
    before: str
    after: str
    start: int
    end: int
    target: Event | None
    segment: Event


class Xliff(Document):
    """An XLIFF file. Inline tags are carried over, native codes stay as they are, and so do units with translate="no"."""

    format = "html"

    def __init__(self, data: bytes, where: str, overwrite: bool, languages: tuple[str, str]) -> None:
        field, _, name = where.partition(": ")
        decoded(data, where)
        declared = _ENCODING.match(data)
        if declared and declared[1].lower() != b"utf-8":
            raise UserError(f"{where} is in {declared[1].decode()}, and a document must be UTF-8: convert it, and correct its first line")
        self._data, self._where, self._overwrite, self.lines = data, where, overwrite, []
        self._edits: list[tuple[int, int, bytes]] = []
        self._units: list[_Unit] = []
        found = events(io.BytesIO(data), name, field)
        root = next(found)
        if root.name != "xliff":
            raise UserError(f"{where}:{root.line} is not XLIFF: its first element is {root.name}")
        self._prefix = self._name(root).removesuffix("xliff")
        self._is_2 = root.attributes.get("version", "").startswith("2")
        self._languages = languages
        self._read(root, found, languages[1])

    def _tag(self, event: Event) -> bytes:
        """Return a start tag as it is written."""
        match = _TAG.match(self._data, event.offset)
        assert match
        return match[0]

    def _read(self, root: Event, found: Iterator[Event], language: str) -> None:
        """Find the units to translate, and the start tags that lack the target's language."""
        translates = [root.attributes.get("translate") != "no"]
        self._name_language(root, language)
        for event in found:
            if event.kind == "start":
                self._name_language(event, language)
                translates.append({"no": False, "yes": True}.get(event.attributes.get("translate", ""), translates[-1]))
                if event.name in UNITS:
                    self._unit(event, found, translates.pop())
            elif event.kind == "end":
                translates.pop()

    def _name_language(self, event: Event, language: str) -> None:
        """Compare the languages that a start tag names with the run's, and name the target's if it does not."""
        named, run = languages_of(event, ("", "")), self._languages
        if 1 not in (in_order(run, named), in_order(named, run)):
            raise UserError(
                f"{self._where}:{event.line} names the languages {' and '.join(filter(None, named))}, and the run translates "
                f"from {run[0] or 'any'} to {run[1] or 'any'}: name another run, or correct the document's languages"
            )
        name = {("xliff", True): "trgLang", ("file", False): "target-language"}.get((event.name, self._is_2), "")
        if name and language and name not in event.attributes:
            self._insert(event, f" {name}={quoteattr(language)}")

    def _insert(self, event: Event, attribute: str) -> None:
        at = event.offset + 1 + len(self._name(event).encode())
        self._edits.append((at, at, attribute.encode()))

    def _unit(self, segment: Event, found: Iterator[Event], translate: bool) -> None:
        """Read a unit to its end, and keep it if it is to be translated."""
        source = target = None
        line, tags, start, end, has_text = "", Tags(), 0, 0, False
        for event in found:
            if event.kind == "end":
                break
            if event.kind != "start":
                continue
            if event.name == "source":
                source = event
                line, start = self._line(event, found, tags)
                end = start
            elif event.name == "target":
                target, start = event, event.offset
                text, end = self._line(event, found, Tags())
                has_text = bool(text.strip())
            else:
                _, behind = self._line(event, found, Tags())
                start, end = (behind, behind) if event.name == "seg-source" else (start, end)
        state = (target.attributes if target and not self._is_2 else segment.attributes).get("state", "")
        wanted = self._overwrite or not has_text or state in _UNTRANSLATED
        if source and translate and wanted and has_words(line):
            stripped = line.strip()
            before, _, after = line.partition(stripped)
            self.lines.append(normalise(stripped))
            self._units.append(_Unit(source, tags, before, after, start, end, target, segment))

    def _line(self, element: Event, found: Iterator[Event], tags: Tags) -> tuple[str, int]:
        """Return the content of an element as a line of HTML with short tags, and the offset behind the element."""
        parts, inside, code = list[str](), [element], 0  # code: how many elements are around a code element and in it, or 0
        for event in found:
            if event.kind == "text" and not code:
                parts.append(html.escape(event.name, quote=False))
            elif event.kind == "start":
                inside.append(event)
                if not code and self._is_code(event):
                    code = len(inside)
                elif not code:
                    parts.append(tags.open(self._name(event), self._tag(event).decode()))
            elif event.kind == "end":
                start, end = inside[-1], self._end(inside[-1], event)
                if code == len(inside):
                    parts.append(tags.point(self._data[start.offset : end].decode()))
                    code = 0
                elif not code and len(inside) > 1:
                    parts.append(f"</{self._name(start)}>")
                inside.pop()
                if not inside:
                    return "".join(parts), end
        raise AssertionError(f"{element.name} has no end")  # expat has checked

    def _is_code(self, event: Event) -> bool:
        attributes = event.attributes
        is_kept = attributes.get("translate") == "no" or attributes.get("mtype") == "protected"
        return is_kept or event.name in CODES or self._tag(event).endswith(b"/>")

    def _name(self, event: Event) -> str:
        """Return the name in a start tag, with its prefix."""
        return re.split(rb"[\s/>]", self._tag(event)[1:], maxsplit=1)[0].decode()

    def _end(self, start: Event, end: Event) -> int:
        """Return the offset behind an element."""
        tag = self._tag(start)
        return start.offset + len(tag) if tag.endswith(b"/>") else self._data.index(b">", end.offset) + 1

    def written(self, translations: Sequence[str]) -> bytes:
        edits = list(self._edits)
        for unit, translation in zip(self._units, map(normalise, translations), strict=True):
            if not translation:
                continue
            text = unit.before + unit.tags.restored(translation, once=True) + unit.after
            edits.append((unit.start, unit.end, self._target(unit, text).encode()))
            if self._is_2:
                edits.append(self._state(unit.segment))
        parts, done = list[bytes](), 0
        for start, end, new in sorted(edits):
            parts += [self._data[done:start], new]
            done = end
        return b"".join([*parts, self._data[done:]])

    def _target(self, unit: _Unit, text: str) -> str:
        attributes = dict(unit.target.attributes) if unit.target else {}
        if not self._is_2:
            attributes |= {"state": "needs-review-translation", "state-qualifier": "mt-suggestion"}
        written = "".join(f" {name}={quoteattr(value)}" for name, value in attributes.items())
        name = f"{self._prefix}target"
        above = self._data[max(0, unit.source.offset - 100) : unit.source.offset].decode(errors="replace")
        between = "" if unit.target else above[len(above.rstrip()) :]
        return f"{between}<{name}{written}>{text}</{name}>"

    def _state(self, segment: Event) -> tuple[int, int, bytes]:
        """Return the edit that makes the state of a segment of version 2 `translated`."""
        tag = self._tag(segment)
        found = re.search(rb"""(?<=\sstate=)("[^"]*"|'[^']*')""", tag)
        if found:
            return segment.offset + found.start(), segment.offset + found.end(), b'"translated"'
        at = segment.offset + 1 + len(self._name(segment).encode())
        return at, at, b' state="translated"'
