"""The fields of a configuration: their constraints, names, types and values.

A constraint is declared in a field's type: `emb_dim: Positive[int] = 256`.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import keyword
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, TypeVar

import tyro

Number = TypeVar("Number", int, float)


@dataclasses.dataclass(frozen=True)
class Constraint:
    """A condition on a number, or on a tuple of numbers.

    Attributes:
        words: the condition as it ends the sentence "emb_dim is 0; it must be ...".
        holds: tells whether a value (a finite number, or the tuple) meets the condition.
    """

    words: str
    holds: Callable[[Any], bool]

    def __call__(self, default: str) -> str:
        """Return what `--help` shows after the field's meaning."""
        return f"(default: {default}; {self.words})"


def constraint(words: str, holds: Callable[[Any], bool]) -> Any:
    """Return a marker for `typing.Annotated`: checks and `--help` read it. See `Constraint` for the arguments."""
    return tyro.conf.arg(help_behavior_hint=Constraint(words, holds))


def between(least: int, most: int) -> Any:
    """Return the constraint of a number from `least` to `most`."""
    return constraint(f"from {least} to {most}", lambda value: least <= value <= most)


@dataclasses.dataclass(frozen=True)
class OnlyFor:
    """A marker for `typing.Annotated`: the field has no effect unless the field `name` beside it is one of these."""

    names: tuple[str, ...]


Positive = Annotated[Number, constraint("above 0", lambda value: value > 0)]
NonNegative = Annotated[Number, constraint("0 or more", lambda value: value >= 0)]
Rate = Annotated[Number, constraint("0 or more and below 1", lambda value: 0 <= value < 1)]
Share = Annotated[Number, between(0, 1)]
PositiveIntegers = Annotated[tuple[int, ...], constraint("one or more numbers above 0", lambda values: min(values, default=0) > 0)]
AxisSize = Annotated[Number, constraint("above 0, or -1", lambda value: value > 0 or value == -1)]


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield (dotted name, declared type with its markers, value) of every field of a dataclass and of the dataclasses in it."""
    hints = _hints(config.__class__)
    for field in dataclasses.fields(config):
        name, value = spelt(field.name), getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", hints[field.name], value


def spelt(attribute: str) -> str:
    """Return the name of a field by its attribute: `from` of `from_`, because Python reserves the word."""
    return attribute[:-1] if attribute.endswith("_") and keyword.iskeyword(attribute[:-1]) else attribute


def attribute_of(name: str) -> str:
    """Undo `spelt`."""
    return f"{name}_" if keyword.iskeyword(name) else name


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    """Return the types of a dataclass's fields. They are strings until they are evaluated, which takes 20 ms for an experiment."""
    return typing.get_type_hints(kind, include_extras=True)


def markers(hint: Any) -> tuple[Any, ...]:
    """Return the markers of a field's type, the arguments of `typing.Annotated` after the first."""
    return getattr(hint, "__metadata__", ())


def constraints(hint: Any) -> list[Constraint]:
    """Return the constraints of a field's type."""
    found = [getattr(marker, "help_behavior_hint", None) for marker in markers(hint)]
    return [each for each in found if isinstance(each, Constraint)]


def unannotated(hint: Any) -> Any:
    """Return a type without the markers of `typing.Annotated`."""
    return typing.get_args(hint)[0] if markers(hint) else hint


def type_constraint(hint: Any) -> Constraint:
    """Return the condition that a value is of a field's declared type. An int is a float; a bool is not a number."""
    hint = unannotated(hint)
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return Constraint("one of " + ", ".join(str(part) for part in parts if part != ""), lambda value: value in parts)
    if origin is tuple:
        each = type_constraint(parts[0])
        return Constraint(f"words ({each.words} each)", lambda value: isinstance(value, tuple) and all(map(each.holds, value)))
    if origin in (typing.Union, types.UnionType):
        options = [type_constraint(part) for part in parts]
        return Constraint(" or ".join(option.words for option in options), lambda value: any(option.holds(value) for option in options))
    if hint is int:
        return Constraint("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool))
    if hint is float:
        return Constraint("a number", lambda value: isinstance(value, int | float) and not isinstance(value, bool))
    words = {bool: "True or False", str: "one word", type(None): "None"}
    return Constraint(words.get(hint, getattr(hint, "__name__", str(hint))), lambda value: isinstance(value, origin or hint))


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return "; did you mean A or B?" with up to three names that look like `name`, the nearest first; "" if no name is close.

    A dotted name also matches by its last part.
    """

    def likeness(candidate: str) -> float:
        whole = difflib.SequenceMatcher(None, name, candidate).ratio()
        return max(whole, 0.95 * difflib.SequenceMatcher(None, name, candidate.rpartition(".")[2]).ratio())

    ranked = sorted(((likeness(candidate), candidate) for candidate in names), key=lambda pair: -pair[0])
    near = [candidate for score, candidate in ranked[:3] if score > 0.6 and score > ranked[0][0] - 0.1]
    return f"; did you mean {' or '.join(near)}?" if near else ""
