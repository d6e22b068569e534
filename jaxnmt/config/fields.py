"""The fields of a configuration: their dotted names, types and values."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Iterator
from typing import Any


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield (dotted name, declared type with its markers, value) of every field of a dataclass and of the dataclasses in it."""
    hints = typing.get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", hints[field.name], value


def unannotated(hint: Any) -> Any:
    """Return a type without the markers of `typing.Annotated`."""
    return typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint


def is_of_type(value: Any, hint: Any) -> bool:
    """Return whether a value is of a field's declared type. An int is a float; a bool is no number."""
    hint = unannotated(hint)
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return value in parts
    if origin is tuple:
        return isinstance(value, tuple) and all(is_of_type(part, parts[0]) for part in value)
    if origin in (typing.Union, types.UnionType):
        return any(is_of_type(value, part) for part in parts)
    if hint in (int, float):
        return isinstance(value, int if hint is int else int | float) and not isinstance(value, bool)
    return isinstance(value, origin or hint)


def describe_type(hint: Any) -> str:
    """Return what a value of a type is, in words."""
    hint = unannotated(hint)
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return "one of " + ", ".join(str(part) for part in parts if part != "")
    if origin is tuple:
        return f"words ({describe_type(parts[0])} each)"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(describe_type, parts))
    names = {int: "a whole number", float: "a number", bool: "True or False", str: "one word", type(None): "None"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))


def nearest(name: str, names: Iterable[str], most: int = 3) -> list[str]:
    """Return the names that look most like `name`, best first; none if no name is close. A dotted name also matches by its last part."""

    def likeness(candidate: str) -> float:
        whole = difflib.SequenceMatcher(None, name, candidate).ratio()
        return max(whole, 0.95 * difflib.SequenceMatcher(None, name, candidate.rpartition(".")[2]).ratio())

    ranked = sorted(((likeness(candidate), candidate) for candidate in names), key=lambda pair: -pair[0])
    return [candidate for score, candidate in ranked[:most] if score > 0.6 and score > ranked[0][0] - 0.1]
