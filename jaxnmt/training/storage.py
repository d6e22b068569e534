"""Read arrays, call Orbax without side effects, report disk errors in a sentence, and remove checkpoints. Imports no JAX."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import errno
import functools
import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxnmt.errors import UserError
from jaxnmt.io import files
from jaxnmt.io.literal_paths import LiteralPath
from jaxnmt.runs import directory

if TYPE_CHECKING:
    import numpy as np

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
_DICT_KEY = 2  # Orbax's number of a dict's key


def with_orbax(method: Callable) -> Callable:
    """Let a method call Orbax without side effects on the process, and raise UserError if the disk is full.

    The method's object has the run's folder as `_run`.

    Orbax's log lines are dropped: what fails is raised. If this thread runs an event loop, as a notebook's does, the method runs in another
    one: there Orbax would need nest_asyncio, which changes asyncio for the whole process.
    """

    @functools.wraps(method)
    def call(self: Any, *args: Any) -> Any:
        not_orbax = lambda record: "orbax" not in record.pathname  # noqa: E731
        logger = logging.getLogger("absl")
        logger.addFilter(not_orbax)
        try:
            with disk_errors(self._run), concurrent.futures.ThreadPoolExecutor(1) as pool:
                if asyncio._get_running_loop() is None:
                    return method(self, *args)
                return pool.submit(method, self, *args).result()
        finally:
            logger.removeFilter(not_orbax)

    return call


def read_arrays(place: LiteralPath, like: Any, read: Callable[[], dict[str, np.ndarray] | None]) -> Any:
    """Return the arrays of a checkpoint's item that Orbax wrote.

    Args:
        place: the item's folder.
        like: ShapeDtypeStructs of the arrays, with shardings.
        read: returns what `read_numpy` returns for this folder.

    Raises:
        Exception: an array is missing, has another shape, or cannot be read; of any class.
    """
    import jax

    leaves, tree = jax.tree_util.tree_flatten_with_path(like)
    is_local = all(x.sharding.is_fully_addressable for _, x in leaves)
    if not is_local or (numbers := read()) is None:
        import orbax.checkpoint as ocp

        with ocp.StandardCheckpointer() as reader:
            return reader.restore(place, like)
    wanted = {".".join(str(getattr(key, "key", key)) for key in path): x for path, x in leaves}
    if wanted.keys() != numbers.keys():
        different = ", ".join(sorted(wanted.keys() ^ numbers.keys())[:3])
        raise ValueError(f"its parameters are not those of the model: {different}")
    for name, x in wanted.items():
        if (numbers[name].shape, numbers[name].dtype) != (x.shape, x.dtype):
            raise ValueError(f"{name} has the shape {numbers[name].shape} and the type {numbers[name].dtype}, not {x.shape} and {x.dtype}")
    return jax.tree.unflatten(tree, [jax.device_put(numbers[name], x.sharding) for name, x in wanted.items()])


def read_numpy(place: LiteralPath) -> dict[str, np.ndarray] | None:
    """Return the arrays of an item by their names, `a.b.c` of nested dicts; None if it is in a bucket or in an older format.

    TensorStore reads them, as Orbax does it: Orbax takes half a second to import.

    Raises:
        Exception: an array cannot be read; of any class.
    """
    import tensorstore

    names = None if files.in_bucket(place) else _array_names(place)
    if names is None:
        return None
    store = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{place}/"}}
    specs = ({"driver": "zarr", "kvstore": store | {"path": f"{name}/"}, "fill_missing_data_reads": False} for name in names)
    context = tensorstore.Context()  # shared, so that the database is opened once
    arrays = [each.result() for each in [tensorstore.open(spec, open=True, context=context) for spec in specs]]
    return dict(zip(names, [each.result() for each in [array.read() for array in arrays]], strict=True))


def _array_names(place: LiteralPath) -> list[str] | None:
    """Return the names of an item's arrays; None if it is not in the format that Orbax writes now."""
    metadata = json.loads((place / "_METADATA").read_text())
    keys = [each["key_metadata"] for each in metadata["tree_metadata"].values()]
    of_dicts = all(key["key_type"] == _DICT_KEY and "." not in key["key"] for path in keys for key in path)
    if not metadata.get("use_ocdbt") or metadata.get("use_zarr3") or not of_dicts:
        return None
    return [".".join(key["key"] for key in path) for path in keys]


def remove(place: LiteralPath) -> None:
    """Remove a checkpoint so that no part of it passes for a whole one. If this process is killed, the next session removes the rest."""
    import orbax.checkpoint as ocp

    if files.in_bucket(place):
        (place / directory.COMMITTED).unlink()
    else:
        place = place.rename(place.with_name(f"{place.name}{ocp.utils.TMP_DIR_SUFFIX}removed"))
    with contextlib.suppress(OSError):  # an NFS server may hold a file back
        place.rmtree()


@contextlib.contextmanager
def disk_errors(run: Path) -> Iterator[None]:
    """Raise UserError for a full or read-only disk. TensorStore hides the system's error number in a ValueError's text."""
    try:
        yield
    except (OSError, ValueError) as error:
        hidden = re.search(r"os_error_code='(\d+)'", str(error))
        number = int(hidden[1]) if hidden else getattr(error, "errno", None)
        if number not in _DISK:
            raise
        raise UserError(
            f"{getattr(error, 'filename', None) or run} cannot be written ({os.strerror(number)}): free or repair the disk, "
            f"then `jaxnmt resume {run}` resumes from the last complete checkpoint"
        ) from error
