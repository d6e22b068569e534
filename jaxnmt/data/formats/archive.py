"""Zip archives with two aligned text files, as OPUS publishes them: `en-tr.zip` with `X.en-tr.en` and `X.en-tr.tr`.

Members are read as streams; nothing is unpacked to disk.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import BinaryIO, NamedTuple

from jaxnmt.data.formats.units import LONGEST, Entry, Reader
from jaxnmt.data.language_codes import in_order, language_of, languages_of_tsv
from jaxnmt.errors import UserError
from jaxnmt.io.text import decompressed

MOST_FILES = 1000
"""The most files of an archive. Those of OPUS have about six."""
MOST_EXPANSION = 200
"""How many bytes one byte of a member may become. Text becomes 3 to 10, and 1,000 are possible."""
_NOT_TEXT = frozenset(("ids", "xml", "log", "md", "pdf"))
"""Ends of names that look like a language code."""
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError)
"""What the library raises for archives that are damaged, encrypted, or of a kind that it does not know."""


class _Pair(NamedTuple):
    languages: tuple[str, str]
    members: tuple[str, str]

    def swapped(self) -> _Pair:
        (a, b), (c, d) = self
        return _Pair((b, a), (d, c))


class Archive(Reader):
    """The one pair of text files of an archive, or the one of the requested languages."""

    def languages(self) -> tuple[str, str]:
        """Return the languages in the names of the pair's files, or the requested ones."""
        with self._opened() as archive:
            found = self._pair(archive, self.request.languages).languages
        source, target = (wanted or code for wanted, code in zip(self.request.languages, found, strict=True))
        return source, target

    def entries(self, languages: tuple[str, str]) -> Iterator[Entry]:
        with self._opened() as archive:
            names = self._pair(archive, languages).members
            with archive.open(names[0]) as sources, archive.open(names[1]) as targets:
                shown = [_shown(name) for name in names]
                texts = (decompressed(file, name, self.request.where) for file, name in zip((sources, targets), shown, strict=True))
                sides = (self._lines(file, name) for file, name in zip(texts, shown, strict=True))
                for number, (source, target) in enumerate(itertools.zip_longest(*sides), 1):
                    if source is None or target is None:
                        shorter = shown[source is not None]
                        raise UserError(
                            f"{self.request.where}: {shorter} has {number - 1:,} lines and its partner more: line i must translate line i"
                        )
                    yield Entry(f": {' / '.join(f'{name}:{number}' for name in shown)}", source, target)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[zipfile.ZipFile]:
        try:
            with self.files[0].open("rb") as file, zipfile.ZipFile(file) as archive:
                yield archive
        except _DAMAGED as error:
            raise UserError(f"{self.request.where} is not a zip archive that can be read ({error}): fetch it again") from None

    def _lines(self, file: BinaryIO, name: str) -> Iterator[bytes]:
        for number in itertools.count(1):
            line = file.readline(LONGEST + 1)
            if not line:
                return
            if len(line) > LONGEST:
                raise UserError(
                    f"{self.request.where}: {name}:{number} has more than {LONGEST:,} bytes: the file must have one sentence a line"
                )
            yield line.removesuffix(b"\n")

    def _pair(self, archive: zipfile.ZipFile, languages: tuple[str, str]) -> _Pair:
        """Return the pair of these languages, in their order.

        Raises:
            UserError: no pair matches, or several do; or a member has a path outside the archive or expands too much.
        """
        where, members = self.request.where, [each for each in archive.infolist() if not each.is_dir()]
        if len(members) > MOST_FILES:
            raise UserError(
                f"{where} has {len(members):,} files, and at most {MOST_FILES:,} are looked through: unpack it and name two files"
            )
        for member in members:
            path = PurePosixPath(member.filename.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:", member.filename):
                raise UserError(f"{where} has a file {member.filename!r}, whose path leads out of the archive: it is not read")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise UserError(
                    f"{where}: {_shown(member.filename)} is compressed with method {member.compress_type}, and only deflate is read: "
                    "unpack it and name two files"
                )
            if member.file_size > MOST_EXPANSION * max(member.compress_size, 1):
                raise UserError(
                    f"{where}: {_shown(member.filename)} would expand {MOST_EXPANSION} times or more: text expands less; it is not read"
                )
        pairs = _pairs([member.filename for member in members])
        orders = [in_order(languages, pair.languages) for pair in pairs]
        chosen = [pair if order == 1 else pair.swapped() for pair, order in zip(pairs, orders, strict=True) if order]
        if len(chosen) == 1:
            return chosen[0]
        listed = ", ".join(" and ".join(map(_shown, pair.members)) for pair in pairs[:5])
        if not pairs:
            raise UserError(f"{where} has no pair of text files such as X.en-tr.en and X.en-tr.tr (it has {_some(members)})")
        if not chosen:
            raise UserError(f"{where} has no pair of the languages {' and '.join(filter(None, languages))}; it has {listed}")
        raise UserError(f"{where} has {len(chosen)} pairs of text files, {listed}: unpack it and name two files")


def _shown(name: str) -> str:
    """Return a member's name for messages, with control characters as escapes."""
    return repr(name)[1:-1]


def _some(members: Sequence[zipfile.ZipInfo]) -> str:
    return ", ".join(_shown(member.filename) for member in members[:5]) or "no files"


def _pairs(names: Sequence[str]) -> list[_Pair]:
    """Return the pairs of names that differ in the language at their end; if names say `en-tr`, these languages alone."""
    stems: dict[str, dict[str, str]] = {}
    for name in names:
        code = language_of(name)
        if code and code not in _NOT_TEXT and name.removesuffix(".txt").endswith(f".{code}"):
            stems.setdefault(name.removesuffix(".txt").removesuffix(code), {})[code] = name
    found = []
    for stem, by_code in stems.items():
        named = languages_of_tsv(stem.removesuffix("."))
        for pair in [named] if all(code in by_code for code in named) else itertools.combinations(by_code, 2):
            source, target = pair
            found.append(_Pair((source, target), (by_code[source], by_code[target])))
    return found
