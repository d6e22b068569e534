"""PO files: translations are written into `msgstr`, and marked fuzzy for a person to review."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from jaxnmt.data.formats.gettext import MOST_PLURALS, read_catalog
from jaxnmt.decoding.documents.document import Document, Span
from jaxnmt.errors import UserError

_LINE = re.compile(r'\s*(?:(msgctxt|msgid_plural|msgid|msgstr(?:\[(\d+)\])?)\s+)?(".*")\s*')
_PLURALS = re.compile(r"nplurals\s*=\s*(\d+)")


class _Entry:
    """A message: where its parts are among the lines of the file, and the text of its ids.

    Attributes:
        head: the line of the first keyword, or of the previous msgid that stands before it.
        flags: the line of its flags, or None.
        texts: what stands after each keyword, as it is written.
        translation: the first line of its translations, and the line behind the last one.
    """

    def __init__(self) -> None:
        self.head: int | None = None
        self.flags: int | None = None
        self.texts: dict[str, str] = {}
        self.translation = (0, 0)

    @property
    def is_translated(self) -> bool:
        """Return whether all its forms are."""
        return all(_has_text(text) for keyword, text in self.texts.items() if keyword.startswith("msgstr"))


class Po(Document):
    """A PO file. Only `msgstr` and the flag `fuzzy` change."""

    def __init__(self, data: bytes, where: str, overwrite: bool, languages: tuple[str, str]) -> None:
        from babel.messages import pofile

        self._where, self._overwrite, self.lines = where, overwrite, []
        field, _, name = where.partition(": ")
        self._charset = read_catalog(data, name, field).charset
        self._rows = data.decode(self._charset).split("\n")
        self._messages: list[tuple[_Entry, dict[str, Span], int]] = []
        plurals = 0
        for entry in _entries(self._rows):
            ids = {key: pofile.denormalize(entry.texts[key]) for key in ("msgid", "msgid_plural") if key in entry.texts}
            if not ids.get("msgid"):
                header = pofile.denormalize(entry.texts.get("msgstr", ""))
                plurals = min(int(found[1]), MOST_PLURALS) if (found := _PLURALS.search(header)) else 0
            elif overwrite or not entry.is_translated:
                forms = plurals or sum(key.startswith("msgstr") for key in entry.texts)
                self._messages.append((entry, {key: Span(text, self.lines) for key, text in ids.items()}, forms))

    def written(self, translations: Sequence[str]) -> bytes:
        from babel.messages.pofile import normalize

        rows, end = list[str | None](self._rows), "\r" if self._rows[0].endswith("\r") else ""
        for entry, spans, forms in self._messages:
            texts = {key: span.written(translations) for key, span in spans.items() if span}
            if len(texts) != len(spans) or not all(texts.values()):
                continue
            strings = {"msgstr": texts["msgid"]}
            if "msgid_plural" in texts:
                one = 0 if forms > 1 else -1
                strings = {f"msgstr[{i}]": texts["msgid" if i == one else "msgid_plural"] for i in range(forms)}
            written = {key: normalize(text) for key, text in strings.items()}
            if not self._overwrite:
                written |= {key: text for key, text in entry.texts.items() if key in strings and _has_text(text)}
            start, stop = entry.translation
            rows[start:stop] = [None] * (stop - start)
            row = "\n".join(f"{key} {text}".replace("\n", f"{end}\n") + end for key, text in written.items())
            rows[start] = row if self._rows[stop - 1].endswith(end) else row.removesuffix(end)
            _mark(rows, entry, end)
        try:
            return "\n".join(row for row in rows if row is not None).encode(self._charset)
        except UnicodeEncodeError as error:
            letter = error.object[error.start]
            raise UserError(f"{self._where} is in {self._charset}, which has no {letter!r}: convert it with `msgconv -t UTF-8`") from None


def _has_text(written: str) -> bool:
    """Return whether quoted strings have text."""
    return bool(written.replace('"', "").strip())


def _mark(rows: list[str | None], entry: _Entry, end: str) -> None:
    """Add the flag fuzzy to an entry."""
    at = entry.head if entry.flags is None else entry.flags
    assert at is not None
    row = rows[at]
    assert row is not None
    if entry.flags is None:
        rows[at] = f"#, fuzzy{end}\n{row}"
    elif "fuzzy" not in map(str.strip, row.lstrip("#, ").split(",")):
        rows[at] = row.replace("#,", "#, fuzzy,", 1)


def _entries(rows: Sequence[str]) -> Iterator[_Entry]:
    """Yield the messages of a PO file whose syntax has been checked, without obsolete ones."""
    entry, keyword = _Entry(), ""
    for number, row in enumerate(rows):
        match = _LINE.fullmatch(row)
        starts = row.lstrip().startswith("#") or bool(match and match[1] in ("msgctxt", "msgid"))
        if starts and keyword.startswith("msgstr"):
            yield entry
            entry, keyword = _Entry(), ""
        if row.lstrip().startswith("#~"):  # comments and flags above it belong to an obsolete message
            entry, keyword = _Entry(), ""
        if row.startswith("#,") and entry.flags is None:
            entry.flags = number
        if entry.head is None and (match or row.startswith("#|")):
            entry.head = number
        if match:
            keyword = match[1] or keyword
            entry.texts[keyword] = f"{entry.texts[keyword]}\n{match[3]}" if keyword in entry.texts else match[3]
            if keyword.startswith("msgstr"):
                entry.translation = (entry.translation[0] or number, number + 1)
    if keyword.startswith("msgstr"):
        yield entry
