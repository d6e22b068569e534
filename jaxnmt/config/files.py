"""Experiments on disk: config files (Python, by shipped name or path) and a run's resolved `config.json`. No JAX here."""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import pathlib
import sys
import typing
from collections.abc import Iterator
from typing import Any, TypeVar

from jaxnmt import config
from jaxnmt.config import Experiment, model_code, trust
from jaxnmt.config.model_code import executed, is_own, load_module, naming, type_name, type_of
from jaxnmt.errors import UserError
from jaxnmt.io import files

Returned = TypeVar("Returned")
_STUDIES = "ablations/"


def shipped() -> dict[str, pathlib.Path]:
    """The configs that come with the package, by name (`quickstart`, `phrases/lstm_luong`)."""
    return {name: path for name, path in _shipped().items() if not name.startswith(_STUDIES)}


def shipped_studies() -> dict[str, pathlib.Path]:
    """The studies that come with the package, by name (`heads`)."""
    return {name.removeprefix(_STUDIES): path for name, path in _shipped().items() if name.startswith(_STUDIES)}


def _shipped() -> dict[str, pathlib.Path]:
    package = pathlib.Path(__file__).parents[1]
    folder = next((f for f in (package / "_configs", package.parent / "configs") if f.is_dir()), None)
    if folder is None:
        return {}
    return {str(path.relative_to(folder).with_suffix("")): path for path in sorted(folder.rglob("*.py")) if not path.name.startswith("_")}


def find(name: str) -> pathlib.Path:
    """The file of a config: a path, or a shipped name (with - or _).

    Raises:
        UserError: there is neither; the nearest shipped names and all of them are given.
    """
    return _find(name, "config", shipped())


def find_study(name: str) -> pathlib.Path:
    """The file of a study: as `find`.

    Raises:
        UserError: as `find`.
    """
    return _find(name, "study", shipped_studies())


def _find(name: str, kind: str, names: dict[str, pathlib.Path]) -> pathlib.Path:
    path = pathlib.Path(name)
    if path.suffix == ".py":
        if path.is_file():
            return path
        raise UserError(f"{kind} file {name} does not exist; give the path of a Python file, or a shipped name: {', '.join(names)}")
    if name.replace("-", "_") in names:
        return names[name.replace("-", "_")]
    near = difflib.get_close_matches(name.replace("-", "_"), names, n=2, cutoff=0.5)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise UserError(f"there is no {kind} named {name}.{hint} Shipped: {', '.join(names)}; or give the path of your own file, ending in .py")


def load(name: str) -> Experiment:
    """The experiment of a config, by shipped name or path.

    Raises:
        UserError: no such config, the file fails, or its `config()` is missing or returns something else.
    """
    path = find(name)
    experiment = call(path, "config", Experiment)
    _check_model(path, experiment.model)
    if code := executed(type(experiment.model)):
        trust.name(code)
    return experiment


def call(path: pathlib.Path, function: str, returns: type[Returned]) -> Returned:
    """What a function of a config file returns.

    Raises:
        UserError: the file fails, or the function is missing, fails or returns something else.
    """
    module, kind = load_module(path), f"{returns.__module__}.{returns.__qualname__}"
    trust.name(module.__dict__["__source__"])
    if not callable(getattr(module, function, None)):
        raise UserError(f"config file {path}, line 1: it has no function {function}(); define one that returns a {kind}")
    with naming(path, f"{function}() fails"):
        made = getattr(module, function)()
    if not isinstance(made, returns):
        line = getattr(module, function).__code__.co_firstlineno
        raise UserError(f"config file {path}, line {line}: {function}() returns {type(made).__name__}, not a {kind}")
    return made


def _check_model(path: pathlib.Path, model: Any) -> None:
    kind = type(model)
    if not dataclasses.is_dataclass(model) or isinstance(model, type):
        raise UserError(
            f"config file {path}: its model is {model!r}; it must be an instance of a dataclass, such as jaxnmt.config.Transformer()"
        )
    if getattr(sys.modules[kind.__module__], kind.__qualname__, None) is not kind:
        raise UserError(
            f"config file {path}: the model's class {kind.__qualname__} must stand at the top level of its file, to be found again"
        )


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
    if model_code.meaning(type(old.model)) != model_code.meaning(type(new.model)):
        before["model"], after["model"] = (f"{type(side.model).__name__} of {model_code.file_of(type(side.model))}" for side in (old, new))
        after["model"] += ", whose code is another"
    names = list(dict.fromkeys([*before, *after]))
    return {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}


def save(experiment: Experiment, path: pathlib.Path) -> None:
    """Write an experiment as JSON, whole or not at all; beside it, as `model.py`, the config file that a model of the user's own is from.
    This computer will open a run with such a model again without being asked (`trust`).

    Raises:
        UserError: a field of the user's own model holds what JSON cannot.
    """
    kind = type(experiment.model)
    try:
        text = json.dumps(plain(experiment), indent=2, ensure_ascii=False) + "\n"
    except TypeError as error:
        raise UserError(
            f"the model {kind.__name__} has a field that {path.name} cannot hold ({error}); use numbers, words and tuples"
        ) from None
    files.write(path, text)  # first: it is what says that the folder is a run
    if is_own(kind):
        files.write(path.with_name(model_code.FILE), sys.modules[kind.__module__].__dict__["__source__"])
    if code := executed(kind):
        trust.record(code)


def write_json(value: Any, path: pathlib.Path) -> None:
    """Write JSON, whole or not at all."""
    files.write(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read(path: pathlib.Path) -> Experiment:
    """Read an experiment written by `save`. Fields that the file lacks take their defaults. A model of the user's own is executed.

    Raises:
        UserError: the file is missing, is not such a file, or names a field that does not exist; or the model's code is not trusted.
    """
    return _typed(Experiment, read_plain(path), path, "")


def read_plain(path: pathlib.Path) -> dict[str, Any]:
    """Read what `save` wrote as it stands. Nothing is executed.

    Raises:
        UserError: the file is missing, or is not such a file.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a configuration: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: the file should be an object with fields, not {values!r}")
    return values


def with_absolute_paths(experiment: Experiment) -> Experiment:
    """The same experiment, its existing local files named by absolute paths, so that a run does not depend on the current folder."""
    changes = {}
    for name in ("data.train", "data.validation", "data.test", "tokenizer.model"):
        room, field = name.split(".")
        changes[name] = tuple(map(_absolute, getattr(getattr(experiment, room), field)))
    return config.replace(experiment, **changes)


def _absolute(word: str) -> str:
    """A source's word; its files may be joined by a comma and followed by a weight, `a.en,a.de@3`."""
    try:
        word.encode()
    except UnicodeEncodeError:
        raise UserError(f"the name {os.fsencode(word)!r} is no UTF-8, and a run's settings could not hold it: rename the file") from None
    text, at, weight = word.rpartition("@") if "@" in word and not pathlib.Path(word).exists() else (word, "", "")
    files = [pathlib.Path(part).expanduser() for part in text.split(",")]
    if not all(file.is_file() for file in files):
        return word
    return ",".join(str(file.absolute()) for file in files) + at + weight


def plain(value: Any) -> Any:
    """A configuration as dictionaries, lists and numbers."""
    if not dataclasses.is_dataclass(value):
        return list(map(plain, value)) if isinstance(value, tuple) else value
    fields = {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Experiment):  # the one field whose class is the config file's choice
        fields["model"] = {"type": type_name(type(value.model)), **fields["model"]}
    return fields


def tupled(value: Any) -> Any:
    """Return a JSON value with tuples for lists, as fields have them."""
    return tuple(map(tupled, value)) if isinstance(value, list) else value


def _typed(kind: type, values: Any, where: pathlib.Path, prefix: str) -> Any:
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
            hint = type_of(value.pop("type", "Transformer"), where)
        if dataclasses.is_dataclass(hint):
            value = _typed(typing.cast(type, hint), value, where, f"{prefix}{name}.")
        changes[name] = tupled(value)
    return kind(**changes)
