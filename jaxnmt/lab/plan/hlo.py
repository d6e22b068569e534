"""Parses a compiled program's text: its computations, how often each runs in one call, and its instructions' attributes.

XLA's own cost analysis counts the body of a loop once; here it counts once per iteration.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
_CALLED = re.compile(r"\b(?:calls|to_apply|body|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"\b(?:branch_computations|called_computations)=\{([^}]*)\}")
_SHAPE = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\]")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


class Instruction(NamedTuple):
    """One line: `name = type opcode(rest`; `rest` has operands and attributes."""

    name: str
    type: str
    opcode: str
    rest: str


class Run(NamedTuple):
    """An instruction, how often it runs in a call of the program, and the caller of its computation (a loop, a fusion)."""

    instruction: Instruction
    times: int
    caller: Instruction | None


@dataclasses.dataclass(frozen=True)
class Program:
    """A program: the instructions of each computation, and the name of the entry computation."""

    computations: dict[str, list[Instruction]]
    entry: str

    def runs(self, unknown_trips: int, name: str = "", times: int = 1, caller: Instruction | None = None) -> Iterator[Run]:
        """Yield every instruction, including those inside fusions, with how often it runs in one call of the program.

        Every branch of a conditional counts as taken.

        Args:
            unknown_trips: number of iterations of a loop whose bound is not in the text.
            name, times, caller: the computation to start with (default: the entry), how often it runs, and its caller.
        """
        for instruction in self.computations.get(name or self.entry, ()):
            yield Run(instruction, times, caller)
            inside = times * (self._trips(instruction, unknown_trips) if instruction.opcode == "while" else 1)
            for called in _called(instruction):
                yield from self.runs(unknown_trips, called, inside, instruction)

    def _trips(self, loop: Instruction, unknown: int) -> int:
        """Return the iterations of a loop that counts from 0 to a constant: `lax.scan`, `fori_loop`, and the compiler's own rings."""
        if known := _TRIPS.search(loop.rest):
            return int(known[1])
        test, body = (self.computations.get(_attribute(loop, name), []) for name in ("condition", "body"))
        by_name = {i.name: i for i in test}
        for compare in (i for i in test if i.opcode == "compare" and "direction=LT" in i.rest):
            counter, bound = (by_name.get(name) for name in _operands(compare)[:2])
            if counter and bound and counter.opcode == "get-tuple-element" and bound.opcode == "constant":
                return -(-int(bound.rest.split(")")[0]) // _increment(body, _attribute(counter, "index")))
        return unknown


def _increment(body: list[Instruction], index: str) -> int:
    """Return the increment of a loop's counter, which is element `index` of the loop's carry; 1 if it is not found."""
    by_name = {i.name: i for i in body}
    results = next((i for i in body if i.opcode == "tuple" and i is body[-1]), None)
    at = by_name.get(_operands(results)[int(index)]) if results else None
    total = 0
    while at is not None and at.opcode in ("add", "copy", "bitcast"):
        operands = [by_name.get(name) for name in _operands(at)]
        total += sum(int(i.rest.split(")")[0]) for i in operands if i is not None and i.opcode == "constant")
        at = next((i for i in operands if i is not None and i.opcode != "constant"), None)
    return total if total and at is not None and at.opcode == "get-tuple-element" else 1


def parse(text: str) -> Program:
    """Parse `compiled.as_text()`."""
    computations: dict[str, list[Instruction]] = {}
    entry = name = ""
    for line in text.splitlines():
        if not line.startswith(" "):
            if header := _HEADER.match(line):
                name = header[2]
                computations[name] = []
                entry = name if header[1] else entry
        elif name and (found := _INSTRUCTION.match(line)):
            computations[name].append(Instruction(*found.groups()))
    return Program(computations, entry)


def _operands(instruction: Instruction) -> list[str]:
    return re.findall(r"%([\w.\-]+)", instruction.rest.split(")")[0])


def _attribute(instruction: Instruction, name: str) -> str:
    found = re.search(rf"\b{name}=%?([\w.\-]+)", instruction.rest)
    return found[1] if found else ""


def _called(instruction: Instruction) -> list[str]:
    names = _CALLED.findall(instruction.rest)
    for group in _BRANCHES.findall(instruction.rest):
        names += [name.strip().lstrip("%") for name in group.split(",")]
    return names


def sizes(type_: str) -> list[int]:
    """Return the bytes of every array in a type such as `(f32[8,16]{1,0}, bf16[4])`."""
    return [_width(kind) * math.prod(int(n) for n in dims.split(",") if n) // 8 for kind, dims in _SHAPE.findall(type_)]


def _width(kind: str) -> int:
    """Return the bits of a number."""
    return 8 if kind == "pred" else int(re.search(r"\d+", kind)[0])  # type: ignore[index]
