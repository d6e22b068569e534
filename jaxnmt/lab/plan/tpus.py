"""Slices of TPUs, which need not exist: their generations, topologies and rates."""

from __future__ import annotations

import importlib.util
import math
import os
import pathlib
from typing import NamedTuple

from jaxnmt.errors import UserError
from jaxnmt.lab.plan.chips import GIB, Chip, Target

CHIPS_PER_HOST = 4  # of a TPU slice


class Tpu(NamedTuple):
    """A TPU generation, with Google's names (https://cloud.google.com/tpu/docs/runtimes).

    Attributes:
        label: of a node in Kubernetes.
        type, units: Cloud TPU's accelerator type, and its units per chip.
        runtime: the machine image.
        topologies: of its slices.
        torus: an axis whose length is a multiple of this is a ring.
    """

    label: str
    type: str
    units: int
    runtime: str
    topologies: tuple[str, ...]
    torus: int
    chip: Chip


_SQUARES = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8")
# Rates: cloud.google.com/tpu/docs/v5e, /v5p, /v6e ("system architecture": peak, HBM bandwidth, ICI bandwidth of a chip, its ports).
# A v5e's 400 GB/s, in both directions over 4 ports, are 50 GB/s per link and direction; a v5p's 4,800 Gbit/s one way over 6 ports 100.
# Memory: the limit in the compiler's out-of-memory messages. Clock: peak / (2 x MACs of all matrix units).
_V5E = Chip("TPU v5e", int(15.75 * GIB), 197e12, 819e9, 50e9, 197e12 / (2 * 4 * 128**2))
_V5P = Chip("TPU v5p", int(95.74 * GIB), 459e12, 2765e9, 100e9, 459e12 / (2 * 2 * 4 * 128**2))
_V6E = Chip("TPU v6e", int(31.25 * GIB), 918e12, 1638e9, 100e9, 918e12 / (2 * 4 * 256**2))
TPUS = {
    "v5e": Tpu("tpu-v5-lite-podslice", "v5litepod", 1, "v2-alpha-tpuv5-lite", _SQUARES, 16, _V5E),
    "v5p": Tpu("tpu-v5p-slice", "v5p", 2, "v2-alpha-tpuv5", _CUBES, 4, _V5P),
    "v6e": Tpu("tpu-v6e-slice", "v6e", 1, "v2-alpha-tpuv6e", _SQUARES, 16, _V6E),
}


class Slice(NamedTuple):
    """Connected chips: `v5p:4x4x8`, its generation, and (4, 4, 8)."""

    name: str
    tpu: Tpu
    lengths: tuple[int, ...]

    @property
    def chips(self) -> int:
        return math.prod(self.lengths)


def slice_of(word: str, others: str = "") -> Slice:
    """Parse `v5p:4x4x8`; `others`: further values of the flag --on, for the message.

    Raises:
        UserError: the slice is unknown; the message lists the known ones.
    """
    generation, _, topology = word.partition(":")
    if generation not in TPUS or topology not in TPUS[generation].topologies:
        known = "; ".join(f"{name}:{', '.join(tpu.topologies)}" for name, tpu in TPUS.items())
        raise UserError(f"--on {word} is not a known topology; choose one of {known}{others}")
    return Slice(word, TPUS[generation], tuple(map(int, topology.split("x"))))


def target(wanted: Slice) -> Target:
    """Return a slice, which need not exist.

    Raises:
        UserError: the TPU compiler is missing.
    """
    import jax
    from jax.experimental import topologies

    name, tpu, lengths = wanted
    found = importlib.util.find_spec("libtpu")
    if found is None or found.origin is None:
        raise UserError(f"--on {name} needs the TPU compiler (500 MB, no TPU): pip install 'jax[tpu]'")
    os.environ.setdefault("TPU_LIBRARY_PATH", str(pathlib.Path(found.origin).parent / "libtpu.so"))
    os.environ.update(TPU_SKIP_MDS_QUERY="1", TPU_WORKER_HOSTNAMES="localhost")  # otherwise it looks for a TPU host on the network
    jax.config.update("jax_platforms", "cpu")
    alone = {"chips_per_host_bounds": [1, 1, 1]} if wanted.chips == 1 else {}  # instead of a host's 2 x 2
    devices = topologies.get_topology_desc(platform="tpu", topology_name=name, **alone).devices
    rings = tuple((length, length % tpu.torus == 0) for length in lengths)
    places = tuple(tuple(device.coords[: len(lengths)]) for device in devices)
    return Target(name, tpu.chip, devices, places, rings)
