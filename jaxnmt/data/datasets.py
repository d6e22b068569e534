"""Sentence pairs from TensorFlow Datasets (ours, and any translation dataset of TFDS), without TensorFlow.

Prepared data is stored as ArrayRecord files in $TFDS_DATA_DIR, by default in the folder of TFDS (~/tensorflow_datasets).
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import hashlib
import json
import os
import pathlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from jaxnmt.data import tfds_shim
from jaxnmt.data.source import Source
from jaxnmt.data.stat_cache import StatCache
from jaxnmt.errors import UserError, first_line
from jaxnmt.io import files

_CHUNK = 1000
"""Records that are read at once: four times faster than one by one."""


class _Sides(NamedTuple):
    """Where a record has its two sides."""

    languages: tuple[str, str]
    keys: tuple[str, ...]
    """The keys of source and target, after the path to them."""
    may_lack: bool = False
    """Whether a record may lack a language (`TranslationVariableLanguages`)."""

    def read(self, record: Any) -> tuple[bytes, bytes] | None:
        """Return the two sides of a record; None if it lacks one."""
        *path, source, target = self.keys
        for key in path:
            record = record[key]
        if self.may_lack:
            record = {language.decode(): text for language, text in zip(record["language"], record["translation"], strict=True)}
        return (record[source], record[target]) if source in record and target in record else None


class Dataset(Source):
    """A split (or a slice, or a sum of splits) of a prepared TFDS dataset.

    Args:
        name: what the user wrote.
        builder: a prepared `tfds.core.DatasetBuilder`.
        split: a TFDS split expression.
        cache: keeps what was found by reading the files. None: nothing is kept.
    """

    def __init__(self, name: str, weight: float, sides: _Sides, builder: Any, split: str, cache: pathlib.Path | None = None) -> None:
        self._files = builder.info.splits[split].file_instructions
        self._parts = [(part.skip, part.take, part.examples_in_shard) for part in self._files]
        kind = json.dumps(["dataset", sides.languages, self._parts])
        super().__init__(name, weight, *sides.languages, StatCache(cache, kind, [files.to_path(part.filename) for part in self._files]))
        self._records: Any = builder.as_data_source(split=split) if self._files else ()  # TFDS fails on an empty slice
        self._sides = sides
        self._rows: Sequence[int] = range(len(self._records))
        if sides.may_lack:
            self._rows = self._kept.get("rows", self._whole_rows)

    def __len__(self) -> int:
        return len(self._rows)

    def _whole_rows(self) -> list[int]:
        """Return the numbers of the records that have both sides."""
        return [row for row, pair in enumerate(self._read(range(len(self._records)))) if pair is not None]

    def _read(self, rows: Sequence[int]) -> Iterator[tuple[bytes, bytes] | None]:
        for start in range(0, len(rows), _CHUNK):
            yield from map(self._sides.read, self._records.__getitems__(list(rows[start : start + _CHUNK])))

    def pairs(self, start: int = 0) -> Iterator[tuple[bytes, bytes]]:
        for pair in self._read(self._rows[start:]):
            assert pair is not None
            source, target = pair
            yield source.replace(b"\n", b" "), target.replace(b"\n", b" ")

    def where(self, index: int) -> str:
        return f"{self.name} example {self._rows[index] + 1}"

    def _read_digest(self) -> str:
        """Return the SHA-256 of the prepared files, of which records are read, and of the direction.

        This is much faster than reading the records.
        """
        digest = hashlib.sha256(f"{self.source_language}\n{self.target_language}\n".encode())
        for part, numbers in zip(self._files, self._parts, strict=True):
            digest.update("{} {} {}\n".format(*numbers).encode())
            with files.to_path(part.filename).open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()


def open_dataset(name: str, config: str, split: str, weight: float, field: str, cache: pathlib.Path | None = None) -> Dataset:
    """Open a dataset by name. It is downloaded and prepared on first use.

    Both directions of a language pair work: `wmt14_translate/en-de` reads `de-en` of TFDS with the sides swapped.

    Raises:
        UserError: there is no such dataset, config or split; it is not a translation dataset; it cannot be downloaded or prepared.
    """
    tfds = _import_tfds(field)
    word = f"{name}/{config}:{split}" if config else f"{name}:{split}"
    known = tfds.list_builders(with_community_datasets=False)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "text files come in pairs, source and target"
        raise UserError(f"{field}: {word}: there is no file and no TFDS dataset {name}: {hint}")
    builder_config, pair = _find_config(tfds, name, config, field)
    arguments = {} if builder_config is None else {"config": builder_config}
    make = functools.partial(tfds.builder, name, file_format="array_record", data_dir=os.environ.get("TFDS_DATA_DIR"), **arguments)
    sides = _sides(make(), pair, word, field)
    builder = _prepared(tfds, make, word, field)
    try:
        dataset = Dataset(word, weight, sides, builder, split, cache)
    except (ValueError, KeyError) as error:
        splits = ", ".join(builder.info.splits)
        raise UserError(
            f"{field}: {word}: no such split; there are {splits} (and slices such as train[:90%]): {first_line(error)}"
        ) from error
    except NotImplementedError as error:
        raise UserError(
            f"{field}: {word} was prepared in a format that needs TensorFlow; delete {builder.data_path} and try again"
        ) from error
    if not len(dataset):
        raise UserError(f"{field}: {word} has no pairs")
    return dataset


def _import_tfds(field: str) -> Any:
    """Return TFDS with its translation datasets and ours registered."""
    import tensorflow_datasets as tfds

    if not hasattr(tfds, "core"):  # TFDS hides what it failed to import
        raise UserError(
            f"{field}: tensorflow_datasets cannot be imported; reinstall it: pip install -U tensorflow-datasets importlib_resources"
        )
    tfds_shim.install()
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    import tensorflow_datasets.translate  # noqa: F401

    import jaxnmt.data.builders  # noqa: F401

    return tfds


def _split_pair(config: str) -> tuple[str, str] | None:
    match = re.fullmatch(r"([a-z]{2,3}(?:[-_][A-Z]\w+)?)(?:-|_to_|_)([a-z]{2,3}(?:[-_][A-Z]\w+)?)", config)
    return (match[1], match[2]) if match else None


def _find_config(tfds: Any, name: str, config: str, field: str) -> tuple[Any, tuple[str, str] | None]:
    """Return the config for `tfds.builder` and the requested language pair (None: the dataset's own order)."""
    from jaxnmt.data import builders

    configs = list(tfds.builder_cls(name).builder_configs)
    pair = _split_pair(config)
    if config in configs or (not config and len(configs) <= 1):
        return config or None, pair
    if name == "phrases" and (sized := builders.sized_phrases(config)):
        return sized, (sized.source, sized.target)
    if not config:
        raise UserError(f"{field}: {name} needs a config, such as {name}/{configs[0]}; there are {', '.join(configs)}")
    if pair:
        spellings = [f"{a}{between}{b}" for a, b in (pair, pair[::-1]) for between in ("-", "_to_", "_", "")]
        if found := next((spelling for spelling in spellings if spelling in configs), None):
            return found, pair
        if len(configs) <= 1:  # one config with many languages, such as ted_multi_translate
            return None, pair
    near = difflib.get_close_matches(config, configs, n=3) or configs[:12]
    raise UserError(f"{field}: {name} has no config {config!r}; there are {', '.join(near)}")


def _sides(builder: Any, pair: tuple[str, str] | None, word: str, field: str) -> _Sides:
    """Find the two sides in the features of a dataset."""
    import tensorflow_datasets as tfds

    def require(languages: Sequence[str]) -> None:
        missing = [language for language in pair or () if language not in languages]
        if missing:
            raise UserError(f"{field}: {word} has no language {missing[0]}; there are {', '.join(sorted(languages))}")

    features = builder.info.features
    for path, feature in [((), features), *(((key,), features[key]) for key in features)]:
        if isinstance(feature, tfds.features.TranslationVariableLanguages):
            if pair is None:
                raise UserError(f"{field}: {word}: name two of its languages, such as {builder.name}/en-de: {', '.join(feature.languages)}")
            require(feature.languages)
            return _Sides(pair, (*path, *pair), may_lack=True)
        if isinstance(feature, tfds.features.Translation):
            own = builder.info.supervised_keys or tuple(feature.languages)
            pair = pair or (own[0], own[1])
            require(list(feature.keys()))
            return _Sides(pair, pair)
    for keys in (builder.info.supervised_keys, ("source_sentence", "target_sentence")):
        if keys and all(key in features and isinstance(features[key], tfds.features.Text) for key in keys):
            return _Sides(_split_pair(builder.builder_config.name if builder.builder_config else "") or ("", ""), tuple(keys))
    raise UserError(f"{field}: {word} is not a translation dataset (its features: {', '.join(features)})")


def _prepared(tfds: Any, make: Callable[[], Any], word: str, field: str) -> Any:
    """Return a builder with its data. One process downloads and prepares them (in a temporary folder, then renamed); others wait."""
    builder = make()
    if builder.data_path.exists():
        return make()  # a new builder reads what is there now
    root = str(builder.data_dir_root)
    if root.startswith("~"):
        raise UserError(f"{field}: there is no home folder to keep {word} in: set $TFDS_DATA_DIR or $HOME")
    lock = files.lock(pathlib.Path(root) / f".{builder.name}.lock", _say, f"another process is preparing {word}: waiting for it")
    try:
        with contextlib.nullcontext() if files.in_bucket(root) else lock:
            builder = make()  # another process may have prepared the data meanwhile
            with contextlib.redirect_stdout(sys.stderr):  # TFDS reports on stdout, which is for results
                builder.download_and_prepare()
            return builder
    except UserError:
        raise
    except (OSError, AssertionError, tfds.download.DownloadError, tfds.core.download.extractor.ExtractError) as error:
        raise UserError(
            f"{field}: {word} could not be downloaded and prepared in {builder.data_path}: {type(error).__name__}: {first_line(error)}"
            + ("; $TFDS_DATA_DIR names another folder" if isinstance(error, OSError) else "")
        ) from error


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
