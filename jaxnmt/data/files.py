"""Sentence pairs in text files: two aligned files, or one file of tab-separated pairs, plain or compressed.

Lines are split at b"\\n" and nowhere else.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from etils import epath

from jaxnmt.data.source import Source
from jaxnmt.errors import UserError
from jaxnmt.io.stat_cache import StatCache
from jaxnmt.io.text_files import COMPRESSED, existing_file, open_text

_NOT_LANGUAGES = set("tsv csv dat src tgt trg ref hyp raw tok bpe spm lc tc out dev val tst".split())
_CODE = r"[a-z]{2,3}(?:[-_](?:[A-Z][a-z]{3}|[A-Z]{2}|[0-9]{3}))*"  # language, script, region: en, zho_Hans, pt-BR, es-419
_LOOSE_CODE = r"[a-z]{2,3}(?:[-_](?:[A-Za-z]{2,4}|[0-9]{3}))*"  # in small letters too: zh-hans


def language_of(path: str) -> str:
    """The language code in a file's name: that of `train.en`, `train.en.xz`, `train.en.txt` and `eng_Latn.dev` (FLORES); "" if there is
    none."""
    parts = _parts(path)
    if len(parts) > 1 and re.fullmatch(_LOOSE_CODE, parts[-1]) and parts[-1] not in _NOT_LANGUAGES:
        return parts[-1]
    return next((part for part in reversed(parts) if re.fullmatch(_CODE, part) and not part.islower()), "")


def languages_of_tsv(path: str) -> tuple[str, str]:
    """The language codes in a TSV's name: `en-tr.tsv` and `train.en-tr.tsv.gz` are `en` and `tr`; ("", "") if there are none."""
    matches = (re.fullmatch(rf"({_CODE})[-_]({_CODE})", part) for part in _parts(path))
    return next(((match[1], match[2]) for match in matches if match), ("", ""))


def _parts(path: str) -> list[str]:
    """A file's name between its dots, without the suffixes of plain and compressed text."""
    parts = epath.Path(path).name.split(".")
    while len(parts) > 1 and f".{parts[-1]}" in (*COMPRESSED, ".txt"):
        parts.pop()
    return parts


def _count_lines(file: epath.Path, field: str) -> int:
    """Lines of a file; a last line without a line end counts."""
    count, last = 0, b"\n"
    with open_text(file, field) as stream:
        while block := stream.read(1 << 20):
            count += block.count(b"\n")
            last = block[-1:]
    return count + (last != b"\n")


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    return (line[:-1] if line.endswith(b"\n") else line for line in stream)


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
        counts = [_count_lines(file, self._field) for file in self._files]
        for file, count in zip(self._files, counts, strict=True):
            if count == 0:
                raise UserError(f"{self._field}: {file} is empty")
        if counts[0] != counts[1]:
            raise UserError(
                f"{self._field}: {self._files[0]} has {counts[0]:,} lines and {self._files[1]} has {counts[1]:,}, but line i of one must "
                "translate line i of the other: find where they part (lines end at \\n only)"
            )
        return counts[0]

    def __len__(self) -> int:
        return self._length

    def pairs(self, start: int = 0) -> Iterator[tuple[bytes, bytes]]:
        with open_text(self._files[0], self._field) as source, open_text(self._files[1], self._field) as target:
            yield from itertools.islice(zip(_lines(source), _lines(target), strict=True), start, None)

    def where(self, index: int) -> str:
        return " / ".join(f"{file}:{index + 1}" for file in self._files)


class TabSeparated(Source):
    """One text file with `source TAB target` on each line. Further columns (attributions, say) are ignored, and so are blank lines at
    the very end.

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
                elif line.strip() or b"\t" in line:  # it has none, or a blank line before it was not at the end
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
