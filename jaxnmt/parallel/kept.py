"""A cache on disk, beside the compilation cache, for what each start of the `jaxnmt` command would compute again.

An entry is named by a hash of all that it depends on: the source of this package, the versions of the libraries that programs are traced
with, JAX's settings and devices, and what the caller adds. Therefore an entry never changes, and needs no lock. Nothing is removed.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from jaxnmt import __version__
from jaxnmt.io import files

_LIBRARIES = ("jax", "jaxlib", "flax", "numpy")
_DIGEST_SIZE = 32  # bytes of SHA-256

_folder: Path | None = None


def enable(folder: Path | None) -> None:
    """Keep entries in a folder, which need not exist; None: keep nothing."""
    global _folder
    _folder = folder


def is_enabled() -> bool:
    """Return whether entries are kept: only in a process of the command, whose settings of JAX are those of its environment."""
    return _folder is not None


def name(*dependencies: object) -> str:
    """Return an entry's name. Starts JAX.

    Args:
        dependencies: all that the entry depends on besides `_environment`; their `repr` says what they are.
    """
    return hashlib.sha256("\n".join([_environment(), *map(repr, dependencies)]).encode()).hexdigest()


def read(entry: str) -> bytes | None:
    """Return the content of an entry; None if there is none, it is damaged, or nothing is kept."""
    if _folder is None:
        return None
    try:
        data = (_folder / entry).read_bytes()
    except OSError:
        return None
    digest, content = data[:_DIGEST_SIZE], data[_DIGEST_SIZE:]
    return content if hashlib.sha256(content).digest() == digest else None


def write(entry: str, content: bytes) -> None:
    """Keep an entry, if entries are kept and the folder can be written."""
    if _folder is not None:
        with contextlib.suppress(OSError):
            _folder.mkdir(parents=True, exist_ok=True)
            files.write(_folder / entry, hashlib.sha256(content).digest() + content)


def json_of(make: Callable[[], Any], what: str, cache_key: tuple[object, ...]) -> Any:
    """Return what `make` returns, which JSON can write, or what it returned in an earlier process.

    Args:
        what: names the value.
        cache_key: all else that it depends on, see `name`; empty: it is not kept.
    """
    if not cache_key:
        return make()
    entry = name(what, *cache_key)
    if (content := read(entry)) is not None:
        return json.loads(content)
    made = make()
    write(entry, json.dumps(made).encode())
    return made


@functools.cache
def _environment() -> str:
    """Return a hash of all that any program depends on: code, versions, settings and devices."""
    import jax

    package = Path(__file__).parents[1]
    source = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        source.update(f"{path.relative_to(package)}\n".encode() + path.read_bytes())
    versions = [(library, importlib.metadata.version(library)) for library in _LIBRARIES]
    settings: Iterable[object] = sorted((setting, repr(value)) for setting, value in jax.config.values.items())
    devices = [(device.platform, device.device_kind) for device in jax.devices()]
    backend = jax.devices()[0].client.platform_version
    flags = os.environ.get("XLA_FLAGS", "")
    flags = Path(flags).read_text(encoding="utf-8") if os.path.isfile(flags) else flags
    everything = __version__, source.hexdigest(), sys.version, versions, settings, flags, devices, backend
    return hashlib.sha256(repr(everything).encode()).hexdigest()
