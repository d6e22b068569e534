"""Sentence pairs from TensorFlow Datasets (ours, and any translation dataset of TFDS), without TensorFlow.

Prepared data lies in $TFDS_DATA_DIR, or where TFDS puts it (~/tensorflow_datasets), as ArrayRecord files.
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
from collections.abc import Callable, Iterator
from typing import Any

from etils import epath

from jaxnmt.data import tfds_shim
from jaxnmt.data.source import Source
from jaxnmt.errors import UserError, first_line
from jaxnmt.io.locks import locked
from jaxnmt.io.stat_cache import StatCache
from jaxnmt.io.whole_files import in_bucket

_CHUNK = 1000  # records read at once: four times faster than one by one


class Dataset(Source):
    """A split (or a slice, or a sum of splits) of a prepared TFDS dataset.

    Args:
        name: what the user wrote.
        builder: a prepared `tfds.core.DatasetBuilder`.
        split: a TFDS split expression.
        read: takes a record apart into its two sides; None for a record that lacks one.
        may_lack: whether `read` may return None; all records are then read at the first start.
        cache: where what was found by reading the files is kept; None: nowhere.
    """

    def __init__(
        self,
        name: str,
        weight: float,
        languages: tuple[str, str],
        builder: Any,
        split: str,
        read: Callable[[Any], tuple[bytes, bytes] | None],
        may_lack: bool = False,
        cache: pathlib.Path | None = None,
    ) -> None:
        self._files = builder.info.splits[split].file_instructions
        self._parts = [(part.skip, part.take, part.examples_in_shard) for part in self._files]
        what = json.dumps(["dataset", languages, self._parts])
        super().__init__(name, weight, *languages, StatCache(cache, what, [epath.Path(part.filename) for part in self._files]))
        self._records: Any = builder.as_data_source(split=split) if self._files else ()  # TFDS fails on an empty slice
        self._read = read
        self._rows: range | list[int] = range(len(self._records))
        if may_lack:
            self._rows = self._kept.get("rows", self._whole_rows)

    def __len__(self) -> int:
        return len(self._rows)

    def _whole_rows(self) -> list[int]:
        """Return the numbers of the records that have both sides."""
        rows = range(len(self._records))
        return [row for row, pair in zip(rows, self._read_all(rows), strict=True) if pair is not None]

    def _read_all(self, rows: range | list[int]) -> Iterator[tuple[bytes, bytes] | None]:
        for start in range(0, len(rows), _CHUNK):
            yield from map(self._read, self._records.__getitems__(list(rows[start : start + _CHUNK])))

    def pairs(self, start: int = 0) -> Iterator[tuple[bytes, bytes]]:
        for pair in self._read_all(self._rows[start:]):
            assert pair is not None
            source, target = pair
            yield source.replace(b"\n", b" "), target.replace(b"\n", b" ")

    def where(self, index: int) -> str:
        return f"{self.name} example {self._rows[index] + 1}"

    def _read_digest(self) -> str:
        """Return the SHA-256 of the prepared files, of which of their records are read, and in which direction.

        This is far faster than reading the records.
        """
        digest = hashlib.sha256(f"{self.source_language}\n{self.target_language}\n".encode())
        for part, numbers in zip(self._files, self._parts, strict=True):
            digest.update("{} {} {}\n".format(*numbers).encode())
            with epath.Path(part.filename).open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()


def open_dataset(name: str, config: str, split: str, weight: float, field: str, cache: pathlib.Path | None = None) -> Dataset:
    """Open a dataset by name; it is downloaded and prepared on first use.

    Either direction of a pair may be asked for: `wmt14_translate/en-de` reads TFDS's `de-en` with the sides swapped.

    Raises:
        UserError: no such dataset, config or split; not a translation dataset; it cannot be downloaded or prepared.
    """
    tfds = _import_tfds(field)
    word = f"{name}/{config}:{split}" if config else f"{name}:{split}"
    if name not in tfds.list_builders(with_community_datasets=False):
        near = difflib.get_close_matches(name, tfds.list_builders(with_community_datasets=False), n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "text files come in pairs, source and target"
        raise UserError(f"{field}: {word}: there is no file and no TFDS dataset {name}: {hint}")
    builder_config, pair = _find_config(tfds, name, config, field)
    arguments = {} if builder_config is None else {"config": builder_config}
    make = functools.partial(tfds.builder, name, file_format="array_record", data_dir=os.environ.get("TFDS_DATA_DIR"), **arguments)
    languages, keys, variable = _sides(make(), pair, word, field)
    builder = _prepared(tfds, make, word, field)
    read = functools.partial(_read_variable if variable else _read_pair, keys)
    try:
        dataset = Dataset(f"{name}/{config}:{split}" if config else word, weight, languages, builder, split, read, variable, cache)
    except (ValueError, KeyError) as error:
        known = ", ".join(builder.info.splits)
        raise UserError(
            f"{field}: {word}: no such split; there are {known} (and slices such as train[:90%]): {first_line(error)}"
        ) from error
    except NotImplementedError as error:
        raise UserError(
            f"{field}: {word} was prepared in a format that needs TensorFlow; delete {builder.data_path} and try again"
        ) from error
    if not len(dataset):
        raise UserError(f"{field}: {word} has no pairs")
    return dataset


def _import_tfds(field: str) -> Any:
    """TFDS with its translation datasets and ours registered."""
    import tensorflow_datasets as tfds

    if not hasattr(tfds, "core"):  # TFDS hides what it failed to import
        raise UserError(
            f"{field}: tensorflow_datasets does not load; install it anew: pip install -U tensorflow-datasets importlib_resources"
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
    """What to give to `tfds.builder`, and the language pair that was asked for (None: the dataset's own order)."""
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
        for a, b in (pair, pair[::-1]):
            for other in (f"{a}-{b}", f"{a}_to_{b}", f"{a}_{b}", f"{a}{b}"):
                if other in configs:
                    return other, pair
        if len(configs) <= 1:  # many languages in one config, ted_multi_translate
            return None, pair
    near = difflib.get_close_matches(config, configs, n=3) or configs[:12]
    raise UserError(f"{field}: {name} has no config {config!r}; there are {', '.join(near)}")


def _sides(builder: Any, pair: tuple[str, str] | None, word: str, field: str) -> tuple[tuple[str, str], tuple[str, ...], bool]:
    """Languages, the keys that lead to the two sides in a record, and whether records may lack a language."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    for path, feature in [((), features), *(((key,), features[key]) for key in features)]:
        if isinstance(feature, tfds.features.TranslationVariableLanguages):
            if pair is None:
                raise UserError(f"{field}: {word}: name two of its languages, such as {builder.name}/en-de: {', '.join(feature.languages)}")
            _require(pair, feature.languages, word, field)
            return pair, (*path, *pair), True
        if isinstance(feature, tfds.features.Translation):
            own = builder.info.supervised_keys or tuple(feature.languages)
            pair = pair or (own[0], own[1])
            _require(pair, list(feature.keys()), word, field)
            return pair, pair, False
    for keys in (builder.info.supervised_keys, ("source_sentence", "target_sentence")):
        if keys and all(key in features and isinstance(features[key], tfds.features.Text) for key in keys):
            return _split_pair(builder.builder_config.name if builder.builder_config else "") or ("", ""), tuple(keys), False
    raise UserError(f"{field}: {word} is not a translation dataset (its features: {', '.join(features)})")


def _require(pair: tuple[str, str], languages: list[str], word: str, field: str) -> None:
    missing = [language for language in pair if language not in languages]
    if missing:
        raise UserError(f"{field}: {word} has no language {missing[0]}; there are {', '.join(sorted(languages))}")


def _read_pair(keys: tuple[str, ...], record: Any) -> tuple[bytes, bytes]:
    return record[keys[0]], record[keys[1]]


def _read_variable(keys: tuple[str, ...], record: Any) -> tuple[bytes, bytes] | None:
    """The two sides of a record of `TranslationVariableLanguages`: (path..., source language, target language)."""
    *path, source, target = keys
    for key in path:
        record = record[key]
    texts = {language.decode(): text for language, text in zip(record["language"], record["translation"], strict=True)}
    return (texts[source], texts[target]) if source in texts and target in texts else None


def _prepared(tfds: Any, make: Callable[[], Any], word: str, field: str) -> Any:
    """A builder whose data are there; one process downloads and prepares them (in a temporary folder, renamed at the end), others wait."""
    builder = make()
    if builder.data_path.exists():
        return make()  # which has read what is there now
    root = builder.data_dir_root
    if str(root).startswith("~"):
        raise UserError(f"{field}: there is no home folder to keep {word} in: set $TFDS_DATA_DIR or $HOME")
    try:
        with contextlib.nullcontext() if in_bucket(root) else locked(pathlib.Path(root) / f".{builder.name}.lock", _say):
            builder = make()  # likewise: another process may have prepared them meanwhile
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
