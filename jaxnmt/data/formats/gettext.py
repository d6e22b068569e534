"""gettext's catalogs, PO and MO, which Babel reads: https://www.gnu.org/software/gettext/manual/html_node/PO-Files.html"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

from jaxnmt.data.formats.units import Entry, Reader, Request
from jaxnmt.errors import UserError, first_line
from jaxnmt.io.text import existing_file, open_binary

LARGEST = 16 << 20
"""The most bytes of a catalog, which Babel holds in memory. The largest ones that are published have some MB."""

MOST_PLURALS = 16
"""The most plural forms of a message. Arabic has six."""
_LINE = re.compile(r'#.*|(?:(?:msgctxt|msgid|msgid_plural|msgstr|msgstr\[\d+\]) +)?"(?:[^"\\]|\\.)*"|')


class Gettext(Reader):
    """The messages that have a translation and are not fuzzy. Of plural forms, singular and first form, plural and last form are pairs."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self.files = [existing_file(request.name, request.field)]
        self._is_binary = ".mo" in self.files[0].suffixes

    def languages(self) -> tuple[str, str]:
        """Return the requested languages, for the target also what the header says."""
        source, target = self.request.languages
        return source, target or str(self._catalog().locale_identifier or "")

    def entries(self, languages: tuple[str, str]) -> Iterator[Entry]:
        for number, message in enumerate(self._catalog(), 0):
            if not message.id:  # the header
                continue
            place = f" message {number}" if self._is_binary else f":{message.lineno}"
            for source, target in _pairs(message):
                left_out = "untranslated" if not (source.strip() and target.strip()) else "fuzzy" if message.fuzzy else ""
                yield Entry(place, source.encode(), target.encode(), left_out)

    def _catalog(self) -> Any:
        request = self.request
        with open_binary(self.files[0], request.field) as file:
            data = file.read(LARGEST + 1)
        return read_catalog(data, request.name, request.field, self._is_binary)


def read_catalog(data: bytes, name: str, field: str, is_binary: bool = False) -> Any:
    """Return Babel's catalog of the content of a PO file, or of an MO file if `is_binary`.

    Args:
        name: of the file, for messages.
        field: the setting that names the file, for messages.

    Raises:
        UserError: the content is too large or damaged.
    """
    from babel.messages import catalog, mofile, pofile

    class Catalog(catalog.Catalog):
        """A catalog that does not make a billion empty forms of a message because its header says so."""

        @property
        def num_plurals(self) -> int:
            return min(super().num_plurals, MOST_PLURALS)

    if len(data) > LARGEST:
        raise UserError(f"{field}: {name} has more than {LARGEST >> 20} MB: split it, for example with `msggrep`")
    kind = "MO" if is_binary else "PO"
    try:
        if is_binary:
            return mofile.read_mo(io.BytesIO(data))
        found = Catalog()
        pofile.PoFileParser(found, abort_invalid=True).parse(io.BytesIO(data))
        text = data.decode(found.charset)
    except pofile.PoFileError as error:
        reason = str(error).rpartition(" on ")[0]
        raise UserError(f"{field}: {name}:{error.lineno + 1} is not PO ({reason}): correct it (`msgfmt -c` checks it)") from None
    except Exception as error:  # damaged files raise many kinds
        raise UserError(f"{field}: {name} is not a {kind} file that can be read ({first_line(error)}): make it again") from None
    for number, line in enumerate(text.split("\n"), 1):
        if not _LINE.fullmatch(line.strip()):  # Babel takes a string without its last quote
            raise UserError(f"{field}: {name}:{number} is not PO: correct it (`msgfmt -c` checks it)")
    return found


def _pairs(message: Any) -> list[tuple[str, str]]:
    if isinstance(message.id, str):
        return [(message.id, message.string if isinstance(message.string, str) else "")]
    (singular, plural), forms = message.id, [message.string] if isinstance(message.string, str) else [form or "" for form in message.string]
    return [(plural, forms[-1])] if len(forms) < 2 else [(singular, forms[0]), (plural, forms[-1])]
