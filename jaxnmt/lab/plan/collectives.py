"""What devices send to each other in one call of a compiled program, and how long that takes at least."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence

import numpy as np

from jaxnmt.lab.plan.hlo import Instruction, Program, sizes
from jaxnmt.lab.plan.topology import Target

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

# Bytes that a device sends for each byte of a collective's largest array, in a group of n (a ring's, and no algorithm sends less:
# Patarasu and Yuan 2009).
_SENT = {
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "all-gather": lambda n: (n - 1) / n,
    "reduce-scatter": lambda n: (n - 1) / n,
    "all-to-all": lambda n: (n - 1) / n,
    "collective-permute": lambda n: 1.0,
}


@dataclasses.dataclass(frozen=True)
class Collective:
    """One kind of collective over one kind of group, all its runs in a call together.

    Attributes:
        group: devices of the first group, as positions in the mesh.
        bytes: of the largest array of each, summed: what is reduced, or gathered, or moved.
        overlapped: whether the program computes while it waits.
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
    """Every collective of a program, alike ones added up; those of a group of one send nothing and are left out.

    Args:
        devices: how many run the program.
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
    """-> what a line is (None: no collective, or one that another line has told of), whether it is computed meanwhile, and whether its
    result is the whole array.

    The TPU compiler tells of a collective behind a product three times, where it starts, in the product, and where it is done; and of a
    reduce-scatter as an all-reduce inside a fusion that keeps a part.
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
    """Bytes of the whole array of a collective, of which the result is one of `members` parts; of several arrays the sum."""
    parts = sizes(instruction.type)
    if instruction.opcode in ("all-gather-start", "collective-permute-start"):  # (operands, results, places to wait at)
        parts = [part for part in parts if part > 8]
        parts = parts[len(parts) // 2 :]
    return sum(parts) * members


def groups(rest: str, devices: int) -> list[tuple[int, ...]]:
    """The groups of devices of a collective, from any of XLA's spellings of them; for a permute its pairs.

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
    """The numbers that `[2,4]T(1,0)` spells: 0 to 7 as 2 x 4, its axes turned."""
    sizes, _, turned = text.partition("T")
    grid = np.arange(math.prod(shape := [int(n) for n in re.findall(r"\d+", sizes)])).reshape(shape)
    return grid.transpose([int(n) for n in re.findall(r"\d+", turned)]) if turned else grid


def seconds(collective: Collective, target: Target, order: Sequence[int]) -> float:
    """Least time of a collective's traffic: what a device sends over the links that its group can use at once; latency is not counted.

    In a TPU slice a group uses the links along every axis that it spans, both ways where the axis closes to a ring.

    Args:
        order: for each position in the mesh the number of its device in `target.devices`.
    """
    if not target.chip.link:
        return 0.0
    links = 1.0
    if target.places:
        places = np.array([target.places[order[i]] for i in collective.group])
        spanned = [ring for axis, ring in enumerate(target.rings) if np.ptp(places[:, axis])]
        links = sum(2 if closed else 1 for _, closed in spanned) if collective.kind != "collective-permute" else 1.0
    return collective.sent / (target.chip.link * max(links, 1))
