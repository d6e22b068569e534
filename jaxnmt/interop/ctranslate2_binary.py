"""CTranslate2's `model.bin`: a list of named arrays, and aliases of them. Binary version 6; all integers are little-endian.

    u32 version, string name of the specification, u32 its revision,
    u32 count, and for each array: string name, u8 rank, u32 for each axis, u8 type, u32 bytes, the data in C order,
    u32 count, and for each alias: string alias, string name of an array

A string is u16 length, the bytes and a zero, which the length counts. The reader maps the file into memory and checks every length against
what is left of it, so that a damaged or hostile file costs no memory.
"""

from __future__ import annotations

import mmap
import pathlib
import struct
from collections.abc import Mapping
from typing import NamedTuple, NoReturn

import numpy as np

from jaxnmt.errors import UserError
from jaxnmt.io import files

VERSION = 6
SPECIFICATION, REVISION = "TransformerSpec", 7
_TYPES = tuple(map(np.dtype, ("<f4", "i1", "<i2", "<i4", "<f2")))
_LARGEST = 2**32 - 1
"""Bytes of one array, which the format counts in 32 bits."""
_MOST_AXES = 8


class Variables(NamedTuple):
    """What a model file holds.

    Attributes:
        arrays: by name.
        aliases: name -> name of the array that it stands for.
    """

    arrays: dict[str, np.ndarray]
    aliases: dict[str, str]


def write(path: pathlib.Path, arrays: Mapping[str, np.ndarray], aliases: Mapping[str, str]) -> None:
    """Write a model file atomically, names in alphabetical order.

    Args:
        path: the file.
        arrays: float32, int8, int16 or int32.
        aliases: see `Variables`.

    Raises:
        UserError: an array has 4 GiB or more.
        OSError: the file cannot be written.
    """
    with files.open_atomic(path) as file:
        file.write(struct.pack("<I", VERSION) + _string(SPECIFICATION) + struct.pack("<II", REVISION, len(arrays)))
        for name, array in sorted(arrays.items()):
            if array.nbytes > _LARGEST:
                raise UserError(
                    f"{name} has {array.nbytes:,} bytes, and CTranslate2's file holds arrays of less than 4 GiB: use safetensors"
                )
            kind = _TYPES.index(array.dtype.newbyteorder("<") if array.dtype.itemsize > 1 else array.dtype)
            shape = struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
            file.write(_string(name) + shape + struct.pack("<BI", kind, array.nbytes))
            file.write(np.ascontiguousarray(array, _TYPES[kind]).data)
        file.write(struct.pack("<I", len(aliases)))
        for alias, name in sorted(aliases.items()):
            file.write(_string(alias) + _string(name))


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<H", len(data) + 1) + data + b"\0"


def read(path: pathlib.Path) -> Variables:
    """Read a model file. The arrays lie in the mapped file and are read-only.

    Raises:
        UserError: it is not a Transformer's model file, is of another version, or is damaged.
    """
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        raise UserError(f"{path} cannot be read ({error}): give a model folder that CTranslate2 can load") from error
    reader = _Reader(memoryview(data), str(path))
    version, specification, revision = reader.number("<I"), reader.string(), reader.number("<I")
    if (version, specification, revision) != (VERSION, SPECIFICATION, REVISION):
        raise UserError(
            f"{path} is version {version} with a {specification!r} of revision {revision}, and jaxnmt reads version {VERSION} with a "
            f"{SPECIFICATION} of revision {REVISION}: convert the model again with a current CTranslate2"
        )
    arrays: dict[str, np.ndarray] = {}
    for _ in range(reader.number("<I")):
        name = reader.new_name(arrays)
        arrays[name] = reader.array(name)
    aliases: dict[str, str] = {}
    for _ in range(reader.number("<I")):
        alias = reader.new_name(arrays, aliases)
        aliases[alias] = reader.string()
        if aliases[alias] not in arrays:
            reader.refuse(f"{alias!r} stands for {aliases[alias]!r}, which is not there")
    if reader.left:
        reader.refuse(f"{reader.left:,} bytes follow the last name")
    return Variables(arrays, aliases)


class _Reader:
    """Reads numbers, strings and arrays one after the other."""

    def __init__(self, data: memoryview, name: str) -> None:
        self._data, self._name, self._at = data, name, 0

    @property
    def left(self) -> int:
        """Bytes that are not yet read."""
        return len(self._data) - self._at

    def refuse(self, why: str) -> NoReturn:
        raise UserError(f"{self._name} is damaged: {why}. Copy or convert the model again")

    def _take(self, count: int, what: str) -> memoryview:
        if count > self.left:
            self.refuse(f"{what} at byte {self._at:,} has {count:,} bytes, and {self.left:,} are left")
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self, kind: str) -> int:
        return struct.unpack(kind, self._take(struct.calcsize(kind), "a number"))[0]

    def string(self) -> str:
        data = bytes(self._take(self.number("<H"), "a name"))
        try:
            if data[-1:] != b"\0":
                raise ValueError
            return data[:-1].decode()
        except ValueError:
            self.refuse(f"the name before byte {self._at:,} is not text that ends with a zero")

    def new_name(self, *known: Mapping[str, object]) -> str:
        name = self.string()
        if any(name in names for names in known):
            self.refuse(f"{name!r} is there twice")
        return name

    def array(self, name: str) -> np.ndarray:
        rank = self.number("<B")
        if rank > _MOST_AXES:
            self.refuse(f"{name!r} has {rank} axes")
        shape = [self.number("<I") for _ in range(rank)]
        kind, count = self.number("<B"), self.number("<I")
        if kind >= len(_TYPES):
            self.refuse(f"{name!r} is of type {kind}, and jaxnmt reads types 0 to {len(_TYPES) - 1}")
        needed = _TYPES[kind].itemsize
        for length in shape:
            needed *= length
        if needed != count or not count:
            self.refuse(f"{name!r} of shape {tuple(shape)} needs {needed:,} bytes and promises {count:,}")
        return np.frombuffer(self._take(count, f"{name!r}"), _TYPES[kind]).reshape(shape)
