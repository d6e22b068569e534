"""Turn the words of a command into names and options.

This module decides which words are names, which belong to a flag, which field a flag sets, and what to say if it sets none. tyro converts
the values and prints the help.
"""

from __future__ import annotations

import contextlib
import io
import re
import typing
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import tyro

from jaxnmt import config
from jaxnmt.config.checks import value_problem
from jaxnmt.config.fields import did_you_mean, leaves, markers, type_constraint, unannotated
from jaxnmt.errors import UserError

Options = TypeVar("Options")
HELP = ("-h", "--help")
_STYLE = (tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands)


def divide(words: Sequence[str], options: Any, most: float) -> tuple[list[str], list[list[str]]]:
    """Divide a command's words into names and flags, which may stand in any order: `["--beam-size", "4", "runs/x"]`.

    A flag of a tuple takes all words up to the next flag, a flag of a bool only True or False, every other flag one word. A word that no
    flag takes is a name. Once there are `most` names, such a word stays with its flag, whose error message is clearer.

    Args:
        options: the dataclass that the flags set. An unknown flag takes one word.
        most: the number of names that the command takes.

    Returns:
        The names; and the flags, each a list of the flag and its values.
    """
    hints = {flag: hint for flag, (_, hint) in fields_by_flag(options).items()} | dict.fromkeys(HELP, bool)
    names: list[str] = []
    flags: list[list[str]] = []
    for word in words:
        if re.match(r"-h$|--\w", word):  # not every word that begins with a dash: a sentence may
            flags.append(word.split("=", 1))
        elif flags and (len(names) >= most or _takes(hints.get(_normal(flags[-1][0])), len(flags[-1]) - 1, word)):
            flags[-1].append(word)
        else:
            names.append(word)
    return names, flags


def _takes(hint: Any, given: int, word: str) -> bool:
    """Return whether a flag that was given some values takes one more."""
    if hint is bool:
        return not given and word.lower() in ("true", "false")
    return _is_tuple(hint) or not given


def takes_all(flag: str, options: Any) -> bool:
    """Return whether a flag takes all words up to the next flag."""
    return _is_tuple(fields_by_flag(options).get(_normal(flag), ("", str))[1])


def _is_tuple(hint: Any) -> bool:
    return typing.get_origin(unannotated(hint)) is tuple


def fields_by_flag(options: Any) -> dict[str, tuple[str, Any]]:
    """Return {flag: (dotted path inside `options`, type)} of every field.

    A nested dataclass annotated with `tyro.conf.arg(name="")` adds no prefix to its flags.
    """
    hints = typing.get_type_hints(type(options), include_extras=True)
    flat = (f"{name}." for name, hint in hints.items() if any(getattr(marker, "name", None) == "" for marker in markers(hint)))
    prefix = next(flat, "")
    return {_normal(f"--{path.removeprefix(prefix)}"): (path, hint) for path, hint, _ in leaves(options)}


def parse(flags: Iterable[Sequence[str]], options: Options, help_command: str) -> Options:
    """Return `options` with the fields changed that the flags set.

    Args:
        flags: each a flag and its values; `-` and `_` are alike: `[["--model.emb-dim", "128"], ["--data.train", "a.en", "a.de"]]`.
        help_command: the command that lists the flags, for messages.

    Raises:
        UserError: an unknown flag (with the nearest ones), a flag given twice, or a value that the field cannot have.
    """
    fields = fields_by_flag(options)
    changes: dict[str, Any] = {}
    for flag, *values in flags:
        if _normal(flag) not in fields:
            near = did_you_mean(_normal(flag).lower(), fields)
            raise UserError(f"unknown setting {flag}{near} ({help_command} lists all settings)")
        path, hint = fields[_normal(flag)]
        if path in changes:
            raise UserError(f"{flag} is given twice; give all its values after one {flag}")
        changes[path] = _convert(flag, hint, values)
    return config.replace(options, **changes)


def _normal(flag: str) -> str:
    return flag.replace("_", "-")


def _convert(flag: str, hint: Any, values: list[str]) -> Any:
    """Return the value that the words after a flag stand for.

    Raises:
        UserError: they are not of the type or break a constraint; names the flag, the words and what is expected.
    """
    refusal = UserError(f"{flag} expects {type_constraint(hint).words}, not {' '.join(values) or 'nothing'}")
    if hint is bool:
        values = [value.capitalize() for value in values] or ["True"]  # true, false
    if not _is_tuple(hint) and len(values) != 1:
        raise refusal
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # tyro prints a box
            value = tyro.cli(hint, args=["--", *values], console_outputs=False, config=_STYLE)
    except SystemExit:
        raise refusal from None
    if problem := value_problem(flag, hint, value):
        raise UserError(problem)
    return value


def print_help(options: Any, command: str, description: str) -> None:
    """Print every flag of `options` with its default, constraint and meaning."""
    with warnings.catch_warnings(), contextlib.suppress(SystemExit):
        warnings.filterwarnings("ignore", ".*does not match any type in Union")  # a user's own model is in no union of ours
        tyro.cli(type(options), default=options, args=["--help"], prog=command, description=description, config=_STYLE)
