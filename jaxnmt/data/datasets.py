"""Pairs from TensorFlow Datasets (ours, and any of translations, of texts and labels, or of pictures and captions), without TensorFlow.

Prepared data is stored as ArrayRecord files in $TFDS_DATA_DIR, by default in the folder of TFDS (~/tensorflow_datasets).
"""

from __future__ import annotations

import collections
import contextlib
import difflib
import functools
import hashlib
import importlib.util
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
import tensorflow_datasets.text  # noqa: F401 (registers its datasets)
import tensorflow_datasets.translate  # noqa: F401 (registers its datasets)
import tensorflow_datasets.vision_language  # noqa: F401 (registers its datasets)
from etils import epath
from tensorflow_datasets.core import shuffle
from tensorflow_datasets.core.download import extractor
from tensorflow_datasets.object_detection import coco

from jaxnmt.data import builders  # noqa: F401 (registers our datasets)
from jaxnmt.data.source import Source, StatCache
from jaxnmt.errors import UserError, first_line
from jaxnmt.io import files

_CAPTIONS = ("captions", "text"), ("captions",), ("caption",), ("text",)
"""Where a record with a picture has its captions, or its caption: the first of these that it has."""
_CHUNK = 1000
"""Records that are read at once: four times faster than one by one."""


class _Sides(NamedTuple):
    """Where a record has its two sides."""

    languages: tuple[str, str]
    keys: tuple[str, ...]
    """The keys of source and target, after the path to them."""
    may_lack: bool = False
    """Whether a record may lack a language (`TranslationVariableLanguages`)."""
    names: tuple[str, ...] = ()
    """If the target is a `ClassLabel`, its classes."""
    picture: str = ""
    """If the source is a picture, its key; `keys` then lead to the captions."""

    def captions(self, record: Any) -> list[bytes]:
        """Return the captions of a record's picture."""
        for key in self.keys:
            record = record[key]
        return [record] if isinstance(record, bytes) else list(record)

    def read(self, record: Any) -> tuple[bytes, bytes] | None:
        """Return the two sides of a record; None if it lacks one."""
        *path, source, target = self.keys
        for key in path:
            record = record[key]
        if self.may_lack:
            record = {language.decode(): text for language, text in zip(record["language"], record["translation"], strict=True)}
        if self.names:  # -1: a text without a label
            return record[source], self.names[record[target]].encode() if record[target] >= 0 else b""
        return (record[source], record[target]) if source in record and target in record else None


class Dataset(Source):
    """A split (or a slice, or a sum of splits) of a prepared TFDS dataset.

    Args:
        name: what the user wrote.
        builder: a prepared `tfds.core.DatasetBuilder`.
        split: a TFDS split expression.
        cache: keeps what was found by reading the files. None: nothing is kept.
    """

    def __init__(self, name: str, sides: _Sides, builder: Any, split: str, cache: Path | None) -> None:
        self._files = builder.info.splits[split].file_instructions
        self._parts = [(part.skip, part.take, part.examples_in_shard) for part in self._files]
        paths = [files.to_path(part.filename) for part in self._files]
        super().__init__(name, sides.languages, StatCache(cache, ["dataset", sides, self._parts], paths))
        # TFDS fails on an empty slice.
        decoders = {sides.picture: tfds.decode.SkipDecoding()} if sides.picture else None
        self._records: Any = builder.as_data_source(split=split, decoders=decoders) if self._files else ()
        self._sides = sides

    @functools.cached_property
    def _rows(self) -> Sequence[int]:
        is_whole = not (self._sides.may_lack or self._sides.picture)
        return range(len(self._records)) if is_whole else self._kept.get("rows", self._whole_rows)

    def _count(self) -> int:
        return len(self._rows)

    def _whole_rows(self) -> list[int]:
        """Return the numbers of the records that have both sides; if they have pictures, each number once for each caption."""
        records = enumerate(self._read(range(len(self._records))))
        if self._sides.picture:
            return [row for row, captions in records for _ in captions]
        return [row for row, pair in records if pair]

    def _read(self, rows: Sequence[int]) -> Iterator[Any]:
        read: Any = self._sides.captions if self._sides.picture else self._sides.read
        for start in range(0, len(rows), _CHUNK):
            yield from map(read, self._records.__getitems__(list(rows[start : start + _CHUNK])))

    def picture(self, row: int) -> bytes:
        """Return the file of a record's picture."""
        return self._records[row][self._sides.picture]

    def _captioned(self, start: int) -> Iterator[tuple[bytes, bytes]]:
        rows = collections.Counter(self._rows[start:])
        for (row, count), captions in zip(rows.items(), self._read(list(rows)), strict=True):
            for caption in captions[-count:]:  # of the first record, earlier ones may be left out
                yield f"{self.name}#{row}".encode(), caption.replace(b"\n", b" ")

    def pairs(self, start: int = 0) -> Iterator[tuple[bytes, bytes]]:
        if self._sides.picture:
            yield from self._captioned(start)
            return
        for source, target in self._read(self._rows[start:]):
            yield source.replace(b"\n", b" "), target.replace(b"\n", b" ")

    def where(self, index: int) -> str:
        return f"{self.name} example {self._rows[index] + 1}"

    def _read_digest(self) -> str:
        """Return the SHA-256 of the prepared files, of which records are read, and of the direction.

        This is much faster than reading the records.
        """
        digest = hashlib.sha256("{}\n{}\n".format(*self.languages).encode())
        for part, numbers in zip(self._files, self._parts, strict=True):
            digest.update("{} {} {}\n".format(*numbers).encode())
            with files.to_path(part.filename).open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()


def open_dataset(text: str, field: str, cache: Path | None, pictures: bool = False) -> Dataset:
    """Open a dataset by name. It is downloaded and prepared on first use.

    Both directions of a language pair work: `wmt14_translate/en-de` reads `de-en` of TFDS with the sides swapped.

    Args:
        text: `name`, `name/config`, `name:split` or `name/config:split`. The split "train" is the default.
        pictures: the source side names pictures, `name:split#number`.

    Raises:
        UserError: there is no such dataset, config or split; it has no translations, labels or captions; it cannot be downloaded or
            prepared.
    """
    word = text if ":" in text else f"{text}:train"
    path, _, split = word.partition(":")
    name, _, config = path.partition("/")
    where = f"{field}: {word}"
    _replace_tensorflow()
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    known = tfds.list_builders(with_community_datasets=False)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "text files come in pairs, source and target"
        raise UserError(f"{where}: there is no file and no TFDS dataset {name}: {hint}")
    builder_config, pair = _find_config(name, config, field)
    # TFDS itself reads the variable only when it is imported.
    data_dir = os.environ.get("TFDS_DATA_DIR")
    make = functools.partial(tfds.builder, name, config=builder_config, file_format="array_record", data_dir=data_dir)
    builder = make()
    sides = _picture_sides(builder, where) if pictures else _sides(builder, pair, where)
    if not builder.data_path.exists():
        _prepare(make, where)
    # A new builder reads the data that are there now.
    builder = make()
    try:
        return Dataset(word, sides, builder, split, cache)
    except NotImplementedError as error:
        raise UserError(f"{where} was prepared in a format that needs TensorFlow: delete {builder.data_path} and try again") from error
    except (ValueError, KeyError) as error:
        splits = ", ".join([*builder.info.splits, "slices such as train[:90%]"])
        raise UserError(f"{where} cannot be read: {first_line(error)} (there are {splits})") from error


def _replace_tensorflow() -> None:
    """Let TFDS download and prepare datasets without TensorFlow. If TensorFlow is installed, nothing changes.

    Two modules of TFDS use TensorFlow's file functions to unpack archives and to shuffle data that does not fit in memory, and one a type.
    """
    if importlib.util.find_spec("tensorflow"):
        return
    gfile = SimpleNamespace(
        GFile=lambda path, mode: epath.Path(path).open(mode),
        exists=lambda path: epath.Path(path).exists(),
        remove=lambda path: epath.Path(path).unlink(),
    )
    coco.tf = SimpleNamespace(int64=np.int64)
    extractor.tf = shuffle.tf = SimpleNamespace(
        compat=SimpleNamespace(as_text=os.fsdecode),
        io=SimpleNamespace(gfile=gfile),
        # TFDS catches this error. No error is of kind (), so that an OSError passes.
        errors=SimpleNamespace(ResourceExhaustedError=()),
    )


def _split_pair(config: str) -> tuple[str, str] | None:
    """Return the languages in a config's name, such as `de-en`; None if it names no pair."""
    code = r"([a-z]{2,3}(?:[-_][A-Z]\w+)?)"
    match = re.fullmatch(rf"{code}(?:-|_to_|_){code}", config)
    return (match[1], match[2]) if match else None


def _find_config(name: str, config: str, field: str) -> tuple[Any, tuple[str, str] | None]:
    """Return the config for `tfds.builder` and the requested language pair (None: the dataset's own order)."""
    configs = list(tfds.builder_cls(name).builder_configs)
    pair = _split_pair(config)
    directions = (pair, pair[::-1]) if pair else ()
    spellings = [config, *(f"{a}{between}{b}" for a, b in directions for between in ("-", "_to_", "_", ""))]
    if found := next((spelling for spelling in spellings if spelling in configs), None):
        return found, pair
    # A size may follow: en-fr-200000.
    sized = re.fullmatch("(.*)-[1-9][0-9]*", config)
    if name == "phrases" and sized and sized[1] in configs:
        return tfds.core.BuilderConfig(name=config), _split_pair(sized[1])
    # One config may have many languages, such as that of ted_multi_translate.
    if len(configs) <= 1 and (pair or not config):
        return None, pair
    near = ", ".join(difflib.get_close_matches(config, configs, n=3) or configs[:12])
    raise UserError(f"{field}: {name} has no config {config!r}; name one, such as {near}")


def _sides(builder: Any, pair: tuple[str, str] | None, where: str) -> _Sides:
    """Find the two sides in the features of a dataset."""
    info, features = builder.info, builder.info.features
    for path, feature in [((), features), *(((key,), features[key]) for key in features)]:
        may_lack = isinstance(feature, tfds.features.TranslationVariableLanguages)
        if not may_lack and not isinstance(feature, tfds.features.Translation):
            continue
        pair = pair or info.supervised_keys
        if not pair:
            raise UserError(f"{where}: name two of its languages, such as {builder.name}/en-de: {', '.join(feature.languages)}")
        if missing := [language for language in pair if language not in feature.languages]:
            raise UserError(f"{where} has no language {missing[0]}; there are {', '.join(sorted(feature.languages))}")
        return _Sides(pair, (*path, *pair), may_lack)
    for keys in (info.supervised_keys, ("source_sentence", "target_sentence")):
        if keys and all(key in features and isinstance(features[key], tfds.features.Text) for key in keys):
            return _Sides(_split_pair(builder.builder_config.name if builder.builder_config else "") or ("", ""), keys)
    kinds = {kind: [key for key in features if isinstance(features[key], kind)] for kind in (tfds.features.Text, tfds.features.ClassLabel)}
    for keys in (info.supervised_keys, tuple(key for found in kinds.values() for key in found)):
        if keys and len(keys) == 2 and all(key in found for key, found in zip(keys, kinds.values(), strict=True)):
            return _Sides(("", ""), keys, names=tuple(features[keys[1]].names))
    raise UserError(f"{where} is not a translation dataset, nor one of texts with a label (its features: {', '.join(features)})")


def _picture_sides(builder: Any, where: str) -> _Sides:
    """Find the picture and its captions in the features of a dataset."""
    features = builder.info.features
    picture = next((key for key in features if isinstance(features[key], tfds.features.Image)), "")
    for keys in _CAPTIONS:
        inside = features[keys[0]] if keys[0] in features else None
        if picture and inside is not None and (len(keys) == 1 or keys[1] in getattr(inside, "feature", ())):
            return _Sides(("", ""), keys, picture=picture)
    raise UserError(f"{where} is not a dataset of pictures with captions (its features: {', '.join(features)})")


def _prepare(make: Callable[[], Any], where: str) -> None:
    """Download and prepare a dataset (in a temporary folder, then renamed). One process does it, others wait."""
    builder = make()
    root, say = str(builder.data_dir_root), logging.getLogger("jaxnmt").info
    lock = files.lock(Path(root) / f".{builder.name}.lock", say, f"another process is preparing {builder.name}: waiting for it")
    try:
        # TFDS reports on stdout, which is for results.
        with contextlib.nullcontext() if files.in_bucket(root) else lock, contextlib.redirect_stdout(sys.stderr):
            # Another process may have prepared the data meanwhile, which a new builder sees.
            make().download_and_prepare()
    except (OSError, AssertionError, tfds.download.DownloadError, extractor.ExtractError) as error:
        what = f"could not be downloaded and prepared in {builder.data_path} ($TFDS_DATA_DIR names another folder)"
        raise UserError(f"{where} {what}: {type(error).__name__}: {first_line(error)}") from error
