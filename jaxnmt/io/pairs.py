"""Read sentence pairs as a stream, in order: from two files, or from one with a tab between the sides."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator

from jaxnmt.errors import UserError
from jaxnmt.io import text

STDIN = "-"


def read_pairs(source: str, target: str | None = None) -> Iterator[tuple[str, str]]:
    """Return the sentence pairs of files, plain or compressed. Files are read through once to check them; stdin is checked as it comes.

    Args:
        source: a file with one sentence a line, or `-` for stdin. Without a target, its lines are `source TAB target`; further columns are
            ignored.
        target: a file with the translation of each line, or `-`.

    Raises:
        UserError: a file cannot be read or is not text, a line has no tab, or the numbers of lines differ.
    """
    if source == target == STDIN:
        raise UserError("SOURCE and TARGET are both -: name a file for one of them, or leave out TARGET if stdin has `source TAB target`")
    for field, name in (("SOURCE", source), ("TARGET", target)):
        if name not in (STDIN, None):
            text.existing_file(str(name), field)
    if STDIN not in (source, target):
        for _ in _pairs(source, target):
            pass
    return ((text.decode(left), text.decode(right)) for left, right in _pairs(source, target))


def read_texts(name: str) -> Iterator[tuple[str, str]]:
    """Return the lines of a file, or of stdin (`-`), as the targets of pairs with an empty source.

    Raises:
        UserError: the file cannot be read or is not text.
    """
    return (("", text.decode(line.removesuffix(b"\n"))) for line in _lines(name, "SOURCE"))


def _pairs(source: str, target: str | None) -> Iterator[tuple[bytes, bytes]]:
    if target is None:
        for number, line in enumerate(_lines(source, "SOURCE"), 1):
            left, tab, right = line.partition(b"\t")
            if not tab:
                raise UserError(f"SOURCE {source}, line {number} has no tab: give TARGET too, or write source, tab, target on each line")
            yield left, right.partition(b"\t")[0]
        return
    rows = itertools.zip_longest(_lines(source, "SOURCE"), _lines(target, "TARGET"))
    for before, (left, right) in enumerate(rows):
        if left is None or right is None:
            longer = before + 1 + sum(1 for _ in rows)
            lines = (before, longer) if left is None else (longer, before)
            raise UserError(
                f"SOURCE {source} has {lines[0]:,} lines and TARGET {target} has {lines[1]:,}: "
                "find where they diverge (line i must translate line i, and only \\n ends a line)"
            )
        yield left, right


def _lines(name: str, field: str) -> Iterator[bytes]:
    if name == STDIN:
        yield from text.decompressed(sys.stdin.buffer, "stdin", field)
        return
    with text.open_text(text.existing_file(name, field), field) as stream:
        yield from stream
