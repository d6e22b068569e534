"""Read XML as a stream of events with expat, the parser of the standard library. Entities and defaults of attributes are refused, and
nothing is fetched.

Memory does not grow with the file: one block of it is parsed at a time, and tags and nesting have limits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple
from xml.parsers import expat

from jaxnmt.errors import UserError

_BLOCK = 1 << 16
"""Number of bytes that are parsed at a time."""
_LONGEST_TAG = 1 << 20
"""The most bytes of one tag, comment or declaration."""
_DEEPEST = 256
"""The most elements inside each other."""
_MOST_NAMES = 10_000
"""The most names of elements and attributes, each of which expat keeps."""


class Event(NamedTuple):
    """A start tag, an end tag, or text.

    Attributes:
        kind: "start", "end" or "text".
        name: of the element, without the root element's prefix; or the text.
        attributes: of a start tag, with their prefixes.
        line: the line in the file, from 1 on.
        offset: of a start tag the index of its first byte in the file; of an end tag likewise, of `<x/>` the index behind it.
    """

    kind: str
    name: str
    attributes: dict[str, str]
    line: int
    offset: int


def events(file: BinaryIO, name: str, field: str) -> Iterator[Event]:
    """Yield the tags and the text of an XML file, in order. Text may come in several pieces.

    Args:
        file: open for reading in bytes. It may have any encoding that expat knows (UTF-8, UTF-16, Latin-1 and others).
        name: of the file, for messages.
        field: the setting that names the file, for messages.

    Raises:
        UserError: the file is not well-formed, is cut off, declares entities or defaults of attributes, or has a tag or a nesting
            beyond the limits.
    """
    reader, fed = _Reader(f"{field}: {name}"), 0
    while block := file.read(_BLOCK):
        yield from reader.parse(block)
        fed += len(block)
        if fed - reader.offset > _LONGEST_TAG:
            raise UserError(
                f"{reader.place()} has a tag of more than {_LONGEST_TAG:,} bytes: the file is damaged, or not what its name says"
            )
    yield from reader.parse(b"", is_last=True)


class _Reader:
    """Collects the events of each block."""

    def __init__(self, where: str) -> None:
        self._where, self._found, self._depth, self._prefix = where, list[Event](), 0, ""
        self._names = set[str]()
        self._expat: Any = expat.ParserCreate()
        self._expat.buffer_text = True
        self._expat.StartElementHandler = self._start
        self._expat.EndElementHandler = self._end
        self._expat.CharacterDataHandler = self._text
        self._expat.EntityDeclHandler = self._refuse_entity
        self._expat.SkippedEntityHandler = self._refuse_entity
        self._expat.AttlistDeclHandler = self._refuse_default

    @property
    def offset(self) -> int:
        return self._expat.CurrentByteIndex

    def place(self) -> str:
        return f"{self._where}:{self._expat.CurrentLineNumber}"

    def parse(self, block: bytes, is_last: bool = False) -> list[Event]:
        """Return the events of the next block."""
        self._found = []
        try:
            self._expat.Parse(block, is_last)
        except expat.ExpatError as error:
            reason = expat.ErrorString(error.code)
            raise UserError(
                f"{self._where}:{error.lineno} is not well-formed XML ({reason}): the file is damaged, cut off, or not XML"
            ) from None
        except (ValueError, LookupError) as error:
            raise UserError(f"{self.place()} has an encoding that cannot be read ({error}): convert the file to UTF-8") from None
        return self._found

    def _add(self, kind: str, name: str, attributes: dict[str, str]) -> None:
        self._found.append(Event(kind, name, attributes, self._expat.CurrentLineNumber, self._expat.CurrentByteIndex))

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if not self._depth and ":" in name:
            self._prefix = f"{name.partition(':')[0]}:"
        self._depth += 1
        if self._depth > _DEEPEST:
            raise UserError(f"{self.place()} has more than {_DEEPEST} elements inside each other: the file is damaged")
        self._names.update((name, *attributes))
        if len(self._names) > _MOST_NAMES:
            raise UserError(f"{self.place()} has more than {_MOST_NAMES:,} names of elements and attributes: the file is damaged")
        self._add("start", name.removeprefix(self._prefix), attributes)

    def _end(self, name: str) -> None:
        self._depth -= 1
        self._add("end", name.removeprefix(self._prefix), {})

    def _text(self, text: str) -> None:
        self._add("text", text, {})

    def _refuse_entity(self, name: str, *_: object) -> None:
        raise UserError(f"{self.place()} uses an entity of its own, {name}, which may expand without limit: replace it by its text")

    def _refuse_default(self, element: str, name: str, kind: str, default: str | None, is_required: bool) -> None:
        if default is not None:  # it would be added to each of the elements
            raise UserError(f"{self.place()} declares a default for the attribute {name}, which may expand without limit: write it out")
