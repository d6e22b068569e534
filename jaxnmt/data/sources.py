"""Open the sources that `data.train`, `data.validation` and `data.test` name (the words are described at `config.Data`).

Here are the sources that are text files, plain or compressed, and Python's own pairs. TFDS datasets are in `datasets`, other files in
`formats`.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Literal

from jaxnmt.config import Data, Experiment
from jaxnmt.data.formats import is_format, open_format
from jaxnmt.data.formats.units import Request, Units
from jaxnmt.data.language_codes import language_of, languages_of_tsv
from jaxnmt.data.source import Changed, Source, StatCache
from jaxnmt.errors import UserError
from jaxnmt.io import files
from jaxnmt.io.text import COMPRESSED, existing_file, open_text

OUR_DATASETS = ("multi30k", "phrases", "scenes", "debian")

_DATASET = re.compile(r"(?P<name>[a-z][a-z0-9_]*)(/(?P<config>[^/:,]+))?(:(?P<split>[^/,]+))?", re.IGNORECASE)


def open_sources(
    words: tuple[str, ...],
    field: str,
    cache: Path | None = None,
    pairs: bool = True,
    pictures: bool = False,
    languages: tuple[str, str] = ("", ""),
    min_score: float | None = None,
    weighs: bool = False,
) -> list[Source]:
    """Open the sources that the words of a field name, in order. Text files are counted and checked.

    Args:
        words: as on the command line, `("a.en", "a.de@3", "multi30k/en-de:train")`.
        field: such as "data.train", for messages.
        cache: the cache folder. Files that it knows, and that have not changed, are not read again. None: all files are read.
        pictures: the source side names pictures, relative to the folder of its file.
        pairs: two text files are a source, line by line. Otherwise each is one, and of other sources the source side is read.
        languages: which two to read of a file that says what languages it has; "": the file decides.
        min_score: leave out the pairs of a TSV or Parquet file whose score is lower.
        weighs: the score of such a pair is its weight in the loss. Without either, these files need no scores.

    Raises:
        UserError: a word is misspelt, or a file is missing, damaged, or does not match its partner.
    """
    sources: list[Source] = []
    has_scores = False
    rest, cache = iter(words), cache and cache / "texts"
    for word in rest:
        text, weight = _split_weight(word, field)
        kind, names = _kind(text), [name for name in text.split(",") if name]
        if kind == "file" and not pairs:
            names = [text, text]
        elif kind == "file":
            if weight is not None:
                raise UserError(f"{field}: {word}: the weight of two files belongs after the second (a.en a.de@{weight:g})")
            partner, weight = _split_weight(next(rest, ""), field)
            if not partner or _kind(partner) != "file":
                raise UserError(f"{field}: {text} has no partner: text files come in pairs, source and target (or use a .tsv file)")
            names = [text, partner]
        elif kind == "files" and len(names) != 2:
            raise UserError(f"{field}: {text} names {len(names)} file(s); two are needed: source,target")
        source = _open(kind, names, Request(names[0], field, languages, min_score, weighs), cache, pictures)
        has_scores |= isinstance(source, Units) and source.has_scores
        source.weight = weight or 1.0
        source = _of_task(source, Path(names[0]).parent, cache, pairs, pictures and kind != "dataset")
        if not len(source):
            left_out = ", ".join(f"{count:,} {reason}" for reason, count in source.left_out().items())
            raise UserError(f"{field}: {source.name} {f'has no pairs; it has {left_out}' if left_out else 'is empty: it has no pairs'}")
        sources.append(source)
    if (weighs or min_score is not None) and sources and not has_scores:
        setting = "data.weigh_by_score" if weighs else "data.min_score"
        raise UserError(f"{field}: none of the sources has scores, as .tsv and Parquet files may have: leave out {setting}")
    return sources


def described(sources: Sequence[Source]) -> list[str]:
    """Return a line for each source with entries that are no pairs: how many, and why."""
    reasons = ((source, ", ".join(f"{count:,} {reason}" for reason, count in source.left_out().items())) for source in sources)
    return [f"{source.name}: {len(source):,} pairs, left out: {left_out}" for source, left_out in reasons if left_out]


def _of_task(source: Source, folder: Path, cache: Path | None, pairs: bool, pictures: bool) -> Source:
    """Return a source as a task reads it: pictures by absolute names, or the source side as both sides if the task has no pairs."""
    if pictures:
        from jaxnmt.data.pictures import Pictures  # which imports a library that other tasks do not need

        return Pictures(source, folder, cache)
    if not pairs:
        source = Changed(source, lambda pair: (pair[0], pair[0]), "source side")
        source.languages = (source.languages[0], source.languages[0])
    return source


def _open(kind: str, names: Sequence[str], request: Request, cache: Path | None, pictures: bool) -> Source:
    field = request.field
    if kind == "format" or (kind == "tsv" and request.needs_scores):
        return open_format(request, cache)
    if kind == "tsv":
        return TabSeparated(names, languages_of_tsv(names[0]), field, cache)
    if kind == "dataset" and names[0].startswith("scenes/"):
        from jaxnmt.data.pictures import Scenes

        return Scenes(names[0], field)
    if kind == "dataset":
        # TFDS takes seconds to import.
        from jaxnmt.data.datasets import open_dataset

        return open_dataset(names[0], field, cache, pictures)
    return AlignedFiles(names, (language_of(names[0]), language_of(names[1])), field, cache)


def sources_of(experiment: Experiment, part: str, cache: Path | None = None) -> list[Source]:
    """Open the sources of a part of the data: what the user's own class gives, or what the field names.

    Args:
        experiment: its `data` and its `task`.
        part: "train", "validation" or "test".
        cache: as in `open_sources`.

    Raises:
        UserError: as `open_sources`; or the user's own class gives something else than pairs of strings, one line each.
    """
    data, task = experiment.data, experiment.task
    if not hasattr(data, "pairs"):
        languages = data.source_language, data.target_language
        scores = (data.min_score, data.weigh_by_score) if part == "train" else (None, False)
        return open_sources(getattr(data, part), f"data.{part}", cache, task.pairs, task.vectors, languages, *scores)
    if data.weigh_by_score or data.min_score is not None:
        setting = "data.weigh_by_score" if data.weigh_by_score else "data.min_score"
        raise UserError(f"{setting} reads scores from files, and {type(data).__name__} gives pairs of its own: leave it out")
    if not (pairs := list(data.pairs(part) or ())):
        return []
    source = PythonPairs(f"{type(data).__name__}:{part}", pairs)
    return [_of_task(source, Path(), cache and cache / "texts", task.pairs, task.vectors)]


def languages_of(data: Data, sources: Sequence[Source]) -> tuple[str, str]:
    """Return the codes of source and target language: from the settings, otherwise from the first source that knows; "" if unknown."""
    known = [(data.source_language, data.target_language), *(source.languages for source in sources)]
    source, target = (next(filter(None, codes), "") for codes in zip(*known, strict=True))
    return source, target


def _is_file(text: str) -> bool:
    # The name is too long, or in a folder that may not be read.
    with contextlib.suppress(OSError):
        return files.to_path(text).is_file()
    return False


def _kind(text: str) -> Literal["files", "tsv", "format", "dataset", "file"]:
    """Return what a word without its weight names: two files, a TSV, a file of `formats`, a dataset, or one of two files.

    `name`, `name/config` and anything with `:split` is a dataset. A suffix, as in `data/train.en`, means a file.
    """
    if text.endswith((".tsv", *(f".tsv{suffix}" for suffix in COMPRESSED))) and "," not in text:
        return "tsv"
    if is_format(text):
        return "format"
    if _is_file(text):
        return "file"
    if "," in text:
        return "files"
    match = _DATASET.fullmatch(text)
    if match is None:
        return "file"
    if match["name"] in OUR_DATASETS or match["split"] or not match["config"]:
        return "dataset"
    return "file" if Path(match["name"]).is_dir() or re.search(r"\.[A-Za-z]+$", match["config"]) else "dataset"


def _split_weight(word: str, field: str) -> tuple[str, float | None]:
    """Split a word into text and weight. An `@` in the name of an existing file, or before a slash, is part of the name."""
    text, at, number = word.rpartition("@")
    if not at or "/" in number or _is_file(word):
        return word, None
    weight = math.nan
    with contextlib.suppress(ValueError):
        weight = float(number)
    if not (math.isfinite(weight) and weight > 0) or not text:
        raise UserError(f"{field}: the weight {number!r} in {word} must be a number above 0, such as @3 or @0.5")
    return text, weight


def _count_lines(file: Path, field: str) -> int:
    """Return the number of lines of a file; a last line without a line end counts."""
    with open_text(file, field) as stream:
        return sum(1 for _ in stream)


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    return (line.removesuffix(b"\n") for line in stream)


class _TextFiles(Source):
    def __init__(self, names: Sequence[str], languages: tuple[str, str], field: str, cache: Path | None) -> None:
        self._field = field
        self._files = [existing_file(name, field) for name in names]
        super().__init__(",".join(dict.fromkeys(names)), languages, StatCache(cache, type(self).__name__, self._files))

    def where(self, index: int) -> str:
        return " / ".join(f"{file}:{index + 1}" for file in dict.fromkeys(self._files))


class AlignedFiles(_TextFiles):
    """Two text files; line i of one translates line i of the other.

    Raises:
        UserError: a file cannot be read. When the pairs are counted: their numbers of lines differ.
    """

    def _count(self) -> int:
        source, target = (_count_lines(file, self._field) for file in self._files)
        if source != target:
            raise UserError(
                f"{self._field}: {self._files[0]} has {source:,} lines and {self._files[1]} has {target:,}: "
                "find where they diverge (line i must translate line i, and only \\n ends a line)"
            )
        return source

    def pairs(self, start: int = 0) -> Iterator[tuple[bytes, bytes]]:
        with open_text(self._files[0], self._field) as source, open_text(self._files[1], self._field) as target:
            yield from itertools.islice(zip(_lines(source), _lines(target), strict=True), start, None)


class TabSeparated(_TextFiles):
    """One text file with `source TAB target` on each line. Further columns are ignored, and so are blank lines at the end.

    Raises:
        UserError: the file cannot be read. When the pairs are counted: another line has no tab.
    """

    def _count(self) -> int:
        count = 0
        with open_text(self._files[0], self._field) as stream:
            for number, line in enumerate(stream, 1):
                if b"\t" in line and number == count + 1:
                    count = number
                # No tab, or a blank line before this one was not at the end.
                elif line.strip() or b"\t" in line:
                    raise UserError(f"{self._field}: {self.name}:{count + 1} has no tab; every line must be: source, tab, target")
        return count

    def pairs(self, start: int = 0) -> Iterator[tuple[bytes, bytes]]:
        with open_text(self._files[0], self._field) as stream:
            for line in itertools.islice(_lines(stream), start, len(self)):
                source, target = line.split(b"\t", 2)[:2]
                yield source, target


class PythonPairs(Source):
    """Sentence pairs that the user's own `Data` class gives."""

    def __init__(self, name: str, pairs: list[tuple[str, str]]) -> None:
        super().__init__(name, ("", ""), StatCache(None, "", ()))
        for number, pair in enumerate(pairs):
            if not (isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(side, str) and "\n" not in side for side in pair)):
                raise UserError(f"{name}: pair {number} is {pair!r}; each must be a tuple of two strings without line ends")
        self._pairs = pairs

    def _count(self) -> int:
        return len(self._pairs)

    def pairs(self, start: int = 0) -> Iterator[tuple[bytes, bytes]]:
        for source, target in self._pairs[start:]:
            yield source.encode(), target.encode()

    def where(self, index: int) -> str:
        return f"{self.name}[{index}]"
