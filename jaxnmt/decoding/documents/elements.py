"""Where the elements of an HTML document end: at their end tags, or where browsers close those that have none.

This is the part of tree construction (HTML Living Standard, section 13.2.6) that decides which elements are open.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxnmt.decoding.markup import Event

_HEADINGS = frozenset("h1 h2 h3 h4 h5 h6".split())
_CLOSE_P = _HEADINGS | frozenset(
    "address article aside blockquote center dd details dialog dir div dl dt fieldset figcaption figure footer form header hgroup hr li "
    "listing main menu nav ol p plaintext pre search section summary table ul xmp".split()
)
"""Elements before which an open paragraph ends."""
_FORMATTING = frozenset("a b big code em font i nobr s small strike strong tt u".split())
_SCOPE = frozenset(
    "annotation-xml applet caption desc foreignobject html marquee mi mn mo ms mtext object table td template th title".split()
)
"""Elements that an end tag inside does not close."""
_SPECIAL = (
    _CLOSE_P
    | _SCOPE
    | frozenset(
        "area base basefont body br button col colgroup embed frame frameset head iframe img input keygen link meta noembed noframes "
        "noscript param script select source style tbody textarea tfoot thead tr track wbr".split()
    )
) - frozenset(["dialog"])
_SCOPES = {"p": _SCOPE | {"button"}, "li": _SCOPE | {"ol", "ul"}, "table": frozenset(["html", "table", "template"])}
_GROUPS = frozenset("table tbody tfoot thead".split())
_AROUND = dict.fromkeys(("td", "th"), _GROUPS | {"tr"}) | {"tr": _GROUPS}
_AROUND |= dict.fromkeys(("caption", "colgroup", "tbody", "tfoot", "thead"), frozenset(["table"]))
"""Parts of a table, and what may stand directly around each: all that is open inside the innermost of these ends before it."""
_ALTERNATIVES = {"li": frozenset(["li"]), "dd": frozenset(["dd", "dt"]), "dt": frozenset(["dd", "dt"])}
_TOP = {"option": frozenset(["option"]), "optgroup": frozenset(["optgroup", "option"])} | dict.fromkeys(_HEADINGS, _HEADINGS)
_TOP |= dict.fromkeys(("rb", "rtc", "rt", "rp"), frozenset("rb rt rp rtc".split()))
"""Which elements each start tag closes, if one of them is the innermost open element."""
_FOREIGN = frozenset(["svg", "math"])
_HTML_INSIDE = frozenset("annotation-xml desc foreignobject mi mn mo ms mtext title".split())
"""Elements of SVG and MathML that contain HTML."""
_BREAK_OUT = _HEADINGS | frozenset(
    "b big blockquote body br center code dd div dl dt em embed head hr i img li listing menu meta nobr ol p pre ruby s small span "
    "strong strike sub sup table tt u ul var".split()
)
"""Elements of HTML that end SVG and MathML."""
_RAW = frozenset("iframe noembed noframes script style textarea title xmp".split())
"""Elements that contain text alone."""
_DEEPEST = 512
"""The most elements inside each other, as in browsers. A deeper one has no content."""
_IN_HEAD = frozenset("base link meta noframes noscript script style template title".split())


def last_events(events: Sequence[Event]) -> dict[int, int]:
    """Return the index of the last event of each element, by the index of its start tag.

    It is its end tag. If that is missing, it is the event before the tag that closes the element, or the last event of the document.
    """
    tree = _Open({event.name: i for i, event in enumerate(events) if event.kind == "close"})
    for i, (kind, _, _, name) in enumerate(events):
        if tree.is_raw and (kind != "close" or name != tree.names[-1]):
            tree.last[i] = i  # this is text
            continue
        if kind == "open":
            tree.start(i, name)
        elif kind == "close":
            tree.end(i, name)
        elif name:
            tree.make_room(i, name)
    tree.pop(0, len(events) - 1)
    return tree.last


class _Open:
    """The elements that are open, outermost first.

    Attributes:
        names: their names.
        last: what `last_events` returns, of those that are closed.
        is_raw: whether the innermost contains text alone.
    """

    def __init__(self, ends: dict[str, int]) -> None:
        self.names, self.last, self.is_raw, self._starts, self._ends = list[str](), dict[int, int](), False, list[int](), ends

    def pop(self, place: int, last: int) -> None:
        """Close the elements from a place in the stack on; `last` is the last event of each."""
        self.last |= dict.fromkeys(self._starts[place:], last)
        del self.names[place:], self._starts[place:]

    def _find(self, names: frozenset[str], stops: frozenset[str]) -> int | None:
        """Return the place of the innermost element of these names, if none of `stops` is inside it."""
        for place in range(len(self.names) - 1, -1, -1):
            if self.names[place] in names:
                return place
            if self.names[place] in stops:
                return None
        return None

    def _foreign(self) -> int | None:
        """Return the place of the SVG or MathML element in which a tag is no HTML."""
        return self._find(_FOREIGN, _HTML_INSIDE) if "svg" in self.names or "math" in self.names else None

    def _table(self) -> int | None:
        """Return the place of the table whose parts may stand here."""
        return self._find(frozenset(["table"]), frozenset(["template"]))

    def start(self, i: int, name: str) -> None:
        """Open an element, and close those that end before it."""
        self.make_room(i, name)
        foreign = self._foreign() is not None
        if len(self.names) == _DEEPEST or (name in _AROUND and not foreign and self._table() is None):
            self.last[i] = i  # a part of no table is ignored
            return
        self.names.append(name)
        self._starts.append(i)
        self.is_raw = name in _RAW and not foreign and (name == "textarea" or self._ends.get(name, -1) > i)

    def make_room(self, i: int, name: str) -> None:
        """Close the elements that end before an element of this name."""
        place = self._foreign()
        if place is not None and name not in _BREAK_OUT:
            return
        closed = [place]
        if name in _CLOSE_P:
            closed.append(self._find(frozenset(["p"]), _SCOPES["p"]))
        if name in _ALTERNATIVES:
            closed.append(self._find(_ALTERNATIVES[name], _SPECIAL - {"address", "div", "p"} - _ALTERNATIVES[name]))
        if name == "button":
            closed.append(self._find(frozenset([name]), _SCOPE))
        if name in _AROUND and self._table() is not None and (around := self._find(_AROUND[name], frozenset())) is not None:
            closed.append(around + 1)
        for place in closed:
            if place is not None and place < len(self.names):
                self.pop(place, i - 1)
        while self.names and (self.names[-1] in _TOP.get(name, ()) or (self.names[-1] == "head" and name not in _IN_HEAD)):
            self.pop(len(self.names) - 1, i - 1)
        if name in ("a", "nobr"):
            self._end_formatting(name, i - 1)

    def end(self, i: int, name: str) -> None:
        """Close the element that an end tag closes."""
        self.is_raw = False
        foreign = self._foreign()
        if foreign is not None:
            if name in ("p", "br"):
                self.pop(foreign, i - 1)
            elif (place := self._find(frozenset([name]), frozenset())) is not None and place >= foreign:
                return self.pop(place, i)
        if name in ("html", "body"):
            return None  # what follows still belongs to them
        if name in _FORMATTING:
            return self._end_formatting(name, i)
        wanted = _HEADINGS if name in _HEADINGS else frozenset([name])
        stops = _SCOPES["table"] if name in _AROUND else _SCOPES.get(name, _SCOPE) if name in _SPECIAL else _SPECIAL
        if (place := self._find(wanted, stops - wanted)) is not None:
            self.pop(place, i)
        return None

    def _end_formatting(self, name: str, last: int) -> None:
        """Close an element such as `<b>`. Blocks that are open in it stay open (the adoption agency algorithm)."""
        place = self._find(frozenset([name]), _SCOPE)
        if place is None:
            return
        kept = next((k for k in range(place + 1, len(self.names)) if self.names[k] in _SPECIAL), len(self.names))
        blocks = self.names[kept:], self._starts[kept:]
        del self.names[kept:], self._starts[kept:]
        self.pop(place, last)
        self.names += blocks[0]
        self._starts += blocks[1]
