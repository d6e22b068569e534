"""The interface of all documents, and what they share."""

from __future__ import annotations

import abc
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from jaxnmt.decoding.placeholders import PLACEHOLDER
from jaxnmt.errors import UserError
from jaxnmt.io.text import normalise

_MARKUP = re.compile(r"<[^<>]*>|&#?\w+;")


class Document(abc.ABC):
    """A document with lines to translate.

    Attributes:
        format: of the lines, as `Input.format`.
        lines: what is to be translated, each without line ends and without spaces at its ends.
    """

    format: Literal["text", "html"] = "text"
    lines: list[str]

    @abc.abstractmethod
    def written(self, translations: Sequence[str]) -> bytes:
        """Return the document with a translation of each line. Where a translation is empty, the document stays as it is."""


class Span:
    """A part of a text that is translated line by line; line ends and the spaces around each line are kept.

    Args:
        text: the part as it is written.
        lines: the document's lines, to which those of the part are added.
    """

    def __init__(self, text: str, lines: list[str]) -> None:
        self._pieces: list[str | int] = []  # text that stays, and indices of lines
        for piece in re.split(r"([ \t]*\r?\n[ \t]*)", text):
            line = normalise(piece)
            if not has_words(line):
                self._pieces.append(piece)
                continue
            start, stop = _edge(piece), len(piece) - _edge(piece[::-1])
            self._pieces += [piece[:start], len(lines), piece[stop:]]
            lines.append(line)

    def __bool__(self) -> bool:
        """Return whether there is anything to translate."""
        return any(isinstance(piece, int) for piece in self._pieces)

    def written(self, translations: Sequence[str]) -> str:
        """Return the text with its lines translated; empty if a translation is."""
        texts = [normalise(translations[piece]) if isinstance(piece, int) else piece for piece in self._pieces]
        if any(isinstance(piece, int) and not text for piece, text in zip(self._pieces, texts, strict=True)):
            return ""
        return "".join(texts)


def _edge(text: str) -> int:
    """Return how many characters at the beginning of a text normalising takes away."""
    return next((i for i, letter in enumerate(text) if normalise(letter)), len(text))


class Tags:
    """Puts short tags in the place of tags, comments and codes, so that nothing but text passes through the translator.

    `<a href="…">` becomes `<a kept-0>`, and what encloses no text to translate `<kept-1/>`.
    """

    _SHORT = re.compile(r"<(?:[^\s<>]+ )?kept-(\d+)/?>")
    _ANY = re.compile(r"<(/?)([^\s<>/]+)(?: kept-(\d+))?(/?)>")

    def __init__(self) -> None:
        self._written: list[str] = []

    def open(self, name: str, written: str) -> str:
        """Return a short start tag for one that is written so."""
        self._written.append(written)
        return f"<{name} kept-{len(self._written) - 1}>"

    def point(self, written: str) -> str:
        """Return a short tag for what encloses no text to translate."""
        self._written.append(written)
        return f"<kept-{len(self._written) - 1}/>"

    def restored(self, line: str, once: bool = False) -> str:
        """Return a line with everything as it was written.

        Args:
            once: of an element that the translation has in several places, only the first keeps its tags.
        """
        return self._SHORT.sub(lambda match: self._written[int(match[1])], "".join(self._first(line)) if once else line)

    def _first(self, line: str) -> Iterator[str]:
        seen, dropped, end = set[str](), list[bool](), 0
        for match in self._ANY.finditer(line):
            yield line[end : match.start()]
            end, (closes, _, number, is_point) = match.end(), match.groups()
            if is_point:
                yield match[0]
            elif closes:
                yield "" if dropped and dropped.pop() else match[0]
            else:
                dropped.append(number in seen)
                yield "" if number in seen else match[0]
                seen.update([number] if number else [])
        yield line[end:]


def has_words(line: str) -> bool:
    """Return whether a line has a letter outside tags, entities and placeholders."""
    return any(map(str.isalpha, PLACEHOLDER.sub("", _MARKUP.sub("", line))))


def decoded(data: bytes, where: str) -> str:
    """Return a document's text.

    Raises:
        UserError: it is not UTF-8.
    """
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not UTF-8 text ({error}): convert it with iconv") from None


def spliced(text: str, edits: Iterable[tuple[int, int, str]]) -> str:
    """Return a text with other text in the place of text[start:end], for each edit (start, end, text), in order."""
    parts, done = [], 0
    for start, end, new in edits:
        parts += [text[done:start], new]
        done = end
    return "".join([*parts, text[done:]])
