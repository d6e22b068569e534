"""Plain text, a sentence or a paragraph a line: blank lines, indentation and line ends stay."""

from __future__ import annotations

from collections.abc import Sequence

from jaxnmt.decoding.documents.document import Document, Span, decoded


class Plain(Document):
    """A text file."""

    def __init__(self, data: bytes, where: str, overwrite: bool, languages: tuple[str, str]) -> None:
        self.lines = []
        self._lines = [(line, Span(line, self.lines)) for line in decoded(data, where).split("\n")]

    def written(self, translations: Sequence[str]) -> bytes:
        return "\n".join(span.written(translations) or line for line, span in self._lines).encode()
