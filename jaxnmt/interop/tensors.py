"""Files in the format safetensors, by its own library: a JSON header and plain numbers, so that reading one executes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxnmt.errors import UserError


def save(path: Path, arrays: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> None:
    """Write arrays by name.

    Raises:
        UserError: safetensors is not installed.
    """
    library().save_file({name: np.ascontiguousarray(x) for name, x in arrays.items()}, path, dict(metadata or {}))


def library() -> Any:
    """Return safetensors.numpy.

    Raises:
        UserError: it is not installed.
    """
    try:
        import safetensors.numpy
    except ImportError:
        raise UserError("models are exchanged in the format safetensors, which is not installed: pip install 'jaxnmt[interop]'") from None
    return safetensors.numpy
