"""Files in the format safetensors, by its own library: a JSON header and plain numbers, so that reading one executes nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxnmt.errors import UserError, first_line

HEADER_SIZE = 16 * 2**20
"""Bytes that a header may have. One with a thousand layers has half a million."""
TYPES = ("F32", "F16", "BF16")
"""The types of weights that are read. Each becomes float32."""


def save(path: Path, arrays: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> None:
    """Write arrays by name.

    Raises:
        UserError: safetensors is not installed.
    """
    library().numpy.save_file({name: np.asarray(x, order="C") for name, x in arrays.items()}, path, dict(metadata or {}))
    path.chmod(path.parent.stat().st_mode & 0o666)  # it makes files that only their owner may read


class TensorFile:
    """An open file, whose header alone has been read.

    Attributes:
        path: the file.
        shapes: the shape of each tensor by its name.
    """

    def __init__(self, path: Path, file: Any) -> None:
        """Read the header.

        Raises:
            UserError: a tensor has another type than `TYPES`.
        """
        self.path, self._file, self.shapes = path, file, {}
        for name in file.keys():  # noqa: SIM118  it is no dict
            view = file.get_slice(name)
            self.shapes[name] = tuple(view.get_shape())
            if view.get_dtype() not in TYPES:
                raise UserError(f"{path}: the tensor {name} has the type {view.get_dtype()}, not {', '.join(TYPES)}")

    def read(self, name: str) -> np.ndarray:
        """Return a tensor as float32.

        Raises:
            UserError: some of its numbers are NaN or infinite.
        """
        x = np.asarray(self._file.get_tensor(name)).astype(np.float32)
        if not np.isfinite(x).all():
            raise UserError(f"{self.path}: the tensor {name} has NaN or infinite numbers: the file is damaged")
        return x


@contextlib.contextmanager
def opened(path: Path) -> Iterator[TensorFile]:
    """Open a file, and check that its header describes exactly the bytes that it has.

    Raises:
        UserError: it is missing, damaged, or has a type of numbers that is not read; or safetensors is not installed.
    """
    safetensors = library()
    if not path.is_file():
        raise UserError(f"{path.parent} has no file {path.name}")
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if header > HEADER_SIZE:
        raise UserError(f"{path} is not a safetensors file: its header would have {header:,} bytes, and at most {HEADER_SIZE:,} are read")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            yield TensorFile(path, file)
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
