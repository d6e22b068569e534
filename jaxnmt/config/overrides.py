"""Typed settings from the command line: any field of a configuration by its dotted name, `--model.emb-dim 128`.

This module decides which words of a command are names and which are settings, which field a flag names, and what to say if it names none.
What a value means, and the help text, is tyro's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import re
import types
import typing
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from jaxnmt import config
from jaxnmt.errors import UserError

Options = TypeVar("Options")
HELP = ("-h", "--help")


def divide(words: Sequence[str], options: Any, most: float) -> tuple[list[str], list[str]]:
    """Divide a command's words into names and settings, in whatever order they stand: `["--beam-size", "4", "runs/x"]`.

    A flag takes as many words as a value of its type has. A word that it does not take is a name, unless there are as many names as the
    command takes: then it stays with the flag, whose message is the better one.

    Args:
        options: what the flags are of. An unknown flag takes one word.
        most: how many names the command takes.

    Returns:
        The names, and the flags with their values, each in its order.
    """
    known = flags(options)
    names: list[str] = []
    settings: list[str] = []
    takes, given = _hint(HELP[0], known), 0  # type of the last flag's values, and how many it has
    for word in words:
        if _is_flag(word):
            takes, given = _hint(word, known), int("=" in word)
            settings.append(word)
        elif not settings or (len(names) < most and not _takes(takes, given, word)):
            names.append(word)
        else:
            settings.append(word)
            given += 1
    return names, settings


def _is_flag(word: str) -> bool:
    """Return whether a word is a flag. A sentence may begin with a dash."""
    return bool(re.match(r"-h$|--\w", word))


def _hint(flag: str, known: dict[str, tuple[str, Any]]) -> Any:
    if flag in HELP:
        return bool
    return known.get(_key(flag.partition("=")[0]), ("", str))[1]


def takes_all(flag: str, options: Any) -> bool:
    """Return whether a flag takes all words up to the next flag."""
    return _is_flag(flag) and typing.get_origin(_hint(flag, flags(options))) is tuple


def _takes(hint: Any, given: int, word: str) -> bool:
    """Return whether a flag that has some words takes one more."""
    if hint is bool:
        return not given and word.lower() in ("true", "false")
    return typing.get_origin(hint) is tuple or not given


def apply(words: Sequence[str], options: Options, help_with: str) -> Options:
    """`options` with the fields changed that `words` name: `["--model.emb-dim", "128", "--data.train", "a.en", "a.de"]`.

    Args:
        words: flags, each followed by its values; `--flag=value` too; `-` and `_` are alike.
        options: a (nested) dataclass; a nested one annotated with `tyro.conf.arg(name="")` lends its fields without a prefix.
        help_with: the command that lists the flags, for messages.

    Raises:
        UserError: a flag that does not exist (the nearest names are given), twice the same, or a value of the wrong type.
    """
    known = flags(options)
    changes: dict[str, Any] = {}
    for flag, values in _groups(words):
        name = _key(flag)
        if name not in known:
            raise UserError(f"there is no setting {flag}{_suggestion(name, known)} ({help_with} lists them all)")
        path, hint = known[name]
        if path in changes:
            raise UserError(f"{flag} is given twice; give all its values after one {flag}")
        changes[path] = convert(flag, hint, values)
    return config.replace(options, **changes)


def print_help(options: Any, command: str, description: str) -> None:
    """Print every flag of `options` with its default and meaning."""
    import tyro

    with warnings.catch_warnings(), contextlib.suppress(SystemExit):
        warnings.filterwarnings("ignore", ".*does not match any type in Union")  # a model of the user's own is in no union of ours
        tyro.cli(type(options), default=options, args=["--help"], prog=command, description=description, config=_tyro_style())


def flags(options: Any, path: str = "", prefix: str = "") -> dict[str, tuple[str, Any]]:
    """{name as in a flag, with underscores: (dotted path inside `options`, type)} of every leaf."""
    found: dict[str, tuple[str, Any]] = {}
    hints = typing.get_type_hints(type(options), include_extras=True)
    for field in dataclasses.fields(options):
        value, hint = getattr(options, field.name), hints[field.name]
        flat = any(getattr(extra, "name", None) == "" for extra in getattr(hint, "__metadata__", ()))
        if dataclasses.is_dataclass(value):
            found |= flags(value, f"{path}{field.name}.", prefix if flat else f"{prefix}{field.name}.")
        else:
            found[f"{prefix}{field.name}"] = f"{path}{field.name}", hint
    return found


def nearest(name: str, names: Iterable[str], most: int = 3) -> list[str]:
    """The names that look most like `name`, best first; none when nothing does. A dotted name is also known by its last part."""

    def likeness(candidate: str) -> float:
        whole = difflib.SequenceMatcher(None, name, candidate).ratio()
        return max(whole, 0.95 * difflib.SequenceMatcher(None, name, candidate.rpartition(".")[2]).ratio())

    ranked = sorted(((likeness(candidate), candidate) for candidate in names), key=lambda pair: -pair[0])
    return [candidate for score, candidate in ranked[:most] if score > 0.6 and score > ranked[0][0] - 0.1]


def convert(flag: str, hint: Any, values: list[str]) -> Any:
    """The value that a flag's words mean.

    Raises:
        UserError: they do not fit the type; says the flag, the value and what is expected.
    """
    import tyro

    if hint is bool and not values:
        return True
    expected = f"{flag} expects {type_in_words(hint)}"
    if typing.get_origin(hint) is not tuple and len(values) != 1:
        raise UserError(f"{expected}, not {' '.join(values) if values else 'nothing'}")
    typed = [value.capitalize() for value in values] if hint is bool else values  # true, false
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # tyro prints a box
            return tyro.cli(hint, args=["--", *typed], console_outputs=False, config=_tyro_style())
    except SystemExit:
        raise UserError(f"{expected}, not {' '.join(values)}") from None


def type_in_words(hint: Any) -> str:
    """What a value of a type is, in words."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return type_in_words(parts[0])
    if origin is typing.Literal:
        return "one of " + ", ".join(str(part) for part in parts if part != "")
    if origin is tuple:
        return f"words ({type_in_words(parts[0])} each)"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(type_in_words, parts))
    names = {int: "a whole number", float: "a number", bool: "True or False", str: "one word", type(None): "None"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))


def _groups(words: Sequence[str]) -> list[tuple[str, list[str]]]:
    groups: list[tuple[str, list[str]]] = []
    for word in words:
        if word.startswith("--") and len(word) > 2:
            flag, equals, value = word.partition("=")
            groups.append((flag, [value] if equals else []))
        elif not groups:
            raise UserError(f"{word} stands where a setting such as --training.steps 100 is expected")
        else:
            groups[-1][1].append(word)
    return groups


def _key(flag: str) -> str:
    return flag.lstrip("-").replace("-", "_")


def _suggestion(name: str, known: Iterable[str]) -> str:
    near = [f"--{candidate.replace('_', '-')}" for candidate in nearest(name.lower(), known)]
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _tyro_style() -> tuple[Any, ...]:
    import tyro

    return tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands
