"""gettext's catalogs, PO and MO, which Babel reads: https://www.gnu.org/software/gettext/manual/html_node/PO-Files.html"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from typing import Any

from jaxnmt.data.formats.units import Entry, Reader, Request
from jaxnmt.data.language_codes import in_order, same_language
from jaxnmt.errors import UserError, first_line
from jaxnmt.io.text import open_binary, suffix_of

LARGEST = 16 << 20
"""The most bytes of a catalog, which Babel holds in memory. The largest ones that are published have some MB."""

MOST_PLURALS = 16
"""The most plural forms of a message. Arabic has six."""
_CHARSET = re.compile(rb'"Content-Type:(?:[^"\n]|"\r?\n")*?charset=([^\s"\\;]+)', re.IGNORECASE)
_PROBE = bytes(range(128)) + rb"\n\x41+AGE-~{.xn--mnchen-3ya." + b"\x1b$B!!\x1b(B"
"""What an encoding that extends ASCII reads and writes as it is. Encodings with escapes or states do not."""
_LINE = re.compile(r'#.*|(?:(?:msgctxt|msgid|msgid_plural|msgstr|msgstr\[\d+\]) +)?"(?:[^"\\]|\\.)*"|')


class Gettext(Reader):
    """The messages that have a translation and are not fuzzy. Of plural forms, singular and first form, plural and last form are pairs."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self._is_binary = suffix_of(request.name) == ".mo"

    def languages(self) -> tuple[str, str]:
        """Return the requested languages, for which the header's stands in.

        Raises:
            UserError: the header says another language.
        """
        wanted, found = self.request.languages, _languages(self._catalog())
        order = _order(wanted, found)
        if order is None:
            raise UserError(f"{self.request.where} is in the language {found[1]}, not {' or '.join(filter(None, wanted))}")
        source, target = found[::order]
        return wanted[0] or source, wanted[1] or target

    def entries(self, languages: tuple[str, str]) -> Iterator[Entry]:
        catalog = self._catalog()
        is_reversed = _order(languages, _languages(catalog)) == -1
        for number, message in enumerate(catalog, 0):
            if not message.id:  # the header
                continue
            place = f" message {number}" if self._is_binary else f":{message.lineno}"
            for source, target in _pairs(message):
                left_out = "untranslated" if not (source.strip() and target.strip()) else "fuzzy" if message.fuzzy else ""
                sides = (target, source) if is_reversed else (source, target)
                yield Entry(place, sides[0].encode(), sides[1].encode(), left_out)

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
            _check_lengths(data)
            found, text = mofile.read_mo(io.BytesIO(data)), ""
            _check_charset(found.charset)
        else:
            charset = _charset(data)
            found, text = Catalog(), data.decode(charset)
            # What xgettext writes into a template stands for a number.
            pofile.PoFileParser(found, abort_invalid=True).parse(io.StringIO(text.replace("nplurals=INTEGER", "nplurals=2", 1)))
            found.charset = charset
        for message in found:
            _check_message(message)
    except pofile.PoFileError as error:
        reason = str(error).rpartition(" on ")[0]
        raise UserError(f"{field}: {name}:{error.lineno + 1} is not PO ({reason}): correct it (`msgfmt -c` checks it)") from None
    except Exception as error:  # damaged files raise many kinds
        raise UserError(f"{field}: {name} is not a {kind} file that can be read ({first_line(error)}): make it again") from None
    for number, line in enumerate(text.split("\n"), 1):
        if not _LINE.fullmatch(line.strip()):  # Babel takes a string without its last quote
            raise UserError(f"{field}: {name}:{number} is not PO: correct it (`msgfmt -c` checks it)")
    return found


def _charset(data: bytes) -> str:
    """Return the encoding that the header of a PO file names. Lines before the header may be in it, too."""
    match = _CHARSET.search(data)
    charset = match[1].decode("ascii").lower() if match else "charset"
    if charset == "charset":  # as xgettext writes it
        return "utf-8"
    _check_charset(charset)
    return charset


def _check_charset(charset: str) -> None:
    """Raise ValueError if ASCII is not a part of an encoding, or LookupError if the encoding is not known."""
    try:
        has_ascii = _PROBE.decode(charset) == _PROBE.decode() and _PROBE.decode().encode(charset) == _PROBE
    except UnicodeError:
        has_ascii = False
    if not has_ascii:
        raise ValueError(f"ASCII is not a part of its encoding, {charset}")


def _languages(catalog: Any) -> tuple[str, str]:
    """Return the languages of a catalog. Its header says that of the target only."""
    return "", str(catalog.locale_identifier or "").partition("@")[0]


def _order(wanted: tuple[str, str], found: tuple[str, str]) -> int | None:
    """Compare languages as `in_order`. A source in the catalog's language means that the catalog is read the other way round."""
    if wanted[0] and not wanted[1] and same_language(wanted[0], found[1]):
        return -1
    return in_order(wanted, found)


def _check_lengths(data: bytes) -> None:
    """Raise ValueError if the strings of an MO file are longer than the file: many would be the same bytes."""
    order = "<" if data[:4] == b"\xde\x12\x04\x95" else ">"
    count, *tables = struct.unpack_from(f"{order}3I", data, 8)
    if sum(sum(struct.unpack_from(f"{order}{2 * count}I", data, table)[::2]) for table in tables) > len(data):
        raise ValueError("its strings are longer than the file")


def _check_message(message: Any) -> None:
    """Raise ValueError if a message has more than two ids, or text that is not Unicode."""
    ids, forms = ([text] if isinstance(text, str) else [part or "" for part in text] for text in (message.id, message.string))
    if len(ids) > 2:
        raise ValueError(f"the message {ids[0]!r:.80} has {len(ids)} ids")
    "".join([*ids, *forms]).encode()


def _pairs(message: Any) -> list[tuple[str, str]]:
    if isinstance(message.id, str):
        return [(message.id, message.string if isinstance(message.string, str) else "")]
    (singular, plural), forms = message.id, [message.string] if isinstance(message.string, str) else [form or "" for form in message.string]
    return [(plural, forms[-1])] if len(forms) < 2 else [(singular, forms[0]), (plural, forms[-1])]
