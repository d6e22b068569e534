"""Files in the format safetensors, by its own library: a JSON header and plain numbers, so that reading one executes nothing."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxnmt.errors import UserError, first_line
from jaxnmt.interop.untrusted import VOCABULARY_SIZE, read_json

HEADER_SIZE = 16 * 2**20
"""Bytes that a header may have. One with a thousand layers has half a million."""
TYPES = {"F32": 4, "F16": 2, "BF16": 2}
"""The types of weights that are read, and their bytes. Each becomes float32."""
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
"""The file of a model's weights, and the one that says in which of several files each tensor is."""
MOST_FILES = 256
"""Files that an index may name: all are open at the same time."""
_FILE_NAME = re.compile(r"[\w.-]+\.safetensors", re.ASCII)


def save(path: Path, arrays: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> None:
    """Write arrays by name.

    Raises:
        UserError: safetensors is not installed.
    """
    library().numpy.save_file({name: np.asarray(x, order="C") for name, x in arrays.items()}, path, dict(metadata or {}))
    path.chmod(path.parent.stat().st_mode & 0o666)  # it makes files that only their owner may read


class Tensors:
    """The tensors of a folder's open files, of which only the headers have been read.

    Attributes:
        path: the file, or the index of several files.
        shapes: the shape of each tensor by its name.
    """

    def __init__(self, path: Path, files: Mapping[Path, Any]) -> None:
        """Read the headers.

        Args:
            path: see the class.
            files: the open files by their paths.

        Raises:
            UserError: a tensor is in two files, or has another type than `TYPES`.
        """
        self.path, self.shapes = path, dict[str, tuple[int, ...]]()
        self.bytes = 0
        self.places: dict[str, Path] = {}
        self._files = files
        for place, file in files.items():
            for name in file.keys():  # noqa: SIM118  it is no dict
                if name in self.places:
                    raise UserError(f"{place} and {self.places[name].name} both have the tensor {name[:100]}: fetch both files again")
                view = file.get_slice(name)
                if (kind := view.get_dtype()) not in TYPES:
                    raise UserError(f"{place}: the tensor {name[:100]} has the type {kind}, not {', '.join(TYPES)}")
                self.shapes[name], self.places[name] = tuple(view.get_shape()), place
                self.bytes += math.prod(self.shapes[name]) * TYPES[kind]

    def read(self, name: str) -> np.ndarray:
        """Return a tensor as float32.

        Raises:
            UserError: some of its numbers are NaN or infinite.
        """
        place = self.places[name]
        x = np.asarray(self._files[place].get_tensor(name)).astype(np.float32)
        if not np.isfinite(x).all():
            raise UserError(f"{place}: the tensor {name} has NaN or infinite numbers: the file is damaged")
        return x


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Tensors]:
    """Open a folder's `WEIGHTS`, or else the files that its `INDEX` names, and check that they hold what header and index say.

    Raises:
        UserError: a file is missing, damaged, or has a type of numbers that is not read; the index names a file outside the folder, or
            does not describe its files; or safetensors is not installed.
    """
    path, index = folder / WEIGHTS, folder / INDEX
    with contextlib.ExitStack() as stack:
        if path.exists() or not index.exists():
            yield stack.enter_context(opened_file(path))
            return
        described = read_json(index, VOCABULARY_SIZE)
        files = {folder / name: None for name in _file_names(index, described)}
        tensors = Tensors(index, {place: stack.enter_context(_opened(place)) for place in files})
        _check_index(tensors, described)
        yield tensors


@contextlib.contextmanager
def opened_file(path: Path) -> Iterator[Tensors]:
    """Open one file, and check that it holds what its header says.

    Raises:
        UserError: it is missing, damaged, or has a type of numbers that is not read; or safetensors is not installed.
    """
    with _opened(path) as file:
        yield Tensors(path, {path: file})


def _file_names(index: Path, described: Mapping[str, Any]) -> list[str]:
    """Return the names of the files that an index names, each once."""
    places = described.get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise UserError(f"{index} has no weight_map that says in which file each tensor is: fetch it again")
    names = list(dict.fromkeys(places.values()))
    if odd := [name for name in names if not _FILE_NAME.fullmatch(name)]:
        raise UserError(f"{index} names {odd[0][:100]!r}, which is not a safetensors file in the folder itself: fetch the model again")
    if len(names) > MOST_FILES:
        raise UserError(f"{index} names {len(names):,} files, and at most {MOST_FILES} are read: save the model with larger files")
    return names


def _check_index(tensors: Tensors, described: Mapping[str, Any]) -> None:
    """Check that each tensor is in the file that the index names, and that all are as large as it says.

    It may name tensors that no file has: copies of others, which some software leaves out.
    """
    places, metadata = described["weight_map"], described.get("metadata")
    size = metadata.get("total_size") if isinstance(metadata, dict) else None
    for name, place in tensors.places.items():
        if (promised := places.get(name)) != place.name:
            where = f"in {promised}" if promised else "nowhere"
            raise UserError(f"{place} has the tensor {name[:100]}, which by {tensors.path.name} is {where}: fetch both files again")
    if places.keys() == tensors.places.keys() and size not in (None, tensors.bytes):
        promised = str(size)[:50]
        raise UserError(f"{tensors.path} promises {promised} bytes, and its files have {tensors.bytes:,}: fetch the model again")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open one file. Its library checks that the header describes exactly the bytes that the file has."""
    safetensors = library()
    if not path.is_file():
        raise UserError(f"{path.parent} has no file {path.name}")
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if header > HEADER_SIZE:
        raise UserError(f"{path} is not a safetensors file: its header would have {header:,} bytes, and at most {HEADER_SIZE:,} are read")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            yield file
    except safetensors.SafetensorError as error:
        raise UserError(f"{path} is not a safetensors file, or is damaged ({first_line(error)[:200]}): fetch it again") from None


def library() -> Any:
    """Return the library safetensors.

    Raises:
        UserError: it is not installed.
    """
    try:
        import ml_dtypes  # noqa: F401  which gives NumPy the type bfloat16
        import safetensors.numpy
    except ImportError:
        raise UserError("models are exchanged in the format safetensors, which is not installed: pip install 'jaxnmt[interop]'") from None
    return safetensors
