"""Experiments on disk: config files (Python, by shipped name or path) and a run's `config.json`. No JAX here."""

from __future__ import annotations

import dataclasses
import inspect
import json
import pathlib
import sys
import typing
from typing import Any, Literal, TypeVar

from jaxnmt.config import Experiment, model_code, replace
from jaxnmt.config.fields import attribute_of, did_you_mean, leaves, spelt
from jaxnmt.errors import UserError
from jaxnmt.io import files
from jaxnmt.io.table_folders import folder_and_split

Returned = TypeVar("Returned")
_STUDIES = "ablations/"


def shipped_configs() -> dict[str, pathlib.Path]:
    """Return the configs that come with the package, by name (`quickstart`, `phrases/lstm_luong`)."""
    return {name: path for name, path in _shipped().items() if not name.startswith(_STUDIES)}


def shipped_studies() -> dict[str, pathlib.Path]:
    """Return the studies that come with the package, by name (`heads`)."""
    return {name.removeprefix(_STUDIES): path for name, path in _shipped().items() if name.startswith(_STUDIES)}


def _shipped() -> dict[str, pathlib.Path]:
    package = pathlib.Path(__file__).parents[1]
    installed = package / "_configs"
    folder = installed if installed.is_dir() else package.parent / "configs"
    return {str(path.relative_to(folder).with_suffix("")): path for path in sorted(folder.rglob("*.py")) if not path.name.startswith("_")}


def find_config(name: str, kind: Literal["config", "study"] = "config") -> pathlib.Path:
    """Return the file of a config or a study: a path, or a shipped name (with - or _).

    Raises:
        UserError: there is no such file or name; lists the nearest shipped names and all of them.
    """
    path, names = pathlib.Path(name), shipped_configs() if kind == "config" else shipped_studies()
    if path.suffix == ".py":
        if path.is_file():
            return path
        raise UserError(f"{kind} file {name} does not exist; give the path of a Python file, or a shipped name: {', '.join(names)}")
    if name.replace("-", "_") in names:
        return names[name.replace("-", "_")]
    near = did_you_mean(name, names) or "."
    raise UserError(f"there is no {kind} named {name}{near} Shipped: {', '.join(names)}; or give the path of your own file, ending in .py")


def load_config(name: str) -> Experiment:
    """Return the experiment of a config, by shipped name or path.

    Raises:
        UserError: no such config, the file fails, or its `config()` is missing or returns something else.
    """
    path = find_config(name)
    experiment = call_function(path, "config", Experiment)
    _check_parts(path, experiment)
    for code in model_code.executed(experiment):
        model_code.trust(code)
    return experiment


def call_function(path: pathlib.Path, function: str, returns: type[Returned]) -> Returned:
    """Call a function of a config file.

    Args:
        returns: the type that it must return.

    Raises:
        UserError: the file fails, or the function is missing, fails or returns something else; names the file and line.
    """
    module, kind = model_code.load_module(path), f"{returns.__module__}.{returns.__qualname__}"
    model_code.trust(model_code.source_of(module.__name__))
    if not callable(getattr(module, function, None)):
        raise UserError(f"config file {path}, line 1: it has no function {function}(); define one that returns a {kind}")
    with model_code.error_lines(path, f"{function}() fails"):
        made = getattr(module, function)()
    if not isinstance(made, returns):
        line = getattr(module, function).__code__.co_firstlineno
        raise UserError(f"config file {path}, line {line}: {function}() returns {type(made).__name__}, not a {kind}")
    return made


def _check_parts(path: pathlib.Path, experiment: Experiment) -> None:
    for part, section in vars(experiment).items():
        kind, example = type(section), type(getattr(Experiment(), part)).__name__
        if not dataclasses.is_dataclass(section) or isinstance(section, type):
            raise UserError(f"config file {path}: its {part} is {section!r}; it must be an instance of a dataclass, such as {example}()")
        if getattr(sys.modules[kind.__module__], kind.__qualname__, None) is not kind:
            raise UserError(f"config file {path}: the class {kind.__qualname__} must stand at the top level of its file, to be found again")


def changed_fields(old: Experiment, new: Experiment) -> dict[str, tuple[Any, Any]]:
    """Return the fields whose values differ: {dotted name: (old, new)}. A field that only one experiment has is None in the other."""
    before, after = ({name: value for name, _, value in leaves(each)} for each in (old, new))
    for part in vars(old):
        kinds = type(getattr(old, part)), type(getattr(new, part))
        before[part], after[part] = (kind.__name__ for kind in kinds)
        if model_code.meaning(kinds[0]) != model_code.meaning(kinds[1]):
            before[part], after[part] = (f"{kind.__name__} of {inspect.getfile(kind)}" for kind in kinds)
            after[part] += ", whose code is different"
    names = list(dict.fromkeys([*before, *after]))
    return {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}


def save_config(experiment: Experiment, path: pathlib.Path) -> None:
    """Write an experiment as JSON, atomically. Beside it, write the config file that the user's own parts are from, as `model.py`.

    This computer will open a run with such parts again without `--trust`.

    Raises:
        UserError: a field of a user's own part has a value that JSON cannot hold.
    """
    write_json(to_json(experiment), path)  # first: this file makes the folder a run
    for kind in map(type, vars(experiment).values()):
        if model_code.is_own(kind):
            files.write(path.with_name(model_code.FILE), model_code.source_of(kind.__module__))
    model_code.record_trust(experiment)


def write_json(value: Any, path: pathlib.Path) -> None:
    """Write JSON, atomically.

    Raises:
        UserError: JSON cannot hold a value, such as a function. Nothing is written.
    """
    files.write(path, json.dumps(value, indent=2, ensure_ascii=False, default=_refuse) + "\n")


def _refuse(value: object) -> None:
    raise UserError(f"a field is {value!r}, which JSON cannot hold; use numbers, strings and tuples")


def read_config(path: pathlib.Path) -> Experiment:
    """Read an experiment that `save_config` wrote. Missing fields take their defaults. The code of a user's own model is executed.

    Raises:
        UserError: the file is not such a file, or names a field that does not exist; or the model's code is not trusted.
    """
    return _from_json(Experiment, read_config_json(path), path)


def read_config_json(path: pathlib.Path) -> dict[str, Any]:
    """Read the JSON that `save_config` wrote. No code is executed.

    Raises:
        UserError: the file is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not a configuration: {error}") from None


def with_absolute_paths(experiment: Experiment) -> Experiment:
    """Return the experiment with absolute paths for local files that exist, so that a run can resume from any folder."""
    paths = {name: value for name, _, value in leaves(experiment)}
    fields = ("data.train", "data.validation", "data.test", "tokenizer.model")
    run = experiment.init.from_
    begin = str(pathlib.Path(run).expanduser().absolute()) if run and not files.in_bucket(run) else run
    return replace(experiment, **{name: tuple(map(_absolute, paths[name])) for name in fields}, **{"init.from": begin})


def _absolute(source: str) -> str:
    """Return a source with absolute paths. It may be two files and a weight, `a.en,a.de@3`, or a split of a folder, `books:train`."""
    text, at, weight = source.rpartition("@") if "@" in source and not pathlib.Path(source).exists() else (source, "", "")
    if found := folder_and_split(text):
        folder, split = found
        return str(pathlib.Path(folder).expanduser().absolute()) + f":{split}" * bool(split) + at + weight
    files = [pathlib.Path(part).expanduser() for part in text.split(",")]
    if not all(file.is_file() for file in files):
        return source
    return ",".join(str(file.absolute()) for file in files) + at + weight


def to_json(experiment: Experiment) -> dict[str, Any]:
    """Return an experiment as dictionaries, tuples and plain values. A part's class is its field "type", unless it is the default class."""
    fields = dataclasses.asdict(experiment, dict_factory=lambda pairs: {spelt(name): value for name, value in pairs})
    for part, section in vars(experiment).items():
        if part in ("model", "task") or type(section) is not type(getattr(Experiment(), part)):
            fields[part] = {"type": model_code.type_name(type(section)), **fields[part]}
    return fields


def _from_json(kind: Any, values: dict[str, Any], where: pathlib.Path, prefix: str = "") -> Any:
    """Return a dataclass made from a JSON object."""
    hints = typing.get_type_hints(kind)
    changes: dict[str, Any] = {}
    for name, value in values.items():
        attribute = attribute_of(name)
        if attribute not in hints:
            near = did_you_mean(f"{prefix}{name}", [f"{prefix}{spelt(field)}" for field in hints])
            raise UserError(f"{where}: there is no field {prefix}{name}{near}")
        hint = hints[attribute]
        if kind is Experiment and "type" in value:
            hint = model_code.type_of(value.pop("type"), where, name)
        changes[attribute] = _from_json(hint, value, where, f"{prefix}{name}.") if dataclasses.is_dataclass(hint) else tupled(value)
    return kind(**changes)


def tupled(value: Any) -> Any:
    """Return a JSON value with tuples instead of lists."""
    return tuple(map(tupled, value)) if isinstance(value, list) else value
