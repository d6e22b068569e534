"""Open users' text files for reading: plain or compressed (gzip, xz, bzip2, Zstandard), recognised by their first bytes.

What is not UTF-8 text (UTF-16, archives, PDF) is refused with the command that converts it. Reading is a stream: memory does not grow with
the file.
"""

from __future__ import annotations

import bz2
import contextlib
import difflib
import functools
import gzip
import importlib
import io
import lzma
import os
import pathlib
import re
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

from etils import epath

from jaxnmt.errors import UserError

_HEAD = 4096
"""Bytes at the start of a file that are looked at."""
_BLOCK = 1 << 16
"""Bytes that are decompressed at a time."""


class _Compression(NamedTuple):
    name: str
    magic: re.Pattern[bytes]
    open: Callable[[Any], Any]


def _open_zstandard(raw: BinaryIO) -> Any:
    # The package `zstandard` is no alternative: it takes a truncated file for a whole one.
    for module in ("compression.zstd", "backports.zstd"):  # Python's own from 3.14 on, and the same for older ones
        with contextlib.suppress(ImportError):
            return importlib.import_module(module).open(raw)
    raise UserError("reading Zstandard files needs the package backports.zstd: pip install backports.zstd")


_COMPRESSIONS = {
    ".gz": _Compression("gzip", re.compile(rb"\x1f\x8b\x08"), gzip.open),
    ".xz": _Compression("xz", re.compile(rb"\xfd7zXZ\x00"), lzma.open),
    ".bz2": _Compression("bzip2", re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"), bz2.open),
    ".zst": _Compression("Zstandard", re.compile(rb"\x28\xb5\x2f\xfd"), _open_zstandard),
}
COMPRESSED = tuple(_COMPRESSIONS)
"""Suffixes of the compressed files that can be read."""

_NOT_TEXT = {  # the first bytes, what the file is, and how text is made of it
    re.compile(rb"PK\x03\x04"): ("a zip archive", "unpack it with `unzip {}` and name the text files in it"),
    re.compile(rb"7z\xbc\xaf\x27\x1c"): ("a 7z archive", "unpack it with `7z x {}` and name the text files in it"),
    re.compile(rb".{257}ustar", re.DOTALL): ("a tar archive", "unpack it with `tar -xf {}` and name the text files in it"),
    re.compile(rb"%PDF-"): ("a PDF document", "extract its text first, with `pdftotext {}` for example"),
}
_BYTE_ORDER_MARKS = {b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}  # longest first


def existing_file(path: str, field: str) -> epath.Path:
    """The path of a readable file.

    Raises:
        UserError: it is missing (the nearest name in its folder is suggested), a folder, or no plain file.
    """
    file = epath.Path(path).expanduser()
    if file.is_dir():
        raise UserError(f"{field}: {path} is a folder, not a file: name the files in it")
    local = os.fspath(file)
    if file.is_file() and (os.path.isfile(local) or not os.path.exists(local)):  # etils takes a pipe for a file
        return file
    if file.exists():
        raise UserError(f"{field}: {path} is not a plain file, and it must be read more than once: write it to a file first")
    if not file.parent.is_dir():
        raise UserError(f"{field}: there is no file {path} (nor a folder {file.parent})")
    near = difflib.get_close_matches(file.name, [other.name for other in file.parent.iterdir()], n=1)
    hint = f"did you mean {file.parent / near[0]}?" if near else "check the path"
    raise UserError(f"{field}: there is no file {path}: {hint}")


def open_text(file: epath.Path, field: str) -> BinaryIO:
    """Open a text file, decompressing it where its first bytes say so; close it, or use it in a `with` statement.

    Raises:
        UserError: it may not be read, or is not text. While it is read: it is truncated or damaged.
    """
    try:
        raw = file.open("rb")
    except PermissionError as error:
        raise UserError(f"{field}: {file} may not be read: check its permissions") from error
    return decompressed(raw, str(file), field)


def decompressed(raw: Any, name: str, field: str) -> BinaryIO:
    """The text in an open binary file or stream, as `open_text` gives it. A stream is waited for until it brings its first bytes.

    Raises:
        UserError: as `open_text`.
    """
    raw = raw if hasattr(raw, "peek") else io.BufferedReader(raw)  # files in buckets have none
    try:
        head = raw.peek(_HEAD)[:_HEAD]
        compression = next((each for each in _COMPRESSIONS.values() if each.magic.match(head)), None)
        if compression is None:
            if named := _COMPRESSIONS.get(pathlib.PurePath(name).suffix):
                raise UserError(f"{field}: {name} is not {named.name} data, as its name says: fetch it again, or rename it if it is text")
            _refuse_other_than_text(head, name, field)
            return raw
        text = io.BufferedReader(_Decompressed(compression, raw, name, field), _BLOCK)
        head = text.peek(_HEAD)[:_HEAD]
        if any(each.magic.match(head) for each in _COMPRESSIONS.values()):
            raise UserError(f"{field}: {name} is compressed twice: decompress it once")
        _refuse_other_than_text(head, name, field)
        return text
    except UserError:
        raw.close()
        raise


class _Decompressed(io.RawIOBase):
    """A compressed file's content; failures of reading are UserErrors."""

    def __init__(self, compression: _Compression, raw: BinaryIO, name: str, field: str) -> None:
        self._raw, self._what, self._where = raw, compression.name, f"{field}: {name}"
        self._file = self._telling(functools.partial(compression.open, raw))

    def _telling(self, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except UserError as error:
            raise UserError(f"{self._where}: {error}") from None
        except Exception as error:  # each library raises its own
            raise UserError(f"{self._where} is not a whole {self._what} file ({error}): fetch or compress it again") from error

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._telling(functools.partial(self._file.readinto, buffer))

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


def _refuse_other_than_text(head: bytes, name: str, field: str) -> None:
    """Raise UserError where a file's first bytes are not those of UTF-8 text."""
    for magic, (kind, how) in _NOT_TEXT.items():
        if magic.match(head):
            raise UserError(f"{field}: {name} is {kind}, not text: {how.format(name)}")
    if encoding := next((each for mark, each in _BYTE_ORDER_MARKS.items() if head.startswith(mark)), "") or _wide(head):
        raise UserError(f"{field}: {name} is {encoding}, and text must be UTF-8: convert it with `iconv -f {encoding} -t UTF-8 {name}`")


def _wide(head: bytes) -> str:
    """Return the encoding of text with two or four bytes a character; "" for other text, also for damaged UTF-8 with a few NULs.

    Spaces, digits and ends of lines have a NUL in all scripts, in UTF-16LE the second of two bytes.
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
    """Return whether bytes are characters of UTF-16, spaces and ends of lines among them, and no control characters."""
    try:
        text = head[: len(head) // 2 * 2].decode(encoding, "strict" if len(head) < _HEAD else "ignore")
    except UnicodeDecodeError:
        return False
    return bool({" ", "\n"} & set(text)) and all(letter.isprintable() or letter in "\t\n\r\u3000\u00a0" for letter in text)


def read_lines(name: str, field: str) -> list[str]:
    """Lines of a UTF-8 file, plain or compressed, split at b"\\n" alone, white space at their ends dropped: what sacreBLEU's command reads.

    Raises:
        UserError: it cannot be read, or is not UTF-8.
    """
    with open_text(existing_file(name, field), field) as file:
        data = file.read()
    try:
        lines = data.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{field}: {name} is not UTF-8 text ({error}): convert it with iconv, or mend that line") from None
    return [line.rstrip() for line in (lines if lines[-1] else lines[:-1])]
