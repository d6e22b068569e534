"""Take the tags out of a line of HTML or XML."""

from __future__ import annotations

import html
import html.parser
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from jaxnmt.io.text import normalise

_VOID = frozenset("area base br col embed hr img input link meta param source track wbr".split())
BREAKS = frozenset(
    "address article aside blockquote br button caption dd details dialog div dl dt fieldset figcaption figure footer form "
    "h1 h2 h3 h4 h5 h6 header hgroup hr label legend li main nav ol optgroup option p pre section select summary table "
    "tbody td tfoot th thead title tr ul".split()
)
"""Tags that separate words: the text before and after them never forms one word."""


class Event(NamedTuple):
    """A piece of a line.

    Attributes:
        kind: "text", "open" or "close" for a tag, or "point" for what encloses no text.
        offset, end: where it is in the line.
        name: of a tag; empty for other events.
    """

    kind: str
    offset: int
    end: int
    name: str


class Element(NamedTuple):
    """A pair of tags around text[at:end].

    Attributes:
        order: its place among all elements and points of the line, by the start tag.
        inside: the numbers of the elements around it, outermost first.
        open, close: its tags as they are written.
    """

    at: int
    end: int
    order: int
    inside: tuple[int, ...]
    open: str
    close: str


class Point(NamedTuple):
    """Markup between two letters of the text: an empty tag, a tag whose partner is missing, a comment, a placeholder.

    Attributes:
        at: the index of the next letter of the text.
        order: its place among all elements and points of the line.
        text: how it is written.
        inside: the numbers of the elements around it, outermost first.
        before, after: whether a space or the end of the line is on that side.
        lone: whether it is a tag whose partner is missing. Such tags keep their order.
    """

    at: int
    order: int
    text: str
    inside: tuple[int, ...]
    before: bool = False
    after: bool = False
    lone: bool = False


class Marked(NamedTuple):
    """The text of a line, and its markup: elements in the order of their start tags, points in the order of the line."""

    text: str
    elements: tuple[Element, ...] = ()
    points: tuple[Point, ...] = ()

    def is_plain(self) -> bool:
        """Return whether the line has no markup."""
        return not self.elements and not self.points


def read(line: str) -> list[Event]:
    """Return the text, tags and comments of a line, in order. They cover all of it, and text is not decoded."""
    found = _Reader(line).found
    bounds = [*(offset for _, offset, _ in found), len(line)]
    return [Event(kind, offset, end, name) for (kind, offset, name), end in zip(found, bounds[1:], strict=True)]


def parse(line: str) -> Marked:
    """Return the text of a line of HTML or XML with its entities decoded, and its tags as they are written.

    A tag whose partner is not on the line is a `Point`: the partner may be on another line.
    """
    line = normalise(line)
    events = read(line)
    raw = [line[event.offset : event.end] for event in events]
    end_of = _pairs(events)
    number = {start: k for k, start in enumerate(sorted(end_of))}  # of the element that a start tag opens
    start_of = {end: start for start, end in end_of.items()}
    texts: list[str] = []
    starts: list[tuple[int, tuple[int, ...]]] = []
    ends = [0] * len(number)
    points: list[Point] = []
    inside: list[int] = []
    length, broken = 0, False  # broken: a tag that separates words came after the text
    for i, (kind, _, _, name) in enumerate(events):
        broken |= name in BREAKS
        if kind == "text":
            piece = normalise(f"|{html.unescape(raw[i])}|")[1:-1]
            if broken and length and not texts[-1].endswith(" "):
                piece = f" {piece}"
            texts.append(piece)
            length += len(piece)
            broken = False
        if i in end_of:
            starts.append((length, tuple(inside)))
            inside.append(number[i])
        elif i in start_of:
            ends[number[start_of[i]]] = length
            inside.pop()
        elif kind != "text":
            points.append(Point(length, i, raw[i], tuple(inside), lone=kind != "point"))
    elements = [
        Element(at, ends[k], start, around, raw[start], raw[end_of[start]])
        for (start, k), (at, around) in zip(number.items(), starts, strict=True)
    ]
    text = "".join(texts)
    return Marked(text, tuple(elements), tuple(_spaced(text, points)))


def _spaced(text: str, points: Sequence[Point]) -> Iterable[Point]:
    """Yield points with the spaces around them. Of points that touch, the outermost have spaces."""
    places = [-1, *(point.at for point in points), -1]
    for point, last, following in zip(points, places, places[2:], strict=False):
        yield point._replace(
            before=last != point.at and text[max(0, point.at - 1) : point.at] in " ",
            after=following != point.at and text[point.at : point.at + 1] in " ",
        )


def _pairs(events: Sequence[Event]) -> dict[int, int]:
    """Return the index of the end tag of each start tag that has one. A start tag that another element's end tag passes over has none."""
    pairs: dict[int, int] = {}
    unclosed: list[int] = []
    for i, (kind, _, _, name) in enumerate(events):
        if kind == "open":
            unclosed.append(i)
        elif kind == "close":
            start = next((j for j in reversed(unclosed) if events[j].name == name), None)
            if start is not None:
                pairs[start] = i
                del unclosed[unclosed.index(start) :]
    return pairs


class _Reader(html.parser.HTMLParser):
    """Lists the text, tags and comments of a line. Text is not decoded."""

    def __init__(self, line: str) -> None:
        super().__init__()
        self.found: list[tuple[str, int, str]] = []
        self.feed(line)
        self.close()

    def _add(self, kind: str, name: str = "") -> None:
        self.found.append((kind, self.getpos()[1], name))

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._add("point" if tag in _VOID else "open", tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self._add("point", tag)

    def handle_endtag(self, tag: str) -> None:
        self._add("close", tag)

    def handle_data(self, data: str) -> None:
        self._add("point" if self.cdata_elem in ("script", "style") else "text")

    def handle_comment(self, data: str) -> None:
        self._add("point")

    def handle_decl(self, decl: str) -> None:
        self._add("point")

    def parse_marked_section(self, i: int, report: bool = True) -> int:
        try:
            return super().parse_marked_section(i, report)
        except AssertionError:  # `<![x>`, which later versions of the library take for a comment
            return self.parse_bogus_comment(i)

    def handle_pi(self, data: str) -> None:
        self._add("point")

    def unknown_decl(self, data: str) -> None:
        self._add("point")
