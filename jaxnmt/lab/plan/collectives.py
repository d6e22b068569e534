"""The collectives of one call of a compiled program, and the least time that they take."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence

import numpy as np

from jaxnmt.lab.plan.hlo import Instruction, Program, sizes
from jaxnmt.lab.plan.topology import Target

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

# Bytes that a device sends per byte of a collective's largest array, in a group of n: those of a ring, the least possible
# (Patarasu and Yuan 2009).
_SENT = {
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "all-gather": lambda n: (n - 1) / n,
    "reduce-scatter": lambda n: (n - 1) / n,
    "all-to-all": lambda n: (n - 1) / n,
    "collective-permute": lambda n: 1.0,
}


@dataclasses.dataclass(frozen=True)
class Collective:
    """All collectives of one kind, over the same group, in one call.

    Attributes:
        group: devices of the first group, as positions in the mesh.
        bytes: sum of the largest array of each: what is reduced, gathered or moved.
        overlapped: whether the program computes meanwhile.
    """

    kind: str
    group: tuple[int, ...]
    count: int
    bytes: int
    overlapped: bool

    @property
    def sent(self) -> float:
        """Bytes that a device sends."""
        return self.bytes * _SENT[self.kind](max(len(self.group), 1))


def collectives(program: Program, devices: int, unknown_trips: int = 1) -> list[Collective]:
    """Return the collectives of a program, equal ones added up; those of a group of one send nothing and are left out.

    Args:
        devices: number of devices that run the program.
        unknown_trips: as in `Program.runs`.
    """
    found: dict[tuple, list[int]] = {}
    for instruction, times, caller in program.runs(unknown_trips):
        kind, overlapped, whole = _kind(instruction, caller)
        if kind is None or len(group := groups(instruction.rest, devices)[0]) < 2:
            continue
        totals = found.setdefault((kind, group, overlapped), [0, 0])
        totals[0] += times
        totals[1] += times * _bytes(kind, instruction, 1 if whole else len(group))
    return [Collective(kind, group, count, size, overlapped) for (kind, group, overlapped), (count, size) in sorted(found.items())]


def _kind(instruction: Instruction, caller: Instruction | None) -> tuple[str | None, bool, bool]:
    """Return the kind of a collective, whether the program computes meanwhile, and whether its result is the whole array.

    The kind is None if the instruction is no collective, or one that another line already counts: the TPU compiler writes a collective
    that overlaps a product three times (at its start, in the product, at its end), and a reduce-scatter as an all-reduce inside a fusion
    that keeps a part.
    """
    kind = instruction.opcode.removesuffix("-start")
    if kind not in KINDS:
        return None, False, False
    name, calls = (caller.name, caller.rest) if caller and caller.opcode == "fusion" else ("", "")
    if name.startswith("async-collective-done") or "calls=%async_collective_fusion" in calls:
        return None, False, False
    overlapped = instruction.opcode != kind or name.startswith("async-collective-start")
    scattered = kind == "all-reduce" and "calls=%all-reduce-scatter" in calls
    return "reduce-scatter" if scattered else kind, overlapped, scattered or kind != "reduce-scatter"


def _bytes(kind: str, instruction: Instruction, members: int) -> int:
    """Return the bytes of a collective's whole arrays; the result is one of `members` parts of them."""
    parts = sizes(instruction.type)
    if instruction.opcode in ("all-gather-start", "collective-permute-start"):  # (operands, results, semaphores)
        parts = [part for part in parts if part > 8]
        parts = parts[len(parts) // 2 :]
    return sum(parts) * members


def groups(rest: str, devices: int) -> list[tuple[int, ...]]:
    """Return the groups of devices of a collective, from any of XLA's notations; for a permute its pairs.

    `{{0,1},{2,3}}`, `[2,2]<=[4]`, `[2,2]<=[2,2]T(1,0)`, and `mesh['x'=2,'y'=2] {'x'}`.
    """
    if (pairs := re.search(r"source_target_pairs=\{(.*?)\}\}", rest)) or (pairs := re.search(r"replica_groups=\{(\{.*?\})\}", rest)):
        listed = [tuple(int(n) for n in re.findall(r"\d+", group)) for group in re.findall(r"\{?([\d,]+)\}?", pairs[1])]
        return [group for group in listed if group]
    if mesh := re.search(r"replica_groups=\w*mesh\[(.*?)\](?:, device_ids=\((.*?)\))? \{(.*?)\}", rest):
        axes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", mesh[1])}
        kept = re.findall(r"'(\w+)'", mesh[3])
        grid = _iota(mesh[2] or f"[{devices}]").reshape(tuple(axes.values()))
        order = [i for i, name in enumerate(axes) if name not in kept] + [i for i, name in enumerate(axes) if name in kept]
        members = math.prod(axes[name] for name in kept)
        return [tuple(row) for row in grid.transpose(order).reshape(-1, members).tolist()]
    if iota := re.search(r"replica_groups=\[(\d+),(\d+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)", rest):
        return [tuple(row) for row in _iota(iota[3]).reshape(int(iota[1]), int(iota[2])).tolist()]
    return [tuple(range(devices))]


def _iota(text: str) -> np.ndarray:
    """Return the array that `[2,4]T(1,0)` denotes: 0 to 7 as 2 x 4, transposed."""
    sizes, _, axes = text.partition("T")
    grid = np.arange(math.prod(shape := [int(n) for n in re.findall(r"\d+", sizes)])).reshape(shape)
    return grid.transpose([int(n) for n in re.findall(r"\d+", axes)]) if axes else grid


def seconds(collective: Collective, target: Target, order: Sequence[int]) -> float:
    """Return the least time of a collective: bytes sent over the links that its group can use at once, without latency.

    In a TPU slice a group uses the links along every axis that it spans, in both directions if the axis is a ring.

    Args:
        order: for each position in the mesh the index of its device in `target.devices`.
    """
    if not target.chip.link:
        return 0.0
    links = 1.0
    if target.places:
        places = np.array([target.places[order[i]] for i in collective.group])
        spanned = [ring for axis, ring in enumerate(target.rings) if np.ptp(places[:, axis])]
        links = sum(2 if closed else 1 for _, closed in spanned) if collective.kind != "collective-permute" else 1.0
    return collective.sent / (target.chip.link * max(links, 1))
