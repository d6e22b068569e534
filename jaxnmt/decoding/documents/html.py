"""HTML documents, block by block: the text of each block is translated with its inline tags, and all else stays."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from jaxnmt.decoding import markup
from jaxnmt.decoding.documents.document import Document, Tags, decoded, has_words, spliced
from jaxnmt.decoding.documents.elements import last_events
from jaxnmt.errors import UserError
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
_CHARSET = re.compile(r"""\bcharset\s*=\s*["']?([\w.:-]+)""", re.IGNORECASE)
_MOST_UNCLOSED = 1 << 22
"""The most tags without an end, times the letters behind the last end."""
_SPACES = " \t\r\n\f"


class Html(Document):
    """An HTML file. Attributes, scripts, styles, `<pre>`, `<code>` and elements with translate="no" stay as they are."""

    format = "html"

    def __init__(self, data: bytes, where: str, overwrite: bool, languages: tuple[str, str]) -> None:
        self._text = decoded(data, where)
        self._blocks: list[tuple[int, int, Tags]] = []
        self.lines = []
        _refuse_unclosed(self._text, where)
        # The parser counts columns from the last line end: without line ends they are offsets.
        events = markup.read(re.sub("[\r\n]", " ", self._text))
        _refuse_other_charsets(self._text, events, where)
        for start, end, line, tags in _blocks(self._text, events):
            self._blocks.append((start, end, tags))
            self.lines.append(line)

    def written(self, translations: Sequence[str]) -> bytes:
        texts = map(normalise, translations)
        edits = ((start, end, tags.restored(text)) for (start, end, tags), text in zip(self._blocks, texts, strict=True) if text)
        return spliced(self._text, edits).encode()


def _refuse_unclosed(text: str, where: str) -> None:
    """Raise UserError if many tags or comments have no end: the parser looks for the end of each through the whole text."""
    for start, end in (("<", ">"), ("<!--", "-->")):
        rest = text[text.rfind(end) + 1 :]
        if rest.count(start) * len(rest) > _MOST_UNCLOSED:
            raise UserError(f"{where} has {rest.count(start):,} `{start}` without a `{end}` at its end: the file is damaged, or not HTML")


def _refuse_other_charsets(text: str, events: Sequence[markup.Event], where: str) -> None:
    """Raise UserError if a document says that it is not UTF-8."""
    for event in events:
        declared = _CHARSET.search(text, event.offset, event.end) if event.name == "meta" else None
        if declared and declared[1].lower() not in ("utf-8", "utf8"):
            raise UserError(f"{where} declares {declared[1]}, and a document must be UTF-8: convert it, and correct its <meta> tag")


def _blocks(text: str, events: Sequence[markup.Event]) -> Iterator[tuple[int, int, str, Tags]]:
    """Yield where each block is, its line, and its tags."""
    parts, tags, last, done = list[tuple[int, int, str]](), Tags(), last_events(events), -1
    for i, event in enumerate(events):
        if i <= done:
            continue
        written, end = text[event.offset : event.end], event.end
        is_code = event.kind == "open" and (event.name in _CODES | _OPAQUE or bool(_NOT_TRANSLATED.search(written)))
        if is_code:
            done = last[i]
            end = events[done].end
            written = text[event.offset : end]
        if event.name in _BLOCKS | _OPAQUE or written.startswith(("<!DOCTYPE", "<!doctype", "<?")):
            yield from _block(parts, tags, text)
            parts, tags = [], Tags()
        elif event.kind == "text":
            parts.append((event.offset, end, written))
        elif event.kind == "open" and not is_code:
            parts.append((event.offset, end, tags.open(event.name, written)))
        elif event.kind == "close":
            is_plain = written == f"</{event.name}>"
            parts.append((event.offset, end, written if is_plain else tags.open(f"/{event.name}", written)))
        else:
            parts.append((event.offset, end, tags.point(written)))
    yield from _block(parts, tags, text)


def _block(parts: Sequence[tuple[int, int, str]], tags: Tags, text: str) -> Iterator[tuple[int, int, str, Tags]]:
    """Yield a block if it has words. Spaces around it do not belong to it."""
    if not has_words("".join(line for _, _, line in parts)):
        return
    start, end = parts[0][0], parts[-1][1]
    start = end - len(text[start:end].lstrip(_SPACES))
    end = start + len(text[start:end].rstrip(_SPACES))
    line = re.sub(f"[{_SPACES}]+", " ", "".join(line for _, _, line in parts))
    yield start, end, normalise(line), tags
