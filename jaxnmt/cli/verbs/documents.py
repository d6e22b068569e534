"""The option --document of `jaxnmt translate`: a document in, the same document with translations out."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Generator, Iterator
from typing import Any

from jaxnmt.cli.verbs import workers
from jaxnmt.cli.verbs.common import writable
from jaxnmt.errors import UserError
from jaxnmt.io import files, streams
from jaxnmt.parallel import distributed
from jaxnmt.parallel.log import say
from jaxnmt.runs import directory

_OF_LINES = ("input", "json_lines", "prefix_column", "alternatives", "stream", "alignments", "format")
"""Options that are for lines."""


def check_together(options: Any) -> None:
    """Check that the options of `jaxnmt translate` go with --document, and that the file to write can be written.

    Raises:
        UserError: they do not; or --overwrite has no effect.
    """
    if not options.document:
        if options.overwrite:
            raise UserError("--overwrite has no effect without --document, which names the file whose translations it replaces")
        return
    given = [name for name in _OF_LINES if getattr(options, name) != type(options).__dataclass_fields__[name].default]
    given += ["n_best"] * (options.decoding.n_best > 1)
    for name in given:
        raise UserError(f"--{name.replace('_', '-')} is for lines: leave it out, or leave out --document")
    if options.output not in streams.STANDARD:
        writable("--output", options.output)


def translate(run: str, options: Any, translated: Callable[[Any, Iterator[Any]], Generator[tuple[list[str], int]]]) -> None:
    """Translate the document that `options.document` names, and write it whole or not at all.

    Args:
        translated: yields the translations of windows of lines with given options, and the number of the last line.

    Raises:
        UserError: the document cannot be read or written, or there are several processes.
    """
    from jaxnmt.data import identity
    from jaxnmt.decoding.documents import open_document

    if distributed.is_distributed():
        raise UserError("--document is for one process: start one process (--workers divides its work)")
    languages = identity.languages(directory.folder(run), directory.read(run).data)
    document = open_document(options.document, options.overwrite, languages, "--document")
    given = dataclasses.replace(options, format=document.format, protect=True)
    size = options.decoding.batch_size * workers.WINDOW
    windows = workers.numbered(document.lines[start : start + size] for start in range(0, len(document.lines), size))
    found = list[str]()
    with contextlib.closing(translated(given, windows)) as parts:
        for lines, done in parts:
            found += lines
            say(f"{done:,} of {len(document.lines):,} lines translated")
    content = document.written(found)
    if options.output in streams.STANDARD:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    try:
        files.write(files.to_path(options.output), content)
    except OSError as error:
        raise UserError(f"--output {options.output} cannot be written: {error.strerror}") from None
