"""Draws a scene, and says where its things are."""

from __future__ import annotations

import math

import numpy as np

from jaxnmt.data.scenes.meaning import RADIUS, Scene, Thing

BACKGROUND = 245
PALETTE = {
    "red": (220, 40, 40),
    "yellow": (240, 200, 30),
    "green": (40, 160, 70),
    "blue": (40, 90, 220),
    "purple": (150, 60, 180),
    "black": (30, 30, 30),
}
_SAMPLES = 4  # points along each side of a pixel, whose share inside a shape is how much of the pixel it colours


def _in_star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Five points; the notches between them are half as far from the centre."""
    sector = 2 * math.pi / 5
    radius = np.hypot(x, y) / 1.05
    angle = np.abs((np.arctan2(x, -y) + sector / 2) % sector - sector / 2)  # from the nearest point: 0 to 36 degrees
    along, beside = radius * np.cos(angle), radius * np.sin(angle)
    notch_along, notch_beside = math.cos(sector / 2) / 2, math.sin(sector / 2) / 2
    return (along - 1) * notch_beside <= beside * (notch_along - 1)


# Whether points are inside a shape: x to the right and y down, from -1 to 1 within its box.
_INSIDE = {
    "circle": lambda x, y: x**2 + y**2 <= 1,
    "square": lambda x, y: np.maximum(np.abs(x), np.abs(y)) <= 0.86,
    "triangle": lambda x, y: (y <= 0.85) & (np.abs(x) <= (y + 1) * 0.54),
    "star": _in_star,
    "diamond": lambda x, y: np.abs(x) / 0.75 + np.abs(y) <= 1,
    "heart": lambda x, y: ((1.15 * x) ** 2 + (0.15 - 1.12 * y) ** 2 - 1) ** 3 <= (1.15 * x) ** 2 * (0.15 - 1.12 * y) ** 3,
}


def _box(place: tuple[float, float], radius: float, size: int) -> tuple[slice, slice]:
    """Return the rows and columns of the pixels that a shape touches."""
    down, right = (slice(max(math.floor((x - radius) * size), 0), math.ceil((x + radius) * size)) for x in place)
    return down, right


def draw(scene: Scene, size: int = 48) -> np.ndarray:
    """Return the picture: uint8 (size, size, 3), RGB."""
    picture: np.ndarray = np.full((size, size, 3), BACKGROUND, np.float64)
    for thing in scene.things:
        radius = RADIUS[thing.size]
        for place in thing.places:
            box = _box(place, radius, size)
            y, x = (
                ((np.arange(part.start * _SAMPLES, part.stop * _SAMPLES) + 0.5) / (_SAMPLES * size) - centre) / radius
                for part, centre in zip(box, place, strict=True)
            )
            inside = _INSIDE[thing.shape](x, y[:, None])
            share = inside.reshape(len(y) // _SAMPLES, _SAMPLES, len(x) // _SAMPLES, _SAMPLES).mean((1, 3))
            picture[box] += share[..., None] * (np.array(PALETTE[thing.colour]) - picture[box])
    return np.rint(picture).astype(np.uint8)


def region(thing: Thing, size: int = 48) -> np.ndarray:
    """Return which pixels of the picture are a thing's, bool (size, size): the boxes around its shapes."""
    found: np.ndarray = np.zeros((size, size), bool)
    for place in thing.places:
        found[_box(place, RADIUS[thing.size], size)] = True
    return found
