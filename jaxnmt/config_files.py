"""Experiments on disk: config files (Python, by shipped name or path) and a run's resolved `config.json`. No JAX here."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import importlib.util
import json
import os
import pathlib
import sys
import traceback
import types
import typing
from collections.abc import Iterator
from typing import Any

from jaxnmt import config
from jaxnmt.config import Experiment, UserError


def shipped() -> dict[str, pathlib.Path]:
    """The configs that come with the package, by name (`quickstart`, `ablations/heads`)."""
    package = pathlib.Path(__file__).parent
    folder = next((f for f in (package / "_configs", package.parent / "configs") if f.is_dir()), None)
    if folder is None:
        return {}
    return {str(path.relative_to(folder).with_suffix("")): path for path in sorted(folder.rglob("*.py")) if not path.name.startswith("_")}


def find(name: str) -> pathlib.Path:
    """The file of a config: a path, or a shipped name (with - or _).

    Raises:
        UserError: there is neither; the nearest shipped names and all of them are given.
    """
    path = pathlib.Path(name)
    if path.suffix == ".py":
        if path.is_file():
            return path
        raise UserError(f"config file {name} does not exist; give the path of a Python file, or a shipped name: {', '.join(shipped())}")
    names = shipped()
    if name.replace("-", "_") in names:
        return names[name.replace("-", "_")]
    near = difflib.get_close_matches(name.replace("-", "_"), names, n=2, cutoff=0.5)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise UserError(f"there is no config named {name}.{hint} Shipped: {', '.join(names)}; or give the path of your own file, ending in .py")


def load_module(path: pathlib.Path) -> types.ModuleType:
    """Run a config file.

    Raises:
        UserError: it fails; with the file and line.
    """
    name = f"jaxnmt_config_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    with _naming(path, "does not load"):
        spec.loader.exec_module(module)
    return module


def load(name: str) -> Experiment:
    """The experiment of a config, by shipped name or path.

    Raises:
        UserError: no such config, the file fails, or its `config()` is missing or returns something else.
    """
    path = find(name)
    module = load_module(path)
    if not callable(getattr(module, "config", None)):
        raise UserError(f"config file {path}, line 1: it has no function config(); define one that returns a jaxnmt.config.Experiment")
    with _naming(path, "config() fails"):
        experiment = module.config()
    if not isinstance(experiment, Experiment):
        line = module.config.__code__.co_firstlineno
        raise UserError(f"config file {path}, line {line}: config() returns {type(experiment).__name__}, not a jaxnmt.config.Experiment")
    return experiment


class _naming:
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


def leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(dotted name, declared type, value) of every field of a configuration, those of nested ones included."""
    hints = typing.get_type_hints(type(value))
    for field in dataclasses.fields(value):
        inner = getattr(value, field.name)
        if dataclasses.is_dataclass(inner):
            yield from leaves(inner, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", hints[field.name], inner


def differences(old: Experiment, new: Experiment) -> dict[str, tuple[Any, Any]]:
    """Fields whose values differ, as {dotted name: (old, new)}; a field that one side lacks is None there."""
    before = {name: value for name, _, value in leaves(old)} | {"model": type(old.model).__name__}
    after = {name: value for name, _, value in leaves(new)} | {"model": type(new.model).__name__}
    names = list(dict.fromkeys([*before, *after]))
    return {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}


def save(experiment: Experiment, path: os.PathLike[str]) -> None:
    """Write an experiment as JSON, whole or not at all."""
    text = json.dumps(_plain(experiment), indent=2, ensure_ascii=False) + "\n"
    target = pathlib.Path(path)
    temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(target)


def read(path: os.PathLike[str]) -> Experiment:
    """Read an experiment written by `save`. Fields that the file lacks take their defaults.

    Raises:
        UserError: the file is missing, is not such a file, or names a field that does not exist.
    """
    path = pathlib.Path(path)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a configuration: {error}") from None
    return _typed(Experiment, values, str(path), "")


def with_absolute_paths(experiment: Experiment) -> Experiment:
    """The same experiment, its existing local files named by absolute paths, so that a run does not depend on the current folder."""
    changes = {}
    for name in ("data.train", "data.validation", "data.test", "tokenizer.model"):
        room, field = name.split(".")
        changes[name] = tuple(map(_absolute, getattr(getattr(experiment, room), field)))
    return config.replace(experiment, **changes)


def _absolute(word: str) -> str:
    """A source's word; its files may be joined by a comma and followed by a weight, `a.en,a.de@3`."""
    text, at, weight = word.rpartition("@") if "@" in word and not pathlib.Path(word).exists() else (word, "", "")
    files = [pathlib.Path(part).expanduser() for part in text.split(",")]
    if not all(file.is_file() for file in files):
        return word
    return ",".join(str(file.absolute()) for file in files) + at + weight


def _plain(value: Any) -> Any:
    if not dataclasses.is_dataclass(value):
        return list(value) if isinstance(value, tuple) else value
    plain = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Experiment):  # the one field whose class is the config file's choice
        plain["model"] = {"type": _type_name(type(value.model)), **plain["model"]}
    return plain


def _type_name(kind: type) -> str:
    """`Transformer` for ours, `package.module:Class` for others, `/path/file.py:Class` for one defined in a config file."""
    if kind.__module__ == config.__name__:
        return kind.__name__
    if kind.__module__.startswith("jaxnmt_config_"):
        return f"{pathlib.Path(sys.modules[kind.__module__].__file__ or '').resolve()}:{kind.__qualname__}"
    return f"{kind.__module__}:{kind.__qualname__}"


def _type_of(name: str, where: str) -> type:
    module_name, _, qualname = name.rpartition(":")
    try:
        if not module_name:
            module: Any = config
        elif module_name.endswith(".py"):
            module = load_module(pathlib.Path(module_name))
        else:
            module = importlib.import_module(module_name)
        return getattr(module, qualname)
    except (ImportError, AttributeError, FileNotFoundError):
        raise UserError(f"{where}: the model's type {name} cannot be found") from None


def _typed(kind: type, values: Any, where: str, prefix: str) -> Any:
    if not isinstance(values, dict):
        raise UserError(f"{where}: {prefix.rstrip('.') or 'the file'} should be an object with fields, not {values!r}")
    hints = typing.get_type_hints(kind)
    known = {field.name for field in dataclasses.fields(kind)}
    changes = {}
    for name, value in values.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise UserError(f"{where}: there is no field {prefix}{name}" + (f"; did you mean {prefix}{near[0]}?" if near else ""))
        hint = hints[name]
        if kind is Experiment and name == "model" and isinstance(value, dict):
            value = dict(value)
            hint = _type_of(value.pop("type", "Transformer"), where)
        if dataclasses.is_dataclass(hint):
            value = _typed(typing.cast(type, hint), value, where, f"{prefix}{name}.")
        changes[name] = tuple(value) if isinstance(value, list) else value
    return kind(**changes)
