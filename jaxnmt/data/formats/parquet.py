"""Hugging Face datasets on disk: Parquet files, or the Arrow files of `save_to_disk`, read by pyarrow.

A row has a column `translation`, {"en": ..., "de": ...}, or a column of text for each language. Scores, if needed,
are in the column `score`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxnmt.data.formats.units import Entry, Reader, Request, scored
from jaxnmt.data.language_codes import same_language
from jaxnmt.errors import UserError, first_line
from jaxnmt.io.table_folders import SUFFIXES, folder_and_split, splits_of
from jaxnmt.io.text import existing_file

_ROWS = 64
"""Rows that are read at a time. Few, since a short file may promise very long texts."""

_SCORE = "score"
"""The column of scores."""


class Parquet(Reader):
    """The rows with both sides."""

    has_scores = True

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise UserError(f"{request.where} needs a package: pip install 'jaxnmt[parquet]'") from None

    def find_files(self, request: Request) -> list[Path]:
        """Return the file, or the files of a folder's split.

        Raises:
            UserError: there are several splits, and none is named, or one that does not exist.
        """
        if request.name.endswith(SUFFIXES):
            return [existing_file(request.name, request.field)]
        found = folder_and_split(request.name)
        if not found:
            raise UserError(f"{request.where} is compressed as a whole, and such tables are not read: decompress it")
        folder, split = found
        splits = splits_of(folder)
        if (split and split not in splits) or (not split and len(splits) > 1):
            raise UserError(f"{request.where}: name one of its splits, such as {folder}:{next(iter(splits))} ({', '.join(splits)})")
        return splits[split] if split else next(iter(splits.values()))

    def languages(self) -> tuple[str, str]:
        """Return the requested languages, and for one that is not requested the first other language of the columns."""
        with self._opened(self.files[0]) as (schema, _):
            found, (source, target) = self._codes(schema), self.request.languages
        others = [code for code in found if not any(same_language(each, code) for each in (source, target) if each)]
        source = source or next(iter(others), "")
        target = target or next((code for code in others if code != source), "")
        for language in (source, target):
            if not any(language and same_language(language, code) for code in found):
                raise UserError(
                    f"{self.request.where} has no text in {language or 'a second language'}; it has {', '.join(found) or 'none'}"
                )
        return source, target

    def _codes(self, schema: Any) -> list[str]:
        """Return the names of the columns of text, or of the fields of `translation`."""
        import pyarrow

        fields = schema.field("translation").type if "translation" in schema.names else schema
        if not (isinstance(fields, pyarrow.Schema) or pyarrow.types.is_struct(fields)):
            raise UserError(f"{self.request.where}: the column translation is {fields}, not a text for each language")
        fields = [fields.field(i) for i in range(fields.num_fields)] if isinstance(fields, pyarrow.DataType) else list(fields)
        return [field.name for field in fields if pyarrow.types.is_string(field.type) or pyarrow.types.is_large_string(field.type)]

    def entries(self, languages: tuple[str, str]) -> Iterator[Entry]:
        for path in self.files:
            row = 0
            with self._opened(path) as (schema, read):
                codes = self._codes(schema)
                keys = [next((code for code in codes if same_language(language, code)), "") for language in languages]
                if not all(keys):
                    raise UserError(f"{self.request.where}: {path.name} has no text in {' or '.join(languages)}")
                self._check_scores(schema, path)
                for batch in read(keys):
                    batch.validate(full=True)  # offsets of a damaged file lead to other memory
                    for sides, score in zip(self._rows(batch, keys), self._scores(batch), strict=True):
                        row += 1
                        source, target = ((side or "").encode() for side in sides)
                        yield self._entry(f": {path.name} row {row}", source, target, score)

    def _entry(self, place: str, source: bytes, target: bytes, score: Any) -> Entry:
        if not source or not target:
            return Entry(place, source, target, "without a side")
        if not self.request.needs_scores:
            return Entry(place, source, target)
        if score is None or math.isnan(score):
            raise UserError(
                f"{self.request.where}{place}: {_SCORE} is empty or NaN; data.min_score and data.weigh_by_score need a number in every row"
            )
        return scored(self.request, place, source, target, float(score))

    def _check_scores(self, schema: Any, path: Path) -> None:
        """Raise UserError if scores are needed and the file has no numeric column `score`."""
        from pyarrow import types

        if not self.request.needs_scores:
            return
        kinds = [field.type for field in schema if field.name == _SCORE]
        if len(kinds) != 1 or not any(is_kind(kinds[0]) for is_kind in (types.is_floating, types.is_integer, types.is_decimal)):
            raise UserError(
                f"{self.request.where}: {path.name} must have one column {_SCORE} of numbers for data.min_score and data.weigh_by_score"
            )

    def _scores(self, batch: Any) -> list[Any]:
        return batch.column(_SCORE).to_pylist() if self.request.needs_scores else [None] * len(batch)

    def _rows(self, batch: Any, keys: Sequence[str]) -> Iterator[tuple[str | None, ...]]:
        struct = batch.column("translation") if "translation" in batch.schema.names else None
        columns = [batch.column(key) if struct is None else struct.field(key) for key in keys]
        for start in range(0, len(batch), _ROWS):
            yield from zip(*(column.slice(start, _ROWS).to_pylist() for column in columns), strict=True)

    @contextlib.contextmanager
    def _opened(self, path: Path) -> Iterator[tuple[Any, Callable[[Sequence[str]], Iterator[Any]]]]:
        """Open a file: its schema, and a function that reads the batches of some columns of text."""
        import pyarrow
        from pyarrow import ipc, parquet

        scores = [_SCORE] if self.request.needs_scores else []
        try:
            with path.open("rb") as file:
                if path.suffix == ".arrow":
                    with ipc.open_stream(file) as stream:
                        schema = stream.schema

                    def read(keys: Sequence[str]) -> Iterator[Any]:
                        file.seek(0)
                        columns = [*(["translation"] if "translation" in schema.names else keys), *scores]
                        fields = [schema.get_field_index(column) for column in columns]
                        yield from ipc.open_stream(file, options=ipc.IpcReadOptions(included_fields=fields))

                else:
                    opened = parquet.ParquetFile(file)
                    schema = opened.schema_arrow

                    def read(keys: Sequence[str]) -> Iterator[Any]:
                        prefix = "translation." if "translation" in schema.names else ""
                        yield from opened.iter_batches(_ROWS, columns=[*(prefix + key for key in keys), *scores])

                yield schema, read
        except (pyarrow.ArrowException, OSError, MemoryError, UnicodeDecodeError) as error:
            kind = path.suffix.removeprefix(".")
            raise UserError(
                f"{self.request.field}: {path} is not a {kind} file that can be read ({first_line(error)}): fetch it again"
            ) from None
