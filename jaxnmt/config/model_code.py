"""The code of a user's own parts of an experiment: executed, saved with a run, found again, and trusted. No JAX here.

A run with a user's own model has a copy of that model's code, and opening the run executes the code. So that a downloaded run cannot
execute anything, this is allowed only if this computer has trained a run with the same code, if the user names the code in this command, or
with `--trust`.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import os
import pathlib
import sys
import traceback
import types
import zlib
from collections.abc import Iterator

from jaxnmt import config
from jaxnmt.config import Experiment
from jaxnmt.errors import UserError

FILE = "model.py"
"""A run's copy of the config file that defines the user's own model."""
_OWN = "jaxnmt_config_"  # prefix of the names of modules made from config files

_named: set[bytes] = set()
_trusts_all = False


# ---- executed


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
        if name in sys.modules and source_of(name) == text:
            return sys.modules[name]
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


# ---- saved, compared and found again


def source_of(module: str) -> bytes:
    """Return the content of the config file that a module was made from."""
    return sys.modules[module].__dict__["__source__"]


def is_own(kind: type) -> bool:
    """Return whether a class is defined in a config file."""
    return kind.__module__.startswith(_OWN)


def meaning(kind: type) -> str:
    """Return the code of a user's own model without imports, `config()` and docstrings: these may change within a run."""
    if not is_own(kind):
        return ""
    tree = ast.parse(source_of(kind.__module__))
    tree.body = [node for node in tree.body if not isinstance(node, ast.Import | ast.ImportFrom) and getattr(node, "name", "") != "config"]
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = [line for line in node.body if not (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant))]
    return ast.dump(tree)


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
    module_name, _, qualname = name.rpartition(":")
    try:
        return getattr(_module_of(module_name, qualname, where), qualname)
    except ImportError as error:
        raise UserError(f"{where}: {part}.type {name} cannot be imported ({error}): install it, or set PYTHONPATH") from None
    except AttributeError:
        raise UserError(f"{where}: {module_name or config.__name__} has no class {qualname}") from None


def _module_of(module_name: str, qualname: str, where: pathlib.Path) -> types.ModuleType:
    if not module_name:
        return config
    if not module_name.endswith(".py"):
        _check_trust(f"{module_name}:{qualname}".encode(), where.parent, f"the module {module_name}")
        return importlib.import_module(module_name)
    path = where.parent / module_name
    if not path.is_file():
        raise UserError(f"{where}: {qualname} is defined in {path}, which is missing: put the config file back")
    text = path.read_bytes()  # read once, so that the text that is checked is the text that is executed
    _check_trust(text, where.parent, str(path))
    return load_module(path, text)


# ---- trusted


@contextlib.contextmanager
def all_trusted(wanted: bool = True) -> Iterator[None]:
    """Allow all code within the block, if `wanted`: for `--trust`, and for a process of ours whose parent has checked."""
    global _trusts_all
    before, _trusts_all = _trusts_all, wanted or _trusts_all
    try:
        yield
    finally:
        _trusts_all = before


def trust(code: bytes) -> None:
    """Allow code in this process that the user has named, such as a config file."""
    _named.add(code)


def record_trust(experiment: Experiment) -> None:
    """Record on this computer that it has started a run with this code. If the home folder cannot be written, nothing is recorded."""
    for code in executed(experiment):
        with contextlib.suppress(OSError, RuntimeError):
            _record(code).parent.mkdir(parents=True, exist_ok=True)
            _record(code).touch()


def executed(experiment: Experiment) -> set[bytes]:
    """Return the code that opening a run of the experiment executes: config files' contents, and names `module:Class`."""
    others = {kind for kind in map(type, vars(experiment).values()) if ":" in type_name(kind)}
    return {source_of(kind.__module__) if is_own(kind) else type_name(kind).encode() for kind in others}


def _check_trust(code: bytes, run: pathlib.Path, what: str) -> None:
    """Refuse to execute unknown code, described in the message as `what`.

    Raises:
        UserError: the code may not be executed.
    """
    trusted = _trusts_all or code in _named
    with contextlib.suppress(OSError, RuntimeError):
        trusted = trusted or _record(code).exists()
    if not trusted:
        raise UserError(
            f"opening {run} would execute {what}, and this computer has trained no run with that code: "
            "read it, then repeat the command with --trust"
        )


def _record(code: bytes) -> pathlib.Path:
    """Return the empty file, named by a hash, that records trusted code (XDG Base Directory Specification: relative paths are ignored).

    Raises:
        RuntimeError: there is no home folder.
    """
    state = os.environ.get("XDG_STATE_HOME", "")
    folder = pathlib.Path(state) if os.path.isabs(state) else pathlib.Path.home() / ".local" / "state"
    return folder / "jaxnmt" / "trusted" / hashlib.sha256(code).hexdigest()
