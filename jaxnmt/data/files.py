"""Sentence pairs in text files: two aligned files, or one file of tab-separated pairs, plain or .gz.

Lines are split at b"\\n" and nowhere else.
"""

from __future__ import annotations

import contextlib
import difflib
import gzip
import itertools
import os
import re
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from etils import epath

from jaxnmt.config import UserError
from jaxnmt.data.source import Source

_NOT_LANGUAGES = {"txt", "gz", "tsv", "src", "tgt", "trg", "ref", "hyp", "raw", "tok", "bpe", "spm", "lc", "tc", "out", "dat", "csv"}


def language_of(path: str) -> str:
    """The language code in a file's name: `train.en`, `train.en.gz` and `train.en.txt` are `en`; "" if there is none."""
    suffixes = epath.Path(path).name.split(".")[1:]
    while suffixes and suffixes[-1] in ("gz", "txt"):
        suffixes.pop()
    last = suffixes[-1] if suffixes else ""
    return last if re.fullmatch(r"[a-z]{2,3}([_-][A-Za-z]{2,4})?", last) and last not in _NOT_LANGUAGES else ""


def languages_of_tsv(path: str) -> tuple[str, str]:
    """The language codes in a TSV's name: `en-tr.tsv` and `train.en-tr.tsv.gz` are `en` and `tr`; ("", "") if there are none."""
    matches = (re.fullmatch(r"([a-z]{2,3})[-_]([a-z]{2,3})", part) for part in epath.Path(path).name.split("."))
    return next(((match[1], match[2]) for match in matches if match), ("", ""))


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


@contextlib.contextmanager
def _reading(file: epath.Path, field: str) -> Iterator[BinaryIO]:
    """Opens a file, gunzipping `.gz`, and turns failures of reading into UserErrors."""
    try:
        with file.open("rb") as raw:
            if file.name.endswith(".gz"):
                with gzip.open(raw, "rb") as unzipped:
                    yield unzipped  # type: ignore[misc]
            else:
                yield raw  # type: ignore[misc]
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{field}: {file} is no complete gzip file ({error}): fetch or compress it again") from error
    except PermissionError as error:
        raise UserError(f"{field}: {file} may not be read: check its permissions") from error


def _count_lines(file: epath.Path, field: str) -> int:
    """Lines of a file; a last line without a line end counts."""
    count, last = 0, b"\n"
    with _reading(file, field) as stream:
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

    def __init__(self, source: str, target: str, weight: float = 1.0, field: str = "data") -> None:
        super().__init__(f"{source},{target}", weight, language_of(source), language_of(target))
        self._field = field
        self._files = existing_file(source, field), existing_file(target, field)
        counts = [_count_lines(file, field) for file in self._files]
        for file, count in zip(self._files, counts, strict=True):
            if count == 0:
                raise UserError(f"{field}: {file} is empty")
        if counts[0] != counts[1]:
            raise UserError(
                f"{field}: {source} has {counts[0]:,} lines and {target} has {counts[1]:,}, but line i of one must translate line i "
                "of the other: find where they part (lines end at \\n only)"
            )
        self._length = counts[0]

    def __len__(self) -> int:
        return self._length

    def pairs(self, start: int = 0) -> Iterator[tuple[bytes, bytes]]:
        with _reading(self._files[0], self._field) as source, _reading(self._files[1], self._field) as target:
            yield from itertools.islice(zip(_lines(source), _lines(target), strict=True), start, None)

    def where(self, index: int) -> str:
        return " / ".join(f"{file}:{index + 1}" for file in self._files)


class TabSeparated(Source):
    """One text file with `source TAB target` on each line. Further columns (attributions, say) are ignored, and so are blank lines at
    the very end.

    Raises:
        UserError: the file cannot be read or is empty, or another line has no tab.
    """

    def __init__(self, path: str, weight: float = 1.0, field: str = "data") -> None:
        super().__init__(path, weight, *languages_of_tsv(path))
        self._field = field
        self._file = existing_file(path, field)
        self._length = 0
        with _reading(self._file, field) as stream:
            for number, line in enumerate(stream, 1):
                if b"\t" in line and number == self._length + 1:
                    self._length = number
                elif line.strip() or b"\t" in line:  # it has none, or a blank line before it was not at the end
                    raise UserError(f"{field}: {path}:{self._length + 1} has no tab; every line must be: source, tab, target")
        if not self._length:
            raise UserError(f"{field}: {path} is empty")

    def __len__(self) -> int:
        return self._length

    def pairs(self, start: int = 0) -> Iterator[tuple[bytes, bytes]]:
        with _reading(self._file, self._field) as stream:
            for line in itertools.islice(_lines(stream), start, self._length):
                source, target = line.split(b"\t", 2)[:2]
                yield source, target

    def where(self, index: int) -> str:
        return f"{self._file}:{index + 1}"
