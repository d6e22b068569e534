"""Estimated seconds of a compiled program, kernel by kernel.

For TPUs they are the compiler's own. On GPUs each kernel takes as long as its products at the peak, or its bytes at the memory's speed,
whichever is slower (Williams et al. 2009, the roofline). Collectives take the time that their bytes need over the links. Both run side by
side in the order of the compiled schedule.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Sequence

import numpy as np

from jaxnmt.lab.plan import hlo
from jaxnmt.lab.plan.chips import Chip, Target
from jaxnmt.lab.plan.hlo import Collective, Instruction, Program

KERNEL_SECONDS = 2e-6  # the least that a kernel takes, from its start to the next one's

_FREE = {"parameter", "get-tuple-element", "tuple", "bitcast", "constant", "after-all", "partition-id", "replica-id"}
_CONTROL = {"while", "conditional", "call"}
_PART_READERS = {"dynamic-slice", "slice", "gather"}  # they read what they return
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_WRAPPER = re.compile(r"\w*\(.*\)|while|body|cond|branch_\d+_fun|closed_call|shard_map|checkpoint|rematted_computation|\w+Module\.\w+")
_NUMBER = re.compile(r"_\d+\b")
_PRODUCT = 'custom_call_target="__cublas$'
_ATTENTION = re.compile(r'custom_call_target="__cudnn\$fmha\w*?(Backward)?"')
_CONTRACTED = re.compile(r'"lhs_contracting_dimensions":\[([^\]]*)\]')


def sending(collective: Collective, target: Target, order: Sequence[int]) -> float:
    """Return the least seconds of a collective: bytes sent over the links that its group can use at once, without latency.

    In a TPU slice a group uses the links along every axis that it spans, in both directions if the axis is a ring. GPUs of one host send
    by NVLink; a ring over several hosts passes from one to the next by all of their network adapters at once.

    Args:
        order: for each position in the mesh the index of its device in `target.devices`.
    """
    if not target.chip.link:
        return 0.0
    links = 1
    if target.places and collective.kind != "collective-permute":
        places = np.array([target.places[order[i]] for i in collective.group])
        links = sum(2 if closed else 1 for axis, (_, closed) in enumerate(target.rings) if np.ptp(places[:, axis]))
    speed = target.chip.link * max(links, 1)
    if target.per_host and target.chip.network:
        of_host = np.bincount([order[i] // target.per_host for i in collective.group])
        if np.count_nonzero(of_host) > 1:
            speed = min(speed, target.chip.network * of_host[of_host > 0].min())
    return collective.sent / speed


@dataclasses.dataclass(frozen=True)
class Operation:
    """Kernels of one kind: of the same primitive at the same place in the model, all layers together.

    Attributes:
        kernels: number of them.
        accessed: bytes that they read and write.
    """

    kernels: int = 0
    seconds: float = 0.0
    accessed: float = 0.0

    def plus(self, other: Operation, times: int = 1) -> Operation:
        """Return the sum of this and `times` calls of another."""
        return Operation(self.kernels + times * other.kernels, self.seconds + times * other.seconds, self.accessed + times * other.accessed)


@dataclasses.dataclass
class Schedule:
    """Seconds of one call on one device.

    Attributes:
        waiting: collectives while nothing is computed.
        overlapped: collectives while something is computed.
        products: of matrix products and fused attention, for GPUs.
        operations: what is computed, by its place in the model.
    """

    waiting: float = 0.0
    overlapped: float = 0.0
    products: float = 0.0
    operations: dict[str, Operation] = dataclasses.field(default_factory=dict)

    @property
    def total(self) -> Operation:
        """All kernels."""
        return functools.reduce(Operation.plus, self.operations.values(), Operation())

    def add(self, other: Schedule, times: int = 1) -> None:
        """Add `times` calls of another computation."""
        self.waiting += times * other.waiting
        self.overlapped += times * other.overlapped
        self.products += times * other.products
        for name, operation in other.operations.items():
            self.operations[name] = self.operations.get(name, Operation()).plus(operation, times)


def schedule(program: Program, target: Target, order: Sequence[int], unknown_trips: int) -> Schedule:
    """Return the time of one call, for a chip whose rates are known.

    Args:
        order: as for `sending`.
        unknown_trips: number of iterations of a loop whose bound is not in the program.
    """
    return _Clock(program, target, order, unknown_trips).run(program.entry)


class _Clock:
    """Runs a program's computations on paper, with one stream for kernels and one for collectives."""

    def __init__(self, program: Program, target: Target, order: Sequence[int], unknown_trips: int):
        self.program, self.target, self.order, self.unknown_trips = program, target, order, unknown_trips

    def run(self, name: str) -> Schedule:
        total, now, sent_at = Schedule(), 0.0, 0.0
        ends: dict[str, float] = {}
        by_name = {i.name: i for i in self.program.computations[name]}
        for instruction in by_name.values():
            opcode = instruction.opcode
            if opcode in _CONTROL:
                times = (self.program.trips(instruction) or self.unknown_trips) if opcode == "while" else 1
                parts = [self.run(called) for called in instruction.called if called in self.program.computations]
                part = max(parts, key=lambda part: part.total.accessed, default=Schedule())  # of a conditional, the branch with most work
                total.add(part, times)
                now += times * (part.total.seconds + part.waiting)
            elif opcode.endswith("-done"):
                late = max(0.0, ends.get(instruction.operands[0], now) - now)
                total.add(Schedule(waiting=late, overlapped=-late))
                now += late
            elif found := hlo.collectives([(instruction, 1, None)], len(self.order)):
                seconds = sending(found[0], self.target, self.order)
                sent_at = max(sent_at, now) + seconds
                ends[instruction.name] = sent_at
                total.overlapped += seconds
                if not found[0].overlapped:
                    total.add(Schedule(waiting=sent_at - now, overlapped=now - sent_at))
                    now = sent_at
            elif opcode not in _FREE and not opcode.endswith("-start"):
                kernel = self.kernel(instruction, by_name)
                total.add(kernel)
                now += kernel.total.seconds
        return total

    def kernel(self, instruction: Instruction, by_name: dict[str, Instruction]) -> Schedule:
        """Return the time of one kernel: the compiler's estimate, if it gives one, or ours."""
        chip, size = self.target.chip, float(self.accessed(instruction, by_name))
        if chip.clock:
            cycles = sum(int(found) for found in _CYCLES.findall(instruction.rest))
            return Schedule(operations={place(instruction): Operation(1, cycles / chip.clock, size)})
        products = product_seconds(instruction, by_name, chip)
        seconds = max(products, size / (chip.bandwidth or math.inf), KERNEL_SECONDS)
        return Schedule(products=seconds if products else 0.0, operations={place(instruction): Operation(1, seconds, size)})

    def accessed(self, instruction: Instruction, by_name: dict[str, Instruction]) -> int:
        """Return the bytes that a kernel reads and writes."""
        operands = [by_name[name] for name in instruction.operands if name in by_name]
        if instruction.opcode == "fusion" and instruction.called:
            body = self.program.computations.get(instruction.called[0], [])
            return _fused_reads(body, operands) + _fused_writes(body)
        if instruction.opcode in _PART_READERS:
            return 2 * instruction.bytes
        if instruction.opcode == "dynamic-update-slice":
            return 2 * operands[1].bytes
        return sum(i.bytes for i in operands) + _results(instruction)


def place(instruction: Instruction) -> str:
    """Return where in the model an instruction comes from, all layers the same: `decoder/layer/mlp/wi/dot_general, backward`."""
    found = _OP_NAME.search(instruction.rest)
    if found is None:
        return instruction.opcode
    parts = [_NUMBER.sub("", part) for part in found[1].split("/") if not _WRAPPER.fullmatch(part)]
    return "/".join(parts[-4:]) + (", backward" if "transpose(" in found[1] else "")


def _results(instruction: Instruction) -> int:
    """Return the bytes of a result, without the workspace of a library call (a last row of bytes)."""
    arrays = instruction.arrays
    if instruction.opcode == "custom-call" and len(arrays) > 1 and arrays[-1][0] == 8 and len(arrays[-1][1]) == 1:
        arrays = arrays[:-1]
    return sum(bits * math.prod(lengths) // 8 for bits, lengths in arrays)


def _fused_reads(body: Sequence[Instruction], operands: Sequence[Instruction]) -> int:
    """Return the bytes that a fusion reads of its operands: of those that it takes parts from, the parts."""
    users: dict[str, list[Instruction]] = {}
    for instruction in body:
        for name in instruction.operands:
            users.setdefault(name, []).append(instruction)

    def read(name: str, whole: int) -> Iterator[int]:
        for user in users.get(name, []):
            first = user.operands[0] == name
            if user.opcode == "bitcast":
                yield from read(user.name, whole)
            elif user.opcode in _PART_READERS and first:
                yield user.bytes
            elif not (user.opcode in ("dynamic-update-slice", "scatter") and first):  # it is changed where it lies
                yield whole

    parameters = {i.constant: i for i in body if i.opcode == "parameter"}
    sizes = [operand.bytes for operand in operands]
    return sum(min(size, sum(read(parameters[n].name, size))) for n, size in enumerate(sizes) if n in parameters)


def _fused_writes(body: Sequence[Instruction]) -> int:
    """Return the bytes that a fusion writes: of arrays that it changes where they lie, the changed part."""
    by_name = {i.name: i for i in body}

    def written(instruction: Instruction) -> int:
        if instruction.opcode in ("tuple", "bitcast"):
            return sum(written(by_name[name]) for name in instruction.operands if name in by_name)
        if instruction.opcode in ("dynamic-update-slice", "scatter"):
            part = by_name.get(instruction.operands[1 if instruction.opcode == "dynamic-update-slice" else 2])
            return part.bytes if part else 0
        return instruction.bytes

    return written(body[-1]) if body else 0


def product_seconds(instruction: Instruction, by_name: dict[str, Instruction], chip: Chip) -> float:
    """Return the least seconds of a matrix product or of fused attention, by a library; float32 takes twice as long (TF32). 0 for others.

    Fused attention counts whole, causal or not: two products forward; five backward, one of them to compute the scores again.
    """
    if instruction.opcode != "custom-call" or not chip.flops:
        return 0.0
    shapes = [by_name[name].arrays[0] for name in instruction.operands[:2] if name in by_name]
    if found := _CONTRACTED.search(instruction.rest) if _PRODUCT in instruction.rest else None:
        contracted = math.prod(shapes[0][1][int(n)] for n in re.findall(r"\d+", found[1]))
        flops = 2.0 * contracted * math.prod(instruction.arrays[0][1])
    elif found := _ATTENTION.search(instruction.rest):
        (_, query), (_, key) = shapes  # (B, T, H, K) and (B, S, H, K)
        flops = (5 if found[1] else 2) * 2.0 * math.prod(query) * key[1]
    else:
        return 0.0
    return flops / chip.flops * max(shapes[0][0] / 16, 1.0)
