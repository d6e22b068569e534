"""Our TFDS datasets, `multi30k/en-de` and `phrases/en-fr`. Importing this module registers them with TFDS, without TensorFlow.

Both keep their order: example i of `multi30k/en-de:test` is line i of the published file.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import itertools
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from jaxnmt.data import phrases
from jaxnmt.errors import UserError
from jaxnmt.io import files

MULTI30K_LANGUAGES = ("en", "de", "fr", "cs")
MULTI30K_FOLDER = "JAXNMT_MULTI30K"
"""Environment variable that names a folder with Multi30k's files, plain or .gz. They are used instead of a download."""

_MULTI30K_URL = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw/"
_MULTI30K_FILES = {"train": ("train",), "validation": ("val",), "test": ("test_2016_flickr", "test2016")}  # published name first

# SHA-256 of the uncompressed files
_MULTI30K_SHA256 = {
    "train.en": "460a15fbd157e34a7a9957ee388c1ca247fe47af3ef25fb50442af6c274e0fc6",
    "train.de": "2c2b73fd2b548fbcde3a875e0a78d6ee94d498bfdee6bd3eae3945779e9ddf72",
    "train.fr": "5925a3c18f1587b6b54b87743106e6e8ab93618edb6f65d19eac0621f853a10d",
    "train.cs": "2be68b38c8d586ff4f54eb13cc6e1baaaa053695b3f070d3038303a47f2268da",
    "val.en": "1f2a23d992769b5b3d209b0a10dd0b77c08cceb1f20dfb97ed0aafa49d107227",
    "val.de": "660e09eb7e1da2f856ea13ee5ad3cf6d36b3d5b0b733c857e94c5747a3dfc660",
    "val.fr": "5304e444d842e962b2dda4d816b70b22a1765b15401642b7ca37a67477e708dc",
    "val.cs": "d53827e469b0a1ca8d57e9e26b2b64c4bc4b33f5479c7b03ae87ae5c882c3e33",
    "test_2016_flickr.en": "399a4382932c1aadd3ceb9bef1008d388a64c76d4ae4e9d4728c6f4301cac182",
    "test_2016_flickr.de": "4be6b5b3236b79c25475c6bb829800a7ce559e9ba7a1f6c2394fe4d40be46d16",
    "test_2016_flickr.fr": "cb3160d69b002bb638e66cc7612fcd56cb0af82eadc9c142dedc438afb885ef6",
    "test_2016_flickr.cs": "45adb85f688de8407fddcbe1b36dca15d12aab868149b337e2576f2d6d2ff8d8",
}


@dataclasses.dataclass
class PairConfig(tfds.core.BuilderConfig):
    """A language pair."""

    source: str = ""
    target: str = ""


@dataclasses.dataclass
class PhrasesConfig(PairConfig):
    """A language pair and the size of the training split."""

    pairs: int = 50_000


def _configs(config: type[PairConfig], languages: tuple[str, ...]) -> list[PairConfig]:
    return [config(name=f"{a}-{b}", source=a, target=b) for a, b in itertools.permutations(languages, 2)]


class _PairBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """A `Translation` of two languages, in the order in which it is generated."""

    def _translation_info(self, description: str, homepage: str | None = None, citation: str | None = None) -> tfds.core.DatasetInfo:
        config = self.builder_config
        return tfds.core.DatasetInfo(
            builder=self,
            description=description,
            features=tfds.features.Translation(languages=[config.source, config.target]),
            supervised_keys=(config.source, config.target),
            homepage=homepage,
            citation=citation,
            disable_shuffling=True,
        )


class Multi30k(_PairBuilder):
    """Multi30k task 1, raw: captions of 31,014 images. Splits train (29,000), validation (1,014), test (2016, 1,000)."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = _configs(PairConfig, MULTI30K_LANGUAGES)

    def _info(self) -> tfds.core.DatasetInfo:
        return self._translation_info(
            "Image captions (Flickr30k) in English, German, French and Czech. Research use; text CC BY-NC-SA.",
            "https://github.com/multi30k/dataset",
            "Elliott et al. 2016, Multi30K: Multilingual English-German Image Descriptions",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        languages = (self.builder_config.source, self.builder_config.target)
        folder = os.environ.get(MULTI30K_FOLDER)
        if folder:
            paths = {split: [_local_file(folder, names, code) for code in languages] for split, names in _MULTI30K_FILES.items()}
        else:
            urls = {split: [f"{_MULTI30K_URL}{names[0]}.{code}.gz" for code in languages] for split, names in _MULTI30K_FILES.items()}
            paths = dl_manager.download(urls)
        texts = {
            split: [_lines_of(path, f"{_MULTI30K_FILES[split][0]}.{code}") for path, code in zip(sides, languages, strict=True)]
            for split, sides in paths.items()
        }
        return {split: self._generate_examples(sides) for split, sides in texts.items()}

    def _generate_examples(self, sides: list[list[str]]) -> Iterator[tuple[int, dict[str, str]]]:
        config = self.builder_config
        for index, (source, target) in enumerate(zip(*sides, strict=True)):
            yield index, {config.source: source, config.target: target}


def _local_file(folder: str, names: tuple[str, ...], language: str) -> Path:
    candidates = [files.to_path(folder) / f"{name}.{language}{suffix}" for name in names for suffix in ("", ".gz")]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise UserError(f"${MULTI30K_FOLDER}: {folder} has none of {', '.join(path.name for path in candidates)}")
    return found


def _lines_of(path: Path, name: str) -> list[str]:
    """Check the checksum of one of Multi30k's files and return its lines."""
    packed = path.read_bytes()
    try:
        data = gzip.decompress(packed) if packed[:2] == b"\x1f\x8b" else packed
    except (EOFError, OSError, zlib.error) as error:
        raise UserError(f"multi30k: {path} is damaged ({error}): delete it and try again") from error
    if hashlib.sha256(data).hexdigest() != _MULTI30K_SHA256[name]:
        raise UserError(
            f"multi30k: {path} is not Multi30k's {name} (wrong SHA-256): delete it, or name your own files as a.en a.de instead"
        )
    return data.decode().removesuffix("\n").split("\n")


def _phrases_version() -> tfds.core.Version:
    """Return a version that changes with the output of the generator, so that data of another generator is never reused."""
    probe = hashlib.sha256()
    for split in ("train", "validation", "test"):
        for source, target in (("en", "fr"), ("de", "es"), ("tr", "en")):
            probe.update(repr(list(phrases.generate(source, target, split, 40))).encode())
    return tfds.core.Version(f"1.0.{int(probe.hexdigest()[:7], 16)}")


class Phrases(_PairBuilder):
    """The embedded corpus (see `jaxnmt.data.phrases`): splits train (any number of pairs), validation and test (1,000 each).

    `phrases/en-fr` has 50,000 training pairs, `phrases/en-fr-200000` has 200,000.
    """

    VERSION = _phrases_version()
    BUILDER_CONFIGS = _configs(PhrasesConfig, tuple(phrases.LANGUAGES))

    def _info(self) -> tfds.core.DatasetInfo:
        return self._translation_info("Numbers, dates, times, money, durations and places in words, made by rule from CLDR.")

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        counts = {"train": self.builder_config.pairs, "validation": 1000, "test": 1000}
        return {split: self._generate_examples(split, count) for split, count in counts.items()}

    def _generate_examples(self, split: str, count: int) -> Iterator[tuple[int, dict[str, str]]]:
        config = self.builder_config
        for index, (source, target) in enumerate(phrases.generate(config.source, config.target, split, count)):
            yield index, {config.source: source, config.target: target}


def sized_phrases(config: str) -> PhrasesConfig | None:
    """Return the config of a name with a size, such as `en-fr-200000`; None if the name has no size."""
    match = re.fullmatch(r"(([a-z]+)-([a-z]+))-([1-9][0-9]*)", config)
    if match is None or match[1] not in Phrases.builder_configs:
        return None
    return PhrasesConfig(name=config, source=match[2], target=match[3], pairs=int(match[4]))
