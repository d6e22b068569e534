"""Read users' text files: plain or compressed (gzip, xz, bzip2, Zstandard), recognised by their first bytes.

Files that are not UTF-8 text (UTF-16, archives, PDF) are refused with the command that converts them. Reading is a stream: memory does not
grow with the file. Only b"\\n" ends a line, so that no other character can shift one side of a corpus against the other.
"""

from __future__ import annotations

import bz2
import difflib
import gzip
import importlib
import io
import lzma
import pathlib
import re
import unicodedata
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

from jaxnmt.errors import UserError
from jaxnmt.io import files

_HEAD = 4096
"""Number of bytes at the start of a file that are inspected."""
_BLOCK = 1 << 16
"""Number of bytes that are decompressed at a time."""

_CONTROLS = [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029]
_NORMALISED: dict[int, str | None] = {**dict.fromkeys(_CONTROLS, " "), 0xFEFF: None}


def normalise(text: str) -> str:
    """Return text as one line: control characters and other line ends become spaces, byte order marks are removed, the ends are stripped.

    Training, validation and translation all use it.
    """
    return text.translate(_NORMALISED).strip()


def decode(line: bytes) -> str:
    """Decode a line and normalise it. Bytes that are not UTF-8 become U+FFFD, so that one line stays one line."""
    return normalise(line.decode("utf-8", "replace"))


def decode_columns(line: bytes) -> str:
    """Decode each column of a line, as `decode` does. Tabs stay between them."""
    return "\t".join(map(decode, line.split(b"\t")))


def canonical(text: str, normalization: str) -> str:
    """Return text in the Unicode form of `tokenizer.normalization`: composed ("nfc") or unchanged ("none")."""
    return unicodedata.normalize("NFC", text) if normalization == "nfc" else text


class _Compression(NamedTuple):
    name: str
    magic: re.Pattern[bytes]
    open: Callable[[Any], Any]


def _open_zstandard(raw: BinaryIO) -> Any:
    # The package `zstandard` is no alternative: it accepts a truncated file as complete.
    try:
        module = importlib.import_module("compression.zstd")  # from Python 3.14 on
    except ImportError:
        module = importlib.import_module("backports.zstd")
    return module.open(raw)


_COMPRESSIONS = {
    ".gz": _Compression("gzip", re.compile(rb"\x1f\x8b\x08"), gzip.open),
    ".xz": _Compression("xz", re.compile(rb"\xfd7zXZ\x00"), lzma.open),
    ".bz2": _Compression("bzip2", re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"), bz2.open),
    ".zst": _Compression("Zstandard", re.compile(rb"\x28\xb5\x2f\xfd"), _open_zstandard),
}
COMPRESSED = tuple(_COMPRESSIONS)
"""Suffixes of compressed files that can be read."""


def suffix_of(name: str) -> str:
    """Return the suffix of a file name, without that of compressed files: `.po` of `fr.po.gz`."""
    path = pathlib.PurePath(name)
    return (path.with_suffix("") if path.suffix in COMPRESSED else path).suffix


_NOT_TEXT = {  # first bytes: (what the file is, how to get its text)
    re.compile(rb"PK\x03\x04"): ("a zip archive", "name it .zip if it has a pair of text files, or unpack it with `unzip {}`"),
    re.compile(rb"7z\xbc\xaf\x27\x1c"): ("a 7z archive", "unpack it with `7z x {}` and name the text files in it"),
    re.compile(rb".{257}ustar", re.DOTALL): ("a tar archive", "unpack it with `tar -xf {}` and name the text files in it"),
    re.compile(rb"%PDF-"): ("a PDF document", "extract its text first, for example with `pdftotext {}`"),
}
_BYTE_ORDER_MARKS = {b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}  # longest first


def existing_file(name: str, field: str) -> pathlib.Path:
    """Return the path of a regular file, on this computer or in a bucket.

    Args:
        field: the setting that names the file, for messages.

    Raises:
        UserError: the file is missing (the message suggests the nearest name in its folder), a folder, or not a regular file.
    """
    file = files.to_path(name)
    try:
        if file.is_file():
            return file
        if file.is_dir():
            raise UserError(f"{field}: {name} is a folder, not a file: name the files in it")
        if file.exists():
            raise UserError(f"{field}: {name} is not a regular file, and it must be read more than once: write it to a file first")
        near = difflib.get_close_matches(file.name, [other.name for other in file.parent.iterdir()], n=1)
    except OSError as error:
        raise UserError(f"{field}: {name} cannot be opened ({error.strerror}): check the path") from None
    raise UserError(f"{field}: there is no file {name}: {f'did you mean {file.parent / near[0]}?' if near else 'check the path'}")


def open_text(file: pathlib.Path, field: str) -> BinaryIO:
    """Open a text file for reading in bytes and decompress it if its first bytes say so.

    Raises:
        UserError: the file may not be read, or is not text. While it is read: it is truncated or damaged.
    """
    return decompressed(_open(file, field), str(file), field)


def open_binary(file: pathlib.Path, field: str) -> BinaryIO:
    """Open a file of any content, as `open_text` opens text."""
    return decompressed(_open(file, field), str(file), field, is_text=False)


def _open(file: pathlib.Path, field: str) -> Any:
    try:
        return file.open("rb")
    except PermissionError as error:
        raise UserError(f"{field}: {file} may not be read: check its permissions") from error


def decompressed(raw: Any, name: str, field: str, is_text: bool = True) -> BinaryIO:
    """Return the content of an open binary file or stream, as `open_text` does. On a stream, wait for the first bytes.

    Args:
        name: of the file, for messages.
        field: the setting that names the file, for messages.
        is_text: refuse what is not UTF-8 text.

    Raises:
        UserError: as `open_text`.
    """
    raw = raw if hasattr(raw, "peek") else io.BufferedReader(raw)  # files in buckets lack `peek`
    head = raw.peek(_HEAD)[:_HEAD]
    if compression := _compression_of(head):
        raw = io.BufferedReader(_Decompressed(compression, raw, f"{field}: {name}"), _BLOCK)
        head = raw.peek(_HEAD)[:_HEAD]
        if _compression_of(head):
            raise UserError(f"{field}: {name} is compressed twice: decompress it once")
    elif named := _COMPRESSIONS.get(pathlib.PurePath(name).suffix):
        raise UserError(f"{field}: {name} is not {named.name} data, as its name says: fetch it again, or rename it if it is text")
    if is_text:
        _refuse_other_than_text(head, name, field)
    return raw


def _compression_of(head: bytes) -> _Compression | None:
    return next((each for each in _COMPRESSIONS.values() if each.magic.match(head)), None)


class _Decompressed(io.RawIOBase):
    """The content of a compressed file. Reading raises UserError if the file is damaged."""

    def __init__(self, compression: _Compression, raw: BinaryIO, where: str) -> None:
        self._raw, self._compression, self._where = raw, compression.name, where
        try:
            self._file = compression.open(raw)
        except ImportError:
            raise UserError(f"{where} is {compression.name} data, which needs a package: pip install backports.zstd") from None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            return self._file.readinto(buffer)
        except Exception as error:  # each library raises its own
            raise UserError(f"{self._where} is not a whole {self._compression} file ({error}): fetch or compress it again") from error

    def close(self) -> None:
        self._raw.close()
        super().close()


def _refuse_other_than_text(head: bytes, name: str, field: str) -> None:
    """Raise UserError if the first bytes of a file are not UTF-8 text."""
    for magic, (kind, remedy) in _NOT_TEXT.items():
        if magic.match(head):
            raise UserError(f"{field}: {name} is {kind}, not text: {remedy.format(name)}")
    if encoding := next((each for mark, each in _BYTE_ORDER_MARKS.items() if head.startswith(mark)), "") or _wide_encoding(head):
        raise UserError(f"{field}: {name} is {encoding}, and text must be UTF-8: convert it with `iconv -f {encoding} -t UTF-8 {name}`")


def _wide_encoding(head: bytes) -> str:
    """Return the encoding of UTF-16 or UTF-32 text without a byte order mark; "" for other text, also for UTF-8 with a few NULs.

    In every script, spaces, digits and line ends contain a NUL: the second of two bytes in UTF-16LE.
    """
    nuls = head.count(0) / max(len(head), 4)
    if nuls > 0.6:
        return "UTF-32LE" if head[0] else "UTF-32BE"
    if nuls >= 0.1 and head.count(0) >= 4:
        return "UTF-16LE" if head[1::2].count(0) > head[::2].count(0) else "UTF-16BE"
    if nuls >= 0.01 and head.count(0) >= 4:
        return next((encoding for encoding in ("UTF-16LE", "UTF-16BE") if _is_utf16(head, encoding)), "")
    return ""


def _is_utf16(head: bytes, encoding: str) -> bool:
    """Return whether bytes decode to printable characters with spaces or line ends among them."""
    try:
        text = head[: len(head) // 2 * 2].decode(encoding, "strict" if len(head) < _HEAD else "ignore")
    except UnicodeDecodeError:
        return False
    return bool({" ", "\n"} & set(text)) and all(letter.isprintable() or letter in "\t\n\r\u3000\u00a0" for letter in text)


def read_lines(name: str, field: str) -> list[str]:
    """Return the lines of a UTF-8 file, plain or compressed, without trailing white space, as the `sacrebleu` command reads them.

    Raises:
        UserError: the file cannot be read, or is not UTF-8.
    """
    with open_text(existing_file(name, field), field) as file:
        data = file.read()
    try:
        lines = data.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{field}: {name} is not UTF-8 text ({error}): convert it with iconv, or correct that line") from None
    return [line.rstrip() for line in (lines if lines[-1] else lines[:-1])]
