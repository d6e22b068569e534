"""Known TPU slices, by generation and topology. Does not import JAX, so that a typo is reported at once."""

from __future__ import annotations

import math
from typing import NamedTuple

from jaxnmt.errors import UserError

SLICES = {
    "v5e": ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    "v5p": ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8"),
    "v6e": ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
}


class Slice(NamedTuple):
    """Connected chips: `v5p`, `(4, 4, 8)`."""

    generation: str
    lengths: tuple[int, ...]

    @property
    def topology(self) -> str:
        """`4x4x8`."""
        return "x".join(map(str, self.lengths))

    @property
    def chips(self) -> int:
        return math.prod(self.lengths)


def slice_of(word: str, others: str = "") -> Slice:
    """Parse `v5p:4x4x8`; `others`: further values of the flag --on, for the message.

    Raises:
        UserError: the slice is unknown; the message lists the known ones.
    """
    generation, _, topology = word.partition(":")
    if topology not in SLICES.get(generation, ()):
        known = "; ".join(f"{family}:{', '.join(sizes)}" for family, sizes in SLICES.items())
        raise UserError(f"--on {word} is not a known topology; choose one of {known}{others}")
    return Slice(generation, tuple(map(int, topology.split("x"))))
