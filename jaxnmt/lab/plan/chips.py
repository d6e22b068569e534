"""What is known of the devices that programs are compiled for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """The rates of one device.

    Attributes:
        memory: bytes that a program may use; None: unknown, or shared (simulated devices).
        flops: dense bfloat16 matrix products, FLOP/s; None: unknown, so that no time is estimated.
        bandwidth: of its memory, bytes/s.
        link: of one link to a neighbour, or of a GPU to the others of its host, bytes/s in one direction.
        clock: cycles/s in the compiler's estimates; None: the compiler does not estimate times.
        network: a device's share of the network between hosts, bytes/s in one direction; None: not modelled.
    """

    name: str
    memory: int | None = None
    flops: float | None = None
    bandwidth: float | None = None
    link: float | None = None
    clock: float | None = None
    network: float | None = None


@dataclasses.dataclass(frozen=True)
class Target:
    """Devices to compile for.

    Attributes:
        name: as the user wrote it.
        places: coordinates of each device in the slice, in the order of `devices`; empty if devices have none.
        rings: for each coordinate the number of devices along it, and whether the last is linked to the first.
        per_host: number of a host's devices, which are next to each other in `devices`; 0: hosts do not matter.
        compiler_options: for every program.
    """

    name: str
    chip: Chip
    devices: Sequence[Any]
    places: tuple[tuple[int, ...], ...] = ()
    rings: tuple[tuple[int, bool], ...] = ()
    per_host: int = 0
    compiler_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
