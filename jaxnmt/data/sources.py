"""Open the sources that `data.train`, `data.validation` and `data.test` name (the words are described at `config.Data`)."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from jaxnmt.config import Data
from jaxnmt.data.source import Source
from jaxnmt.data.stat_cache import StatCache
from jaxnmt.data.text_files import AlignedFiles, TabSeparated
from jaxnmt.errors import UserError
from jaxnmt.io import files
from jaxnmt.io.text import COMPRESSED

OUR_DATASETS = ("multi30k", "phrases")

_DATASET = re.compile(r"(?P<name>[a-z][a-z0-9_]*)(/(?P<config>[^/:,]+))?(:(?P<split>[^/,]+))?", re.IGNORECASE)


def open_sources(words: tuple[str, ...], field: str, cache: Path | None = None) -> list[Source]:
    """Open the sources that the words of a field name, in order. Text files are counted and checked.

    Args:
        words: as on the command line, `("a.en", "a.de@3", "multi30k/en-de:train")`.
        field: such as "data.train", for messages.
        cache: the cache folder. Files that it knows, and that have not changed, are not read again. None: all files are read.

    Raises:
        UserError: a word is misspelt, or a file is missing, damaged, or does not match its partner.
    """
    sources: list[Source] = []
    cache = cache and cache / "texts"
    first = ""  # the first of two files
    for word in words:
        text, weight = _split_weight(word, field)
        kind = _kind(text)
        if first and kind != "file":
            break
        if kind == "file" and not first:
            if weight is not None:
                raise UserError(f"{field}: {word}: the weight of two files belongs after the second (a.en a.de@{weight:g})")
            first = text
            continue
        if kind == "file":
            sources.append(AlignedFiles(first, text, weight or 1.0, field, cache))
            first = ""
        elif kind == "files":
            names = text.split(",")
            if len(names) != 2 or not all(names):
                raise UserError(f"{field}: {text} names {len([name for name in names if name])} file(s); two are needed: source,target")
            sources.append(AlignedFiles(names[0], names[1], weight or 1.0, field, cache))
        elif kind == "tsv":
            sources.append(TabSeparated(text, weight or 1.0, field, cache))
        else:
            sources.append(_dataset(text, weight or 1.0, field, cache))
    if first:
        raise UserError(f"{field}: {first} has no partner: text files come in pairs, source and target (or use a .tsv file)")
    return sources


def sources_of(data: Data, part: str, cache: Path | None = None) -> list[Source]:
    """Open the sources of a part of the data: what the user's own class gives, or what the field names.

    Args:
        part: "train", "validation" or "test".
        cache: as in `open_sources`.

    Raises:
        UserError: as `open_sources`; or the user's own class gives something else than pairs of strings, one line each.
    """
    if not hasattr(data, "pairs"):
        return open_sources(getattr(data, part), f"data.{part}", cache)
    return [PythonPairs(f"{type(data).__name__}:{part}", pairs)] if (pairs := list(data.pairs(part) or ())) else []


class PythonPairs(Source):
    """Sentence pairs that the user's own `Data` class gives."""

    def __init__(self, name: str, pairs: list[tuple[str, str]]) -> None:
        super().__init__(name, 1.0, "", "", StatCache(None, "", ()))
        for number, pair in enumerate(pairs):
            if not (isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(side, str) and "\n" not in side for side in pair)):
                raise UserError(f"{name}: pair {number} is {pair!r}; each must be a tuple of two strings without line ends")
        self._pairs = pairs

    def __len__(self) -> int:
        return len(self._pairs)

    def pairs(self, start: int = 0) -> Iterator[tuple[bytes, bytes]]:
        for source, target in self._pairs[start:]:
            yield source.encode(), target.encode()

    def where(self, index: int) -> str:
        return f"{self.name}[{index}]"


def languages_of(data: Data, sources: Sequence[Source]) -> tuple[str, str]:
    """Return the codes of source and target language: from the settings, otherwise from the first source that knows; "" if unknown."""
    return (
        data.source_language or next((s.source_language for s in sources if s.source_language), ""),
        data.target_language or next((s.target_language for s in sources if s.target_language), ""),
    )


def _is_file(text: str) -> bool:
    with contextlib.suppress(OSError):  # the name is too long, or in a folder that may not be read
        return files.to_path(text).is_file()
    return False


def _kind(text: str) -> Literal["files", "tsv", "dataset", "file"]:
    """Return what a word without its weight names: two files, a TSV, a dataset, or one of two files.

    `name`, `name/config` and anything with `:split` is a dataset. A suffix, as in `data/train.en`, means a file.
    """
    if text.endswith((".tsv", *(f".tsv{suffix}" for suffix in COMPRESSED))) and "," not in text:
        return "tsv"
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
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    if not (math.isfinite(weight) and weight > 0) or not text:
        raise UserError(f"{field}: the weight {number!r} in {word} must be a number above 0, such as @3 or @0.5")
    return text, weight


def _dataset(text: str, weight: float, field: str, cache: Path | None) -> Source:
    from jaxnmt.data.datasets import open_dataset  # TFDS takes seconds to import

    match = _DATASET.fullmatch(text)
    assert match is not None
    return open_dataset(match["name"], match["config"] or "", match["split"] or "train", weight, field, cache)
