"""Known TPU slices, by generation and topology. Does not import JAX, so that a typo is reported at once."""

from __future__ import annotations

import math
from typing import NamedTuple

from jaxnmt.errors import UserError

CHIPS_PER_HOST = 4


class Generation(NamedTuple):
    """Google's names of a TPU generation (https://cloud.google.com/tpu/docs/runtimes).

    Attributes:
        label: of a node in Kubernetes.
        type, units: Cloud TPU's accelerator type, and its units per chip.
        runtime: the machine image.
        topologies: of its slices.
    """

    label: str
    type: str
    units: int
    runtime: str
    topologies: tuple[str, ...]


_SQUARES = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8")
GENERATIONS = {
    "v5e": Generation("tpu-v5-lite-podslice", "v5litepod", 1, "v2-alpha-tpuv5-lite", _SQUARES),
    "v5p": Generation("tpu-v5p-slice", "v5p", 2, "v2-alpha-tpuv5", _CUBES),
    "v6e": Generation("tpu-v6e-slice", "v6e", 1, "v2-alpha-tpuv6e", _SQUARES),
}


class Slice(NamedTuple):
    """Connected chips: `v5p`, `4x4x8`."""

    generation: str
    topology: str

    @property
    def lengths(self) -> tuple[int, ...]:
        return tuple(map(int, self.topology.split("x")))

    @property
    def chips(self) -> int:
        return math.prod(self.lengths)


def slice_of(word: str, others: str = "") -> Slice:
    """Parse `v5p:4x4x8`; `others`: further values of the flag --on, for the message.

    Raises:
        UserError: the slice is unknown; the message lists the known ones.
    """
    generation, _, topology = word.partition(":")
    if generation not in GENERATIONS or topology not in GENERATIONS[generation].topologies:
        known = "; ".join(f"{name}:{', '.join(family.topologies)}" for name, family in GENERATIONS.items())
        raise UserError(f"--on {word} is not a known topology; choose one of {known}{others}")
    return Slice(generation, topology)
