"""Our TFDS datasets, `multi30k/en-de`, `phrases/en-fr` and `debian/en-it`. Importing this module registers them with TFDS, without
TensorFlow.

All keep their order: example i of `multi30k/en-de:test` is line i of the published file.
"""

from __future__ import annotations

import hashlib
import inspect
import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from jaxnmt.data import debian, phrases
from jaxnmt.errors import UserError
from jaxnmt.io import files
from jaxnmt.io.text import open_text

MULTI30K_FOLDER = "JAXNMT_MULTI30K"
"""Environment variable that names a folder with Multi30k's files, plain or .gz. They are used instead of a download."""

_MULTI30K_URL = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw/"
# Published name first.
_MULTI30K_FILES = {"train": ("train",), "validation": ("val",), "test": ("test_2016_flickr", "test2016")}

_MULTI30K_SHA256 = {name: digest for digest, name in map(str.split, Path(__file__).with_name("multi30k.sha256").open())}
"""Checksums of the uncompressed files. `sha256sum -c` reads the file, too."""


class _PairBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """A `Translation` of the two languages that the config's name begins with, in the order in which it is generated.

    The docstring of a subclass is its description in TFDS.
    """

    @property
    def _languages(self) -> tuple[str, str]:
        source, target, *_ = self.builder_config.name.split("-")
        return source, target

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=inspect.getdoc(self),
            features=tfds.features.Translation(languages=list(self._languages)),
            supervised_keys=self._languages,
            disable_shuffling=True,
        )

    def _generate_examples(self, pairs: Iterable[tuple[str, str]]) -> Iterator[tuple[int, dict[str, str]]]:
        for index, pair in enumerate(pairs):
            yield index, dict(zip(self._languages, pair, strict=True))


def _configs(languages: Iterable[str]) -> list[tfds.core.BuilderConfig]:
    return [tfds.core.BuilderConfig(name="-".join(pair)) for pair in itertools.permutations(languages, 2)]


class Multi30k(_PairBuilder):
    """Multi30k task 1, raw: captions of 31,014 images (Flickr30k) in English, German, French and Czech.

    Splits train (29,000), validation (1,014), test (2016, 1,000). Research use; text CC BY-NC-SA. https://github.com/multi30k/dataset
    Elliott et al. 2016, Multi30K: Multilingual English-German Image Descriptions.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = _configs(("en", "de", "fr", "cs"))

    def _split_generators(self, dl_manager: Any) -> dict:
        folder, texts = os.environ.get(MULTI30K_FOLDER), {}
        for split, names in _MULTI30K_FILES.items():
            if folder:
                paths = [_local_file(folder, names, code) for code in self._languages]
            else:
                paths = dl_manager.download([f"{_MULTI30K_URL}{names[0]}.{code}.gz" for code in self._languages])
            texts[split] = [_lines_of(path, f"{names[0]}.{code}") for path, code in zip(paths, self._languages, strict=True)]
        return {split: self._generate_examples(zip(*sides, strict=True)) for split, sides in texts.items()}


def _local_file(folder: str, names: tuple[str, ...], language: str) -> Path:
    candidates = [files.to_path(folder) / f"{name}.{language}{suffix}" for name in names for suffix in ("", ".gz")]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise UserError(f"${MULTI30K_FOLDER}: {folder} has none of {', '.join(path.name for path in candidates)}")
    return found


def _lines_of(path: Path, name: str) -> list[str]:
    """Check the checksum of one of Multi30k's files and return its lines."""
    with open_text(path, "multi30k") as file:
        data = file.read()
    if hashlib.sha256(data).hexdigest() != _MULTI30K_SHA256[name]:
        raise UserError(f"multi30k: {path} is not Multi30k's {name} (wrong SHA-256): delete it, or name your own files as a.en a.de")
    return data.decode().removesuffix("\n").split("\n")


def _phrases_version() -> tfds.core.Version:
    """Return a version that changes with the output of the generator, so that data of another generator is never reused."""
    probe = hashlib.sha256()
    for split, (source, target) in itertools.product(("train", "validation", "test"), (("en", "fr"), ("de", "es"), ("tr", "en"))):
        probe.update(repr(list(phrases.generate(source, target, split, 40))).encode())
    return tfds.core.Version(f"1.0.{int(probe.hexdigest()[:7], 16)}")


class Phrases(_PairBuilder):
    """The embedded corpus: numbers, dates, times, money, durations and places in words, made by rule from CLDR (`jaxnmt.data.phrases`).

    Splits train (any number of pairs), validation and test (1,000 each). `phrases/en-fr` has 50,000 training pairs, `phrases/en-fr-200000`
    has 200,000.
    """

    VERSION = _phrases_version()
    BUILDER_CONFIGS = _configs(phrases.LANGUAGES)

    def _split_generators(self, dl_manager: Any) -> dict:
        _, _, *size = self.builder_config.name.split("-")
        counts = {"train": int(size[0]) if size else 50_000, "validation": 1000, "test": 1000}
        return {split: self._generate_examples(phrases.generate(*self._languages, split, count)) for split, count in counts.items()}


class Debian(_PairBuilder):
    """Descriptions of Debian's or Ubuntu's packages, technical prose: a synopsis or a paragraph each, about 120,000 pairs.

    The machine's own `apt-get` fetches them (`jaxnmt.data.debian`), so they are those of its release at the time. No family of packages is
    in two of the splits train, validation and test. The translations are the work of Debian's Description Translation Project.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="en-it")]

    def _split_generators(self, dl_manager: Any) -> dict:
        splits = debian.splits(self._languages[1])
        return {name: self._generate_examples(pair[1:] for pair in found) for name, found in splits.items()}
