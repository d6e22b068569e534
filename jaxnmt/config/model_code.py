"""The code of models: which module defines a model's class, and how a run finds it again. No JAX here."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import importlib
import pathlib
import sys
import traceback
import types
import zlib
from collections.abc import Iterator

from jaxnmt import config
from jaxnmt.config import trust
from jaxnmt.errors import UserError

FILE = "model.py"
"""A run's copy of the config file that defines the user's own model."""
_OWN = "jaxnmt_config_"  # prefix of the names of modules made from config files


def load_module(path: pathlib.Path, text: bytes | None = None) -> types.ModuleType:
    """Execute a config file as a module. The same text is executed once, so that a model's class stays the same object.

    Args:
        text: the file's content; None: read it.

    Raises:
        UserError: the file fails; names the file and line.
    """
    with error_lines(path, "does not load"):
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


@contextlib.contextmanager
def error_lines(path: pathlib.Path, what: str) -> Iterator[None]:
    """Turn an error raised while a config file runs into a UserError that names the file's line and says what failed."""
    try:
        yield
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if pathlib.Path(frame.filename) == path.absolute()]
        line = error.lineno if isinstance(error, SyntaxError) else (lines or [1])[-1]
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise UserError(f"config file {path}, line {line}: {what}: {type(error).__name__}: {reason}") from None


def is_own(kind: type) -> bool:
    """Return whether a class is defined in a config file."""
    return kind.__module__.startswith(_OWN)


def file_of(kind: type) -> str:
    """Return the file that a class is defined in, or its module's name."""
    return getattr(sys.modules[kind.__module__], "__file__", None) or kind.__module__


def meaning(kind: type) -> str:
    """Return the code of a user's own model without imports, `config()` and docstrings: these may change within a run."""
    if not is_own(kind):
        return ""
    tree = ast.parse(sys.modules[kind.__module__].__dict__["__source__"])
    tree.body = [node for node in tree.body if not isinstance(node, ast.Import | ast.ImportFrom) and getattr(node, "name", "") != "config"]
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = [line for line in node.body if not (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant))]
    return ast.dump(tree)


def executed(kind: type) -> bytes:
    """Return the code that opening a run executes, as `trust` records it: the config file's content, or `module:Class`; empty for ours."""
    if is_own(kind):
        return sys.modules[kind.__module__].__dict__["__source__"]
    name = type_name(kind)
    return name.encode() if ":" in name else b""


def type_name(kind: type) -> str:
    """Return `Transformer` for ours, `package.module:Class` for others, `model.py:Class` for one defined in a config file."""
    if getattr(config, kind.__name__, None) is kind:
        return kind.__name__
    return f"{FILE if is_own(kind) else kind.__module__}:{kind.__qualname__}"


def type_of(name: str, where: pathlib.Path, part: str) -> type:
    """Return the class of a part of an experiment by its `type_name`. The code that defines it is executed.

    Args:
        where: the JSON file that names it. `model.py` is in the same folder.
        part: the part of the experiment, for messages.

    Raises:
        UserError: the class cannot be found, or its code is not trusted.
    """
    if not isinstance(name, str):
        raise UserError(f'{where}: {part}.type is {name!r}; it should be a name, such as "Transformer"')
    module_name, _, qualname = name.rpartition(":")
    try:
        kind = getattr(_module_of(module_name, qualname, where), qualname)
    except ImportError as error:
        raise UserError(f"{where}: {part}.type {name} cannot be imported ({error}): install it, or set PYTHONPATH") from None
    except AttributeError:
        raise UserError(f"{where}: {module_name or config.__name__} has no class {qualname}") from None
    if not isinstance(kind, type) or not dataclasses.is_dataclass(kind):
        raise UserError(f"{where}: {part}.type {name} is not a dataclass")
    return kind


def _module_of(module_name: str, qualname: str, where: pathlib.Path) -> types.ModuleType:
    if not module_name:
        return config
    if not module_name.endswith(".py"):
        trust.check(f"{module_name}:{qualname}".encode(), where.parent, f"the module {module_name}")
        return importlib.import_module(module_name)
    path = where.parent / module_name
    if not path.is_file():
        raise UserError(f"{where}: {qualname} is defined in {path}, which is missing: put the config file back")
    text = path.read_bytes()  # read once, so that the text that is checked is the text that is executed
    trust.check(text, where.parent, str(path))
    return load_module(path, text)
