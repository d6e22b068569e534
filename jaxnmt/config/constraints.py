"""Constraints on a field's values, declared in its type: `emb_dim: Positive[int] = 256`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
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


@dataclasses.dataclass(frozen=True)
class OnlyFor:
    """A marker for `typing.Annotated`: the field has no effect unless the field `name` beside it is one of these."""

    names: tuple[str, ...]


Positive = Annotated[Number, constraint("above 0", lambda value: value > 0)]
NonNegative = Annotated[Number, constraint("0 or more", lambda value: value >= 0)]
Rate = Annotated[Number, constraint("0 or more and below 1", lambda value: 0 <= value < 1)]
Share = Annotated[Number, constraint("from 0 to 1", lambda value: 0 <= value <= 1)]
PositiveIntegers = Annotated[tuple[int, ...], constraint("one or more numbers above 0", lambda values: min(values, default=0) > 0)]
AxisSize = Annotated[Number, constraint("above 0, or -1", lambda value: value > 0 or value == -1)]


def constraints(hint: Any) -> Iterator[Constraint]:
    """Yield the constraints of a field's type."""
    for marker in getattr(hint, "__metadata__", ()):
        if isinstance(found := getattr(marker, "help_behavior_hint", None), Constraint):
            yield found
