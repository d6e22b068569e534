"""Sentence pairs in text files, plain or compressed: two aligned files, or one file of tab-separated pairs."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import BinaryIO

from jaxnmt.data.source import Source
from jaxnmt.data.stat_cache import StatCache
from jaxnmt.errors import UserError
from jaxnmt.io.text import COMPRESSED, existing_file, open_text

_NOT_LANGUAGES = set("tsv csv dat src tgt trg ref hyp raw tok bpe spm lc tc out dev val tst".split())
_CODE = r"[a-z]{2,3}(?:[-_](?:[A-Z][a-z]{3}|[A-Z]{2}|[0-9]{3}))*"  # language, script, region: en, zho_Hans, pt-BR, es-419
_LOOSE_CODE = r"[a-z]{2,3}(?:[-_](?:[A-Za-z]{2,4}|[0-9]{3}))*"  # also lower case: zh-hans


def language_of(path: str) -> str:
    """Return the language code in a file name such as `train.en`, `train.en.xz`, `train.en.txt` or `eng_Latn.dev` (FLORES); "" if none."""
    parts = _parts(path)
    if len(parts) > 1 and re.fullmatch(_LOOSE_CODE, parts[-1]) and parts[-1] not in _NOT_LANGUAGES:
        return parts[-1]
    return next((part for part in reversed(parts) if re.fullmatch(_CODE, part) and not part.islower()), "")


def languages_of_tsv(path: str) -> tuple[str, str]:
    """Return the language codes in a TSV's name: `en-tr.tsv` and `train.en-tr.tsv.gz` are `en` and `tr`; ("", "") if none."""
    matches = (re.fullmatch(rf"({_CODE})[-_]({_CODE})", part) for part in _parts(path))
    return next(((match[1], match[2]) for match in matches if match), ("", ""))


def _parts(path: str) -> list[str]:
    """Return the parts of a file name between its dots, without the suffixes of plain and compressed text."""
    parts = PurePath(path).name.split(".")
    while len(parts) > 1 and f".{parts[-1]}" in (*COMPRESSED, ".txt"):
        parts.pop()
    return parts


def _count_lines(file: Path, field: str) -> int:
    """Return the number of lines of a file; a last line without a line end counts."""
    count, last = 0, b"\n"
    with open_text(file, field) as stream:
        while block := stream.read(1 << 20):
            count += block.count(b"\n")
            last = block[-1:]
    if not count and last == b"\n":
        raise UserError(f"{field}: {file} is empty")
    return count + (last != b"\n")


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    return (line.removesuffix(b"\n") for line in stream)


class AlignedFiles(Source):
    """Two text files; line i of one translates line i of the other.

    Raises:
        UserError: a file cannot be read or is empty, or their numbers of lines differ.
    """

    def __init__(self, source: str, target: str, weight: float = 1.0, field: str = "data", cache: Path | None = None) -> None:
        self._field = field
        self._files = existing_file(source, field), existing_file(target, field)
        kept = StatCache(cache, "aligned", self._files)
        super().__init__(f"{source},{target}", weight, language_of(source), language_of(target), kept)
        self._length = kept.get("pairs", self._count)

    def _count(self) -> int:
        source, target = (_count_lines(file, self._field) for file in self._files)
        if source != target:
            raise UserError(
                f"{self._field}: {self._files[0]} has {source:,} lines and {self._files[1]} has {target:,}, but line i of one must "
                "translate line i of the other: find where they diverge (only \\n ends a line)"
            )
        return source

    def __len__(self) -> int:
        return self._length

    def pairs(self, start: int = 0) -> Iterator[tuple[bytes, bytes]]:
        with open_text(self._files[0], self._field) as source, open_text(self._files[1], self._field) as target:
            yield from itertools.islice(zip(_lines(source), _lines(target), strict=True), start, None)

    def where(self, index: int) -> str:
        return " / ".join(f"{file}:{index + 1}" for file in self._files)


class TabSeparated(Source):
    """One text file with `source TAB target` on each line. Further columns are ignored, and so are blank lines at the end.

    Raises:
        UserError: the file cannot be read or is empty, or another line has no tab.
    """

    def __init__(self, path: str, weight: float = 1.0, field: str = "data", cache: Path | None = None) -> None:
        self._field = field
        self._file = existing_file(path, field)
        kept = StatCache(cache, "tsv", [self._file])
        super().__init__(path, weight, *languages_of_tsv(path), kept)
        self._length = kept.get("pairs", self._count)

    def _count(self) -> int:
        count = 0
        with open_text(self._file, self._field) as stream:
            for number, line in enumerate(stream, 1):
                if b"\t" in line and number == count + 1:
                    count = number
                elif line.strip() or b"\t" in line:  # no tab, or a blank line before this one was not at the end
                    raise UserError(f"{self._field}: {self.name}:{count + 1} has no tab; every line must be: source, tab, target")
        if not count:
            raise UserError(f"{self._field}: {self.name} is empty")
        return count

    def __len__(self) -> int:
        return self._length

    def pairs(self, start: int = 0) -> Iterator[tuple[bytes, bytes]]:
        with open_text(self._file, self._field) as stream:
            for line in itertools.islice(_lines(stream), start, self._length):
                source, target = line.split(b"\t", 2)[:2]
                yield source, target

    def where(self, index: int) -> str:
        return f"{self._file}:{index + 1}"
