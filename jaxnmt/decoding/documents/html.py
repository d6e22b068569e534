"""HTML documents, block by block: the text of each block is translated with its inline tags, and all else stays."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from jaxnmt.decoding import markup
from jaxnmt.decoding.documents.document import Document, Tags, decoded, has_words, spliced
from jaxnmt.io.text import normalise

_BLOCKS = markup.BREAKS | frozenset(
    "html head body title meta link base noscript template iframe object video audio canvas map slot".split()
)
"""Elements whose tags end a block of text."""
_OPAQUE = frozenset("script style pre textarea svg math".split())
"""Elements that are not translated, and that end a block."""
_CODES = frozenset("code kbd samp var".split())
"""Elements inside text that are not translated."""
_NOT_TRANSLATED = re.compile(r"""\stranslate\s*=\s*["']?no\b""", re.IGNORECASE)
_SPACES = " \t\r\n\f"


class Html(Document):
    """An HTML file. Attributes, scripts, styles, `<pre>`, `<code>` and elements with translate="no" stay as they are."""

    format = "html"

    def __init__(self, data: bytes, where: str, overwrite: bool, languages: tuple[str, str]) -> None:
        self._text = decoded(data, where)
        self._blocks: list[tuple[int, int, Tags]] = []
        self.lines = []
        for start, end, line, tags in _blocks(self._text):
            self._blocks.append((start, end, tags))
            self.lines.append(line)

    def written(self, translations: Sequence[str]) -> bytes:
        texts = map(normalise, translations)
        edits = ((start, end, tags.restored(text)) for (start, end, tags), text in zip(self._blocks, texts, strict=True) if text)
        return spliced(self._text, edits).encode()


def _blocks(text: str) -> Iterator[tuple[int, int, str, Tags]]:
    """Yield where each block is, its line, and its tags."""
    # The parser counts columns from the last line end: without line ends they are offsets.
    events = iter(markup.read(re.sub("[\r\n]", " ", text)))
    parts, tags = list[tuple[int, int, str]](), Tags()
    for event in events:
        written, end = text[event.offset : event.end], event.end
        is_code = event.kind == "open" and (event.name in _CODES | _OPAQUE or bool(_NOT_TRANSLATED.search(written)))
        if is_code:
            end = _end_of(event, events) or len(text)
            written = text[event.offset : end]
        if event.name in _BLOCKS | _OPAQUE or written.startswith(("<!DOCTYPE", "<!doctype", "<?")):
            yield from _block(parts, tags, text)
            parts, tags = [], Tags()
        elif event.kind == "text":
            parts.append((event.offset, end, written))
        elif event.kind == "open" and not is_code:
            parts.append((event.offset, end, tags.open(event.name, written)))
        elif event.kind == "close":
            parts.append((event.offset, end, f"</{event.name}>"))
        else:
            parts.append((event.offset, end, tags.point(written)))
    yield from _block(parts, tags, text)


def _end_of(start: markup.Event, events: Iterator[markup.Event]) -> int:
    """Read on to the end tag of an element. Return where it ends, or 0 if it has none."""
    depth = 1
    for event in events:
        if event.name == start.name:
            depth += {"open": 1, "close": -1}.get(event.kind, 0)
        if not depth:
            return event.end
    return 0


def _block(parts: Sequence[tuple[int, int, str]], tags: Tags, text: str) -> Iterator[tuple[int, int, str, Tags]]:
    """Yield a block if it has words. Spaces around it do not belong to it."""
    if not has_words("".join(line for _, _, line in parts)):
        return
    start, end = parts[0][0], parts[-1][1]
    start = end - len(text[start:end].lstrip(_SPACES))
    end = start + len(text[start:end].rstrip(_SPACES))
    line = re.sub(f"[{_SPACES}]+", " ", "".join(line for _, _, line in parts))
    yield start, end, normalise(line), tags
