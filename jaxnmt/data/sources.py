"""From the words of `data.train`, `data.validation` and `data.test` to sources (the words are described at `config.Data`)."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from etils import epath

from jaxnmt.config import Data
from jaxnmt.data.files import AlignedFiles, TabSeparated
from jaxnmt.data.source import Source
from jaxnmt.errors import UserError
from jaxnmt.io.text_files import COMPRESSED

OUR_DATASETS = ("multi30k", "phrases")

_DATASET = re.compile(r"(?P<name>[a-z][a-z0-9_]*)(/(?P<config>[^/:,]+))?(:(?P<split>[^/,]+))?", re.IGNORECASE)


def open_sources(words: tuple[str, ...], field: str, cache: Path | None = None) -> list[Source]:
    """Open the sources that the words of a field name, in their order; text files are counted and checked.

    Args:
        words: as on the command line, `("a.en", "a.de@3", "multi30k/en-de:train")`.
        field: such as "data.train", for messages.
        cache: the cache folder. What it knows of files that have not changed is not read again; None: all files are read.

    Raises:
        UserError: something is misspelt, missing, damaged, or does not fit together.
    """
    sources: list[Source] = []
    cache = cache and cache / "texts"
    waiting: str | None = None  # the first of two files
    for word in words:
        text, weight = _split_weight(word, field)
        kind = _kind(text)
        if kind != "file" and waiting is not None:
            break
        if kind == "files":
            sources.append(_aligned(text, weight or 1.0, field, cache))
        elif kind == "tsv":
            sources.append(TabSeparated(text, weight or 1.0, field, cache))
        elif kind == "dataset":
            sources.append(_dataset(text, weight or 1.0, field, cache))
        elif waiting is not None:
            sources.append(AlignedFiles(waiting, text, weight or 1.0, field, cache))
            waiting = None
        elif weight is None:
            waiting = text
        else:
            raise UserError(f"{field}: {word}: the weight of two files belongs after the second (a.en a.de@{weight:g})")
    if waiting is not None:
        raise UserError(f"{field}: {waiting} has no partner: text files come in pairs, source and target (or use a .tsv file)")
    return sources


def languages_of(data: Data, sources: Sequence[Source]) -> tuple[str, str]:
    """Codes of source and target, "" if unknown: what the fields say, or else the first of `sources` that knows."""
    return (
        data.source_language or next((s.source_language for s in sources if s.source_language), ""),
        data.target_language or next((s.target_language for s in sources if s.target_language), ""),
    )


def _is_file(text: str) -> bool:
    return epath.Path(text).expanduser().is_file()


def _kind(text: str) -> Literal["files", "tsv", "dataset", "file"]:
    """What a word names, its weight cut off: two files, a TSV, a dataset, or one of two files.

    `name`, `name/config` and anything with `:split` is a dataset; a suffix, as in `data/train.en`, means a file.
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
    if match["name"] in OUR_DATASETS or match["split"]:
        return "dataset"
    in_folder = match["config"] is not None and epath.Path(match["name"]).is_dir()
    has_suffix = match["config"] is not None and re.search(r"\.[A-Za-z]+$", match["config"])
    return "file" if in_folder or has_suffix else "dataset"


def _split_weight(word: str, field: str) -> tuple[str, float | None]:
    """A word without its weight, and the weight; an `@` inside an existing file's name or before a slash is no weight."""
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


def _aligned(text: str, weight: float, field: str, cache: Path | None) -> Source:
    files = text.split(",")
    if len(files) != 2 or not all(files):
        raise UserError(f"{field}: {text} names {len([name for name in files if name])} file(s); two are needed: source,target")
    return AlignedFiles(files[0], files[1], weight, field, cache)


def _dataset(text: str, weight: float, field: str, cache: Path | None) -> Source:
    from jaxnmt.data.datasets import open_dataset  # TFDS takes seconds to import

    match = _DATASET.fullmatch(text)
    assert match is not None
    return open_dataset(match["name"], match["config"] or "", match["split"] or "train", weight, field, cache)
