"""Reads a compiled program's text: its instructions, how often each runs in one call, and the collectives among them.

XLA's own cost analysis counts the body of a loop once; here it counts once per iteration.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
_CALLED = re.compile(r"\b(?:calls|to_apply|body|\w+_computations?)=\{?(%?[\w.\-]+(?:, %[\w.\-]+)*)")
_ARRAY = re.compile(r"\b(?:pred|[a-z]+(\d+)\w*)\[([\d,]*)\]")  # bits and lengths
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


class Instruction(NamedTuple):
    """One line: `name = type opcode(rest`; `rest` has operands and attributes."""

    name: str
    type: str
    opcode: str
    rest: str

    @property
    def operands(self) -> list[str]:
        """Names of the instructions whose results it reads."""
        return re.findall(r"%([\w.\-]+)", self.rest.split(")")[0])

    @property
    def called(self) -> list[str]:
        """Names of the computations that it runs: a fusion's, a loop's body, branches."""
        return re.findall(r"[\w.\-]+", " ".join(_CALLED.findall(self.rest)))

    @property
    def constant(self) -> int:
        """Value of a constant; index of a parameter."""
        return int(self.rest.split(")")[0])

    @property
    def arrays(self) -> list[tuple[int, tuple[int, ...]]]:
        """Bits of a number, and lengths, of each array of the result."""
        return [(int(bits or 8), tuple(int(n) for n in dims.split(",") if n)) for bits, dims in _ARRAY.findall(self.type)]

    @property
    def bytes(self) -> int:
        """Bytes of the result."""
        return sum(bits * math.prod(lengths) // 8 for bits, lengths in self.arrays)

    def attribute(self, name: str) -> str:
        """Return an attribute, such as `index`, or an empty string."""
        found = re.search(rf"\b{name}=%?([\w.\-]+)", self.rest)
        return found[1] if found else ""


Run = tuple[Instruction, int, Instruction | None]
"""An instruction, how often it runs in a call of the program, and the caller of its computation (a loop, a fusion)."""


class Program(NamedTuple):
    """A compiled program: the instructions of each computation, and the name of that which a call runs."""

    computations: dict[str, list[Instruction]]
    entry: str

    def runs(self, unknown_trips: int) -> list[Run]:
        """Return every instruction, including those inside fusions, with how often it runs in one call.

        Every branch of a conditional counts as taken.

        Args:
            unknown_trips: number of iterations of a loop whose bound is not in the program.
        """

        def walk(name: str, times: int, caller: Instruction | None) -> Iterator[Run]:
            for instruction in self.computations.get(name, ()):
                yield instruction, times, caller
                inside = times * (self.trips(instruction) or unknown_trips if instruction.opcode == "while" else 1)
                for called in instruction.called:
                    yield from walk(called, inside, instruction)

        return list(walk(self.entry, 1, None))

    def trips(self, loop: Instruction) -> int | None:
        """Return the iterations of a loop that counts from 0 to a constant: `lax.scan`, `fori_loop`, and the compiler's own rings."""
        if known := _TRIPS.search(loop.rest):
            return int(known[1])
        test, body = (self.computations.get(loop.attribute(name), []) for name in ("condition", "body"))
        by_name = {i.name: i for i in test}
        for compare in (i for i in test if i.opcode == "compare" and "direction=LT" in i.rest):
            counter, bound = (by_name.get(name) for name in compare.operands[:2])
            if counter and bound and counter.opcode == "get-tuple-element" and bound.opcode == "constant":
                return -(-bound.constant // _increment(body, counter.attribute("index")))
        return None

    def waits(self) -> int:
        """Return the number of conditionals, and of loops whose number of iterations the compiler does not know.

        A GPU's host must read what decides them: it waits until the device has computed it, and the device then waits for the host.
        """
        instructions = [i for i, _, _ in self.runs(1)]
        loops = sum(i.opcode == "while" and not _TRIPS.search(i.rest) for i in instructions)
        return loops + sum(i.opcode == "conditional" for i in instructions)


def parse(text: str) -> Program:
    """Parse `compiled.as_text()`."""
    computations: dict[str, list[Instruction]] = {}
    entry = name = ""
    for line in text.splitlines():
        if header := _HEADER.match(line):
            name = header[2]
            computations[name] = []
            entry = name if header[1] else entry
        elif found := _INSTRUCTION.match(line):
            computations[name].append(Instruction(*found.groups()))
    return Program(computations, entry)


def _increment(body: list[Instruction], index: str) -> int:
    """Return the increment of a loop's counter, which is element `index` of the loop's carry; 1 if it is not found."""
    by_name = {i.name: i for i in body}
    at = by_name.get(body[-1].operands[int(index)]) if body and body[-1].opcode == "tuple" else None
    total = 0
    while at and at.opcode in ("add", "copy", "bitcast"):
        read = [by_name.get(name) for name in at.operands]
        total += sum(i.constant for i in read if i and i.opcode == "constant")
        at = next((i for i in read if i and i.opcode != "constant"), None)
    return total if total and at and at.opcode == "get-tuple-element" else 1


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
        """Bytes that a device sends: in a ring, the least possible (Patarasu and Yuan 2009)."""
        n = len(self.group)
        return self.bytes * {"all-reduce": 2 * (n - 1) / n, "collective-permute": 1.0}.get(self.kind, (n - 1) / n)


def collectives(program: Sequence[Run], devices: int) -> list[Collective]:
    """Return the collectives of a program, equal ones added up; those of a group of one send nothing and are left out.

    Args:
        program: what `runs` returns.
        devices: number of devices that run it.
    """
    found: dict[tuple, list[int]] = {}
    for instruction, times, caller in program:
        kind, overlapped, whole = _kind(instruction, caller)
        if kind is None or len(group := first_group(instruction.rest, devices)) < 2:
            continue
        totals = found.setdefault((kind, group, overlapped), [0, 0])
        totals[0] += times
        totals[1] += times * _bytes(instruction) * (1 if whole else len(group))
    return [Collective(kind, group, count, size, overlapped) for (kind, group, overlapped), (count, size) in sorted(found.items())]


def _kind(instruction: Instruction, caller: Instruction | None) -> tuple[str | None, bool, bool]:
    """Return the kind of a collective, whether the program may compute meanwhile, and whether its result is the whole array.

    The kind is None if the instruction is no collective, or one that another line already counts: the TPU compiler writes a collective
    that overlaps a product three times (at its start, in the product, at its end), and a reduce-scatter as an all-reduce inside a fusion
    that keeps a part. The GPU compiler starts every collective, and says of those that it waits for that they are `is_sync`.
    """
    kind = instruction.opcode.removesuffix("-start")
    if kind not in COLLECTIVES:
        return None, False, False
    name, calls = (caller.name, caller.rest) if caller and caller.opcode == "fusion" else ("", "")
    if name.startswith("async-collective-done") or "calls=%async_collective_fusion" in calls:
        return None, False, False
    started = instruction.opcode != kind and '"is_sync":true' not in instruction.rest
    scattered = kind == "all-reduce" and "calls=%all-reduce-scatter" in calls
    overlapped = started or name.startswith("async-collective-start")
    return "reduce-scatter" if scattered else kind, overlapped, scattered or kind != "reduce-scatter"


def _bytes(instruction: Instruction) -> int:
    """Return the bytes of a collective's results; the type of one that is started may have (operands, results, semaphores)."""
    number, parts = len(instruction.operands), [bits * math.prod(lengths) // 8 for bits, lengths in instruction.arrays]
    both = instruction.opcode.endswith("-start") and len(parts) >= 2 * number
    return sum(parts[number : 2 * number] if both else parts)


def first_group(rest: str, devices: int) -> tuple[int, ...]:
    """Return the first group of devices of a collective, from any of XLA's notations; of a permute its first pair.

    `{{0,1},{2,3}}`, `[2,2]<=[4]`, `[2,2]<=[2,2]T(1,0)`, and `mesh['x'=2,'y'=2] {'x'}`.
    """
    if listed := re.search(r"(?:source_target_pairs|replica_groups)=\{\{([\d,]+)\}", rest):
        return tuple(map(int, listed[1].split(",")))
    if mesh := re.search(r"replica_groups=\w*mesh\[(.*?)\](?:, device_ids=\((.*?)\))? \{(.*?)\}", rest):
        axes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", mesh[1])}
        grid = _iota(mesh[2] or f"[{devices}]").reshape(tuple(axes.values()))
        kept = tuple(slice(None) if f"'{name}'" in mesh[3] else 0 for name in axes)
        return tuple(grid[kept].ravel().tolist())
    if iota := re.search(r"replica_groups=\[\d+,(\d+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)", rest):
        return tuple(_iota(iota[2]).ravel()[: int(iota[1])].tolist())
    return tuple(range(devices))


def _iota(text: str) -> np.ndarray:
    """Return the array that `[2,4]T(1,0)` denotes: 0 to 7 as 2 x 4, transposed."""
    shape, axes = ([int(n) for n in re.findall(r"\d+", part)] for part in text.partition("T")[::2])
    return np.arange(math.prod(shape)).reshape(shape).transpose(axes or None)
