"""The code of models: which module a model's class is from, and how a run finds it again. No JAX here."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import pathlib
import sys
import traceback
import types
import zlib
from typing import Any

from jaxnmt import config
from jaxnmt.config import trust
from jaxnmt.errors import UserError

FILE = "model.py"
"""Where a run keeps the config file that a model of the user's own is from."""
_OWN = "jaxnmt_config_"  # how modules made of config files are called


def load_module(path: pathlib.Path, text: bytes | None = None) -> types.ModuleType:
    """Run a config file; once, as long as its text stays the same, so that a model's class stays the same too.

    Args:
        text: the file's content, if it has been read.

    Raises:
        UserError: it fails; with the file and line.
    """
    with naming(path, "does not load"):
        text, place = path.read_bytes() if text is None else text, str(path.absolute())
        name = f"{_OWN}{path.stem}_{zlib.crc32(place.encode()):08x}"
        known = sys.modules.get(name)
        if known is not None and known.__dict__["__source__"] == text:
            return known
        module = types.ModuleType(name)
        module.__dict__.update(__file__=place, __source__=text)
        sys.modules[name] = module  # dataclasses look their module up there
        try:
            exec(compile(text, place, "exec", dont_inherit=True), module.__dict__)
        except BaseException:
            del sys.modules[name]
            raise
    return module


class naming:
    """Turns an error raised while a config file runs into one that names the file's line."""

    def __init__(self, path: pathlib.Path, what: str):
        self.path, self.what = path, what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        if not isinstance(error, Exception):
            return
        lines = [frame.lineno for frame in traceback.extract_tb(trace) if pathlib.Path(frame.filename) == self.path.absolute()]
        line = error.lineno if isinstance(error, SyntaxError) else (lines or [1])[-1]
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise UserError(f"config file {self.path}, line {line}: {self.what}: {type(error).__name__}: {reason}") from None


def is_own(kind: type) -> bool:
    """Return whether a class is defined in a config file."""
    return kind.__module__.startswith(_OWN)


def file_of(kind: type) -> str:
    """Return the file that a class is defined in, or its module's name."""
    return getattr(sys.modules[kind.__module__], "__file__", None) or kind.__module__


def meaning(kind: type) -> str:
    """Return what two config files of a user's own model are compared by: imports, `config()` and docstrings may change within a run."""
    if not is_own(kind):
        return ""
    tree = ast.parse(sys.modules[kind.__module__].__dict__["__source__"])
    tree.body = [node for node in tree.body if not isinstance(node, ast.Import | ast.ImportFrom) and getattr(node, "name", "") != "config"]
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = [line for line in node.body if not (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant))]
    return ast.dump(tree)


def executed(kind: type) -> bytes:
    """Return what `trust` knows a model's code by: the config file's content, or `module:Class`; nothing for ours."""
    if is_own(kind):
        return sys.modules[kind.__module__].__dict__["__source__"]
    name = type_name(kind)
    return name.encode() if ":" in name else b""


def type_name(kind: type) -> str:
    """Return `Transformer` for ours, `package.module:Class` for others, `model.py:Class` for one defined in a config file."""
    if getattr(config, kind.__name__, None) is kind:
        return kind.__name__
    return f"{FILE if is_own(kind) else kind.__module__}:{kind.__qualname__}"


def type_of(name: str, where: pathlib.Path) -> type:
    """Return the class of a model by its `type_name`. Its code is executed.

    Args:
        where: the JSON file that names it; `model.py` is in the same folder.

    Raises:
        UserError: it cannot be found, or its code is not trusted.
    """
    if not isinstance(name, str):
        raise UserError(f'{where}: the model\'s type is {name!r}; it should be a name, such as "Transformer"')
    module_name, _, qualname = name.rpartition(":")
    try:
        kind = getattr(_module_of(module_name, qualname, where), qualname)
    except ImportError as error:
        raise UserError(f"{where}: the model's type {name} cannot be imported ({error}): install it, or set PYTHONPATH") from None
    except AttributeError:
        raise UserError(f"{where}: {module_name or config.__name__} has no class {qualname}, which the model is of") from None
    if not isinstance(kind, type) or not dataclasses.is_dataclass(kind):
        raise UserError(f"{where}: the model's type {name} is not a dataclass")
    return kind


def _module_of(module_name: str, qualname: str, where: pathlib.Path) -> types.ModuleType:
    if not module_name:
        return config
    if not module_name.endswith(".py"):
        trust.check(f"{module_name}:{qualname}".encode(), where.parent, f"the module {module_name}")
        return importlib.import_module(module_name)
    path = where.parent / module_name
    if not path.is_file():
        raise UserError(f"{where}: the model {qualname} is defined in {path}, which is not there: put the config file back in its place")
    text = path.read_bytes()  # once: what is executed is what was checked
    trust.check(text, where.parent, str(path))
    return load_module(path, text)
