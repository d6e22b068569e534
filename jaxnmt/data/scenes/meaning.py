"""What a scene shows: its things and their places; and which split may show which combinations.

Lengths and places are fractions of the picture's width, so that a scene can be drawn at any size.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from itertools import product
from typing import NamedTuple

SIZES = ("small", "", "big")  # captions do not mention the middle size
COLOURS = ("red", "yellow", "green", "blue", "purple", "black")
SHAPES = ("circle", "square", "triangle", "star", "diamond", "heart")
RELATIONS = ("above", "below", "left of", "right of")

RADIUS = {"small": 0.075, "": 0.105, "big": 0.145}
"""Half the width of a shape."""
GAP = 0.021
"""Between shapes, at least; half of it to the edge. One pixel of 48."""


class Thing(NamedTuple):
    """One to three equal shapes; `places` are their centres, each (down, right) from the top left corner."""

    size: str
    colour: str
    shape: str
    places: tuple[tuple[float, float], ...]


class Scene(NamedTuple):
    """A picture's content.

    Attributes:
        figure: the thing whose place is told.
        relation: one of RELATIONS, "" if there is one thing.
        ground: the thing relative to which it is told.
    """

    figure: Thing
    relation: str = ""
    ground: Thing | None = None

    @property
    def things(self) -> tuple[Thing, ...]:
        """All things."""
        return (self.figure, self.ground) if self.ground else (self.figure,)


def split_of(size: str, colour: str, shape: str) -> str:
    """Return which split a combination belongs to: six are the test's, six are validation's, and 96 are training's.

    The test's are those of equal places in the lists: small red circle, yellow square, big green triangle, small blue star, and so on.
    """
    place = COLOURS.index(colour)
    if SIZES.index(size) != place % len(SIZES):
        return "train"
    return {0: "test", 3: "validation"}.get((SHAPES.index(shape) - place) % len(SHAPES), "train")


@cache
def _kinds(split: str) -> tuple[tuple[str, str, str], ...]:
    """Return the split's combinations of size, colour and shape."""
    return tuple(kind for kind in product(SIZES, COLOURS, SHAPES) if split_of(*kind) == split)


def scene(split: str, index: int, seed: int = 0) -> Scene:
    """Return scene `index` (any number from 0) of a split. One in five has one thing; of two, one is of the split's combinations."""
    uniform = random.Random(f"scenes {seed} {split} {index}").random  # its sequence is the same in every Python version

    def one(items):
        return items[int(uniform() * len(items))]

    def thing(kind: tuple[str, str, str], start: float, extent: float) -> Thing:
        size, colour, shape = kind
        return Thing(size, colour, shape, _places(uniform, one((1, 2, 3)), RADIUS[size], start, extent, upright))

    relation = one(("", *RELATIONS))
    kinds = [one(_kinds(split)), one(_kinds("train"))]
    if not relation:
        upright = uniform() < 0.5
        return Scene(thing(kinds[0], 0.0, 1.0))
    while kinds[0][1] == kinds[1][1]:
        kinds[1] = one(_kinds("train"))
    figure, ground = sorted(kinds, key=lambda kind: COLOURS.index(kind[1]))
    upright = relation in ("left of", "right of")
    first, second = (0.0, 0.5) if relation in ("above", "left of") else (0.5, 0.0)
    return Scene(thing(figure, first, 0.5), relation, thing(ground, second, 0.5))


def _places(
    uniform: Callable[[], float], count: int, radius: float, start: float, extent: float, upright: bool
) -> tuple[tuple[float, float], ...]:
    """Draw the centres of shapes that do not touch, in an uneven line along a band of the picture.

    Args:
        uniform: draws a number from [0, 1).
        count: number of shapes.
        radius: half their width.
        start, extent: where the band begins, and its width.
        upright: whether the band runs from top to bottom, or from left to right.
    """
    step = 2 * radius + GAP
    shifts = sorted(uniform() * (1 - count * step) for _ in range(count))
    centres = [(shift + step * (i + 0.5), start + step / 2 + uniform() * (extent - step)) for i, shift in enumerate(shifts)]
    return tuple(centre if upright else centre[::-1] for centre in centres)
