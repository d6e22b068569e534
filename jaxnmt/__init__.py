"""jaxnmt: a JAX/Flax trainer for neural machine translation, from the plain RNN to the Transformer.

The names in `__init__.pyi` are public and documented in docs/python.md; everything else is private and may change. Importing the package
imports neither JAX nor any other module of it: a name is loaded when it is first used.
"""

from __future__ import annotations

import ast
import importlib
import pathlib
from typing import Any

__version__ = "0.1.0"

_STUB = ast.parse(pathlib.Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
_MODULES = {alias.name: node.module for node in _STUB.body if isinstance(node, ast.ImportFrom) for alias in node.names}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'jaxnmt' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
