"""What a scene shows: its things and their places; and which split may show which combinations.

Lengths and places are fractions of the picture's width, so that a scene can be drawn at any size.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
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
        figure: the thing that the caption places.
        relation: one of RELATIONS, "" if there is one thing.
        ground: the thing that this place is relative to.
    """

    figure: Thing
    relation: str = ""
    ground: Thing | None = None

    @property
    def things(self) -> tuple[Thing, ...]:
        """All things."""
        return (self.figure, self.ground) if self.ground else (self.figure,)


Kind = tuple[str, str, str]
"""Size, colour and shape."""
NOVEL: tuple[Kind, ...] = tuple((SIZES[i % len(SIZES)], COLOURS[i], SHAPES[i]) for i in range(len(COLOURS)))
"""Kinds that only the split `novel` shows: small red circle, yellow square, big green triangle, small blue star, and so on."""
FAMILIAR = tuple(kind for kind in product(SIZES, COLOURS, SHAPES) if kind not in NOVEL)


def split_of(figure: Kind, ground: Kind) -> str:
    """Return which split a pair of things belongs to by colours and shapes: one in ten to the test, and one in ten to validation."""
    share = zlib.crc32(" ".join((*figure[1:], *ground[1:])).encode()) % 10
    return {0: "test", 1: "validation"}.get(share, "train")


def scene(split: str, index: int, seed: int = 0) -> Scene:
    """Return scene `index` (any number from 0) of a split: "train", "validation", "test" or "novel".

    In training and `novel`, one in five has one thing. Those of validation and test have two.
    """
    uniform = random.Random(f"scenes {seed} {split} {index}").random  # its sequence is the same in every Python version

    def one(items):
        return items[int(uniform() * len(items))]

    def thing(kind: Kind, start: float, extent: float) -> Thing:
        size, colour, shape = kind
        return Thing(size, colour, shape, _places(uniform, one((1, 2, 3)), RADIUS[size], start, extent, upright))

    is_novel = split == "novel"
    relation = one(("", *RELATIONS) if is_novel or split == "train" else RELATIONS)
    kinds = [one(NOVEL if is_novel else FAMILIAR), one(FAMILIAR)]
    if not relation:
        upright = uniform() < 0.5
        return Scene(thing(kinds[0], 0.0, 1.0))
    while True:
        figure, ground = sorted(kinds, key=lambda kind: COLOURS.index(kind[1]))
        if figure[1] != ground[1] and (is_novel or split_of(figure, ground) == split):
            break
        kinds = [kinds[0] if is_novel else one(FAMILIAR), one(FAMILIAR)]
    upright = relation in ("left of", "right of")
    first, second = (0.0, 0.5) if relation in ("above", "left of") else (0.5, 0.0)
    while True:
        things = thing(figure, first, 0.5), thing(ground, second, 0.5)
        (start, end), (other_start, other_end) = (_extent(each, axis=0 if upright else 1) for each in things)
        if start < other_end and other_start < end:  # else one would be both above the other and left of it
            return Scene(things[0], relation, things[1])


def _extent(thing: Thing, axis: int) -> tuple[float, float]:
    """Return where a thing's shapes begin and end, down (0) or to the right (1)."""
    centres = [place[axis] for place in thing.places]
    return min(centres) - RADIUS[thing.size], max(centres) + RADIUS[thing.size]


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
