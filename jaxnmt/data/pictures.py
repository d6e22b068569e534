"""Pictures and feature vectors, each named by a line of text, so that everything that handles lines handles them.

photos/17.jpg            a picture file
photos.npz#17            entry 17 of the array `pictures` (N, rows, columns, 3), or of `vectors` (N, numbers)
scenes/en:test#17        picture 17 of a split of the embedded scenes
coco_captions:train#17   picture 17 of a TFDS dataset
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from jaxnmt.config import Captioning
from jaxnmt.data import scenes
from jaxnmt.data.source import Changed, Source, StatCache
from jaxnmt.errors import UserError, first_line
from jaxnmt.io.text import decode

MOST_PIXELS = 100_000_000
"""A picture with more is refused: a small file may hold one that fills the memory."""
SCENES = re.compile(r"scenes/(?P<language>\w+?)(-(?P<count>[1-9]\d*))?(:(?P<split>train|validation|test|novel))?")
DATASET = re.compile(r"[a-z][a-z0-9_]*(/[^/:,]+)?:[^/,]+", re.IGNORECASE)
_COUNTS = {"train": 20_000, "validation": 500, "test": 1000, "novel": 1000}


def read(name: str, task: Captioning) -> np.ndarray:
    """Return the picture that a line names, uint8 (size, size, 3), cut to a square and scaled; or its vector, float32 (size,).

    Raises:
        UserError: the picture is missing or cannot be read, or a vector has another size.
    """
    path, _, number = name.rpartition("#")
    is_stored = path.endswith(".npz") or _is_dataset(path)
    if is_stored and not number.isdecimal():
        raise UserError(f"{name}: the number of a picture, from 0 on, belongs after #")
    if task.source == "vectors" and not path.endswith(".npz"):
        raise UserError(f"{name} names no vector: write the file and the number of the entry, such as features.npz#17")
    try:
        if scene := SCENES.fullmatch(path):
            return scenes.draw(scenes.scene(scene["split"] or "train", int(number)), task.size)
        if is_stored and not path.endswith(".npz"):
            return _opened(io.BytesIO(_dataset(path).picture(int(number))), task.size)
        return _sized(_array(path, task.source)[int(number)], name, task) if is_stored else _opened(name, task.size)
    except UserError:
        raise
    except Exception as error:  # of any kind: decoders of pictures, of archives and of records have their own
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UserError(f"{name} is not a picture that can be read ({reason}): repair or remove it") from error


def read_all(names: Sequence[str], task: Captioning) -> np.ndarray:
    """Return what `read` does for each name, in one array."""
    return np.stack([read(name, task) for name in names])


kept = functools.lru_cache(maxsize=None)(read)
"""`read` for the pictures of validation, which are the same each time: they stay in memory."""


def _is_dataset(path: str) -> bool:
    return bool(SCENES.fullmatch(path) or DATASET.fullmatch(path))


def _opened(file: str | io.BytesIO, size: int) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # its limit is another
        with Image.open(file) as image:
            width, height = image.size
            if width * height > MOST_PIXELS:
                raise ValueError(f"it has {width:,} x {height:,} pixels, and at most {MOST_PIXELS:,} are read")
            return _scaled(_as_shown(image), size)


def _as_shown(image: Image.Image) -> Image.Image:
    """Return an image in RGB, 8 bits, as a viewer shows it on white: turned as its EXIF data say, 16-bit grey scaled."""
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) // 256).clip(0, 255).astype(np.uint8))
    image = ImageOps.exif_transpose(image)
    if "transparency" in image.info or image.mode in ("LA", "PA", "RGBA"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _scaled(image: Image.Image, size: int) -> np.ndarray:
    return np.asarray(image if image.size == (size, size) else ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR))


def _sized(entry: np.ndarray, name: str, task: Captioning) -> np.ndarray:
    if task.source == "vectors":
        if entry.shape != (task.size,):
            raise UserError(f"{name} has the shape {entry.shape}, and task.size is {task.size}: set it to the vectors' size")
        return entry.astype(np.float32)
    if entry.dtype != np.uint8 or entry.ndim != 3 or entry.shape[2] != 3:
        raise UserError(f"{name} is {entry.dtype} of shape {entry.shape}; a picture is uint8 of shape (rows, columns, 3)")
    return _scaled(Image.fromarray(entry), task.size)


def _promised_shape(path: str, name: str) -> tuple[int, ...]:
    """Return the shape of an array in an archive by its header: a small file may promise a huge array."""
    with zipfile.ZipFile(path) as archive:
        file = name if name in archive.namelist() else f"{name}.npy"
        with archive.open(file) as member:
            is_first = np.lib.format.read_magic(member) == (1, 0)
            read_header = np.lib.format.read_array_header_1_0 if is_first else np.lib.format.read_array_header_2_0
            return read_header(member)[0]


@functools.lru_cache(maxsize=4)
def _array(path: str, name: str) -> np.ndarray:
    with np.load(path, allow_pickle=False) as arrays:
        if name not in arrays:
            raise UserError(f"{path} has no array {name!r}; it has {', '.join(arrays.files)}")
        shape = _promised_shape(path, name)
        if len(shape) == 4 and shape[1] * shape[2] > MOST_PIXELS:
            raise UserError(f"{path}: its pictures have {shape[1]:,} x {shape[2]:,} pixels, and at most {MOST_PIXELS:,} are read")
        return arrays[name]


@functools.lru_cache(maxsize=4)
def _dataset(name: str) -> Any:
    from jaxnmt.data.datasets import open_dataset  # which takes seconds to import

    return open_dataset(name, "picture", None, pictures=True)


class Scenes(Source):
    """Pictures of a split of the embedded scenes, and their captions: `scenes/en:train`, or `scenes/en-5000:train` for 5,000 of them.

    Raises:
        UserError: there is no such language.
    """

    def __init__(self, name: str, field: str) -> None:
        match: Any = SCENES.fullmatch(name)
        if match["language"] not in scenes.LANGUAGES:
            raise UserError(f"{field}: scenes has no language {match['language']}; there are {', '.join(scenes.LANGUAGES)}")
        super().__init__(name, ("", match["language"]), StatCache(None, "", ()))
        self._language, self._split = match["language"], match["split"] or "train"
        self._total = int(match["count"] or _COUNTS[self._split])

    def _count(self) -> int:
        return self._total

    def pairs(self, start: int = 0) -> Iterator[tuple[bytes, bytes]]:
        for index in range(start, self._total):
            caption = scenes.caption(scenes.scene(self._split, index), self._language)
            yield f"scenes/{self._language}:{self._split}#{index}".encode(), caption.encode()

    def where(self, index: int) -> str:
        return f"{self.name}#{index}"


class Pictures(Changed):
    """A source whose pictures' names are relative to a folder, by absolute names. Its fingerprint is of the text and the pictures' files.

    Args:
        cache: keeps the digests of files that do not change; see `StatCache`.
    """

    def __init__(self, whole: Source, folder: Path, cache: Path | None) -> None:
        above = os.path.abspath(folder)

        def change(pair: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
            name = decode(pair[0])
            return pair[0] if _is_dataset(name.rpartition("#")[0]) else os.path.join(above, name).encode(), pair[1]

        super().__init__(whole, change)
        self._cache = cache

    def fingerprint(self) -> str:
        return self._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> str:
        named = self._kept.get("files", lambda: list(dict.fromkeys(_file(decode(name)) for name, _ in self.pairs())))
        return hashlib.sha256(f"{super().fingerprint()} {contents(named, self._cache)}".encode()).hexdigest()


def contents(names: Iterable[str], cache: Path | None) -> str:
    """Return the SHA-256 of the named files, each counted once; missing files are left out. `cache` is as in `StatCache`."""
    paths = [Path(file) for file in dict.fromkeys(map(_file, names)) if os.path.isfile(file)]

    def read() -> str:
        digest = hashlib.sha256()
        for path in paths:
            with open(path, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    return StatCache(cache, ["pictures"], paths).get("digest", read)


def _file(name: str) -> str:
    path, _, _ = name.rpartition("#")
    return path if path.endswith(".npz") else name


def numbers_of(sources: Iterable[Source]) -> dict[bytes, int]:
    """Return a number for each picture of some sources, in the order in which they occur."""
    names: dict[bytes, int] = {}
    for source in sources:
        for name, _ in source.pairs():
            names.setdefault(name, len(names))
    return names


def each(sources: Iterable[Source], task: Captioning) -> Iterator[np.ndarray | UserError]:
    """Yield each picture or vector of some sources, in the order of `numbers_of`; if it cannot be read, the error with file and line."""
    seen = set()
    for source in sources:
        for index, (name, _) in enumerate(source.pairs()):
            if name not in seen:
                seen.add(name)
                try:
                    yield read(decode(name), task)
                except UserError as error:
                    yield UserError(f"{source.where(index)}: {error}")


def check(sources: Iterable[Source], task: Captioning) -> None:
    """Read each picture or vector of some sources.

    Raises:
        UserError: one cannot be read; the message has file and line.
    """
    for found in each(sources, task):
        if isinstance(found, UserError):
            raise found


def write(path: Path, sources: Iterable[Source], count: int, task: Captioning) -> None:
    """Write the pictures or vectors of sources as an array (count, ...), one after the other.

    Args:
        count: how many there are.

    Raises:
        UserError: one cannot be read.
    """
    array = np.lib.format.open_memmap(path, "w+", task.vector_dtype, (count, *task.vector_shape))
    for row, found in enumerate(each(sources, task)):
        if isinstance(found, UserError):
            raise found
        array[row] = found
    array.flush()
