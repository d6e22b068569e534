"""Tables and records of predictions."""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
from typing import Any

import jax
import numpy as np

from jaxnmt.lab.figures import Table
from jaxnmt.lab.plan.chips import GIB, Target
from jaxnmt.lab.plan.compiled import Compiled
from jaxnmt.lab.plan.prediction import Prediction, describe, estimate
from jaxnmt.lab.plan.timing import Operation


def tables(p: Prediction, name: str, kernel: tuple[int, int] | None = None) -> list[Table]:
    """Return memory, work and time of a run, and its collectives; `kernel`: temporaries of an attention with the kernel, and without."""
    found = [_summary(p, name, kernel)]
    if len(p.steps) > 1:
        found.append(_shapes(p))
    if p.largest.collectives:
        found.append(collectives_table(p.largest))
    return found


def _summary(p: Prediction, name: str, kernel: tuple[int, int] | None) -> Table:
    largest, chip, least = p.largest, p.target.chip, p.least_sent
    rows = [
        ("parameters", f"{p.parameters:,}"),
        ("mesh", " x ".join(f"{axis} {size}" for axis, size in p.mesh.items())),
        ("memory of a device", _memory(largest, p.target)),
        ("  state and batch", _gib(largest.arguments)),
        ("  activations and the rest", _gib(largest.temporaries)),
    ]
    if kernel:
        rows.append(("  one attention, fused; plain", "; ".join(map(_gib, kernel))))
    rows.append(("FLOPs of a step", f"{_si(p.mean(lambda step: step.program.work.flops))}, {_si(p.model_flops)} of them the model's"))
    if p.fits:
        rows.append(("sent by a device in a step", _bytes(p.sent) + (f"; at least {_bytes(least)}" if least else "")))
    rows += [*_times(p), ("compiled in", f"{sum(step.program.seconds for step in p.steps):.0f} s")]
    title = f"{name} on {p.target.name} ({len(p.target.devices)} x {chip.name}): compiled, not run"
    return Table(title, ("", "a step"), tuple(rows), p.batches)


def _times(p: Prediction) -> list[tuple[str, str]]:
    if p.step_seconds is None:
        return [] if p.fits else [("time", "does not fit")]

    def ms(part: str) -> str:
        return f"{1e3 * p.mean(lambda step: getattr(step.time, part)):.1f} ms"

    on_tpus = p.target.chip.clock is not None
    by = "the compiler's estimate" if on_tpus else "each kernel at the peak or at the memory's speed"
    kernels = p.mean(lambda step: step.program.schedule.total.kernels)
    accessed = p.mean(lambda step: step.program.schedule.total.accessed)
    ours = [
        ("    in matrix products and fused attention", f"{1e3 * p.mean(lambda step: step.program.schedule.products):.1f} ms"),
        ("    kernels; bytes read and written", f"{kernels:,.0f}; {_bytes(accessed)}"),
        ("    places where the host waits", f"{max(step.program.waits for step in p.steps)}"),
    ]
    return [
        ("time of a step", ms("seconds")),
        (f"  computing, {by}", ms("computing")),
        *([] if on_tpus else ours),
        ("  matrix products at the peak", ms("arithmetic")),
        ("  collectives that are waited for", ms("waiting")),
        ("  collectives behind computing", ms("overlapped")),
        ("target tokens/s", f"{p.target_tokens_per_s:,.0f}"),
        ("model FLOPs utilisation", f"{p.utilisation:.1%}"),
        (f"hours for {p.experiment.training.steps:,} steps", f"{p.hours:.1f}"),
    ]


def _shapes(p: Prediction) -> Table:
    rows = []
    for share, program, time in p.steps:
        ms = f"{1e3 * time.seconds:.1f} ms" if time else ""
        rows.append((" x ".join(map(str, share.shape)), f"{share.share:.0%}", _gib(program.memory), _si(program.work.flops), ms))
    return Table("Shapes: rows x source x target positions", ("shape", "share", "memory", "FLOPs", "time"), tuple(rows))


def operations_table(program: Compiled, most: int) -> Table:
    """Return where the time of one call goes: the places in the model that take longest, and the others together."""
    total, places = program.schedule.total, sorted(program.schedule.operations.items(), key=lambda item: -item[1].seconds)
    named, others = places[:most], functools.reduce(Operation.plus, (operation for _, operation in places[most:]), Operation())
    rows = [*named, (f"{len(places) - len(named)} others", others)] if len(places) > most else named
    shown = [
        (name, f"{o.kernels:,}", f"{1e3 * o.seconds:.3f}", f"{o.seconds / total.seconds:.1%}", _bytes(o.accessed))
        for name, o in [*rows, ("all", total)]
    ]
    return Table("Where the time goes, all layers together", ("operation", "kernels", "ms", "share", "bytes"), tuple(shown))


def collectives_table(program: Compiled) -> Table:
    """Return the collectives of one call, those over groups of equal size added up."""
    sums: dict[tuple[str, str], np.ndarray] = collections.defaultdict(lambda: np.zeros(3))
    for c in program.collectives:
        name = c.kind if c.kind == "collective-permute" else f"{c.kind} of {len(c.group)}"
        sums[name, "behind computing" if c.overlapped else "waited for"] += (c.count, c.bytes, c.sent)
    rows = [(name, f"{count:,.0f}", _bytes(size), _bytes(sent), when) for (name, when), (count, size, sent) in sums.items()]
    return Table("Collectives in a step", ("kind and devices", "times", "bytes", "sent by a device", ""), tuple(rows))


def record(p: Prediction, name: str) -> dict[str, Any]:
    """Return all numbers, for JSON; times in seconds, memory in bytes."""
    sizes = ("mesh", "fits", "parameters", "model_flops", "sent", "least_sent")
    times = ("step_seconds", "target_tokens_per_s", "utilisation", "hours", "batches")
    found = {"config": name, "on": p.target.name, "devices": len(p.target.devices)}
    found |= {number: getattr(p, number) for number in sizes + times}
    found["shapes"] = [
        {**dataclasses.asdict(program), "share": share.share, "memory": program.memory, "time": time and dataclasses.asdict(time)}
        for share, program, time in p.steps
    ]
    return found | {"jax": jax.__version__}


def refusal(p: Prediction, name: str) -> str:
    """Return one sentence, with the numbers, about the program that does not fit."""
    largest, chip = p.largest, p.target.chip
    return (
        f"{name} does not fit {p.target.name}: the step of {largest.shape.rows} rows x {largest.shape.source} source x "
        f"{largest.shape.target} target positions needs {_gib(largest.memory)} of a device's {_gib(chip.memory or 0)}, "
        f"{_gib(largest.arguments)} of it state and batch: raise mesh.fsdp, set model.remat, or lower batching.tokens"
    )


def decoding_table(program: Compiled, target: Target, name: str) -> Table:
    """Return memory and time of a search for translations on one device."""
    time = estimate(program, target)
    rows = [("memory of the device", _memory(program, target)), ("FLOPs", _si(program.work.flops))]
    if time:
        rows += [
            ("time, translations as long as may be", f"{1e3 * time.seconds:.1f} ms"),
            ("time of a word", f"{1e3 * time.seconds / program.shape.target:.2f} ms"),
            ("sentences/s, at least", f"{program.shape.rows / time.seconds:,.1f}"),
        ]
    sentences = f"{program.shape.rows} sentences of {program.shape.source} words"
    title = f"{name}: searching for {sentences} on one {target.chip.name}: compiled, not run"
    return Table(title, ("", "a search"), tuple(rows))


def search_table(ranked: list[Prediction], name: str, target: Target) -> Table:
    """Return the settings that fit, best first."""
    rows = []
    for p in ranked:
        speed = (f"{p.target_tokens_per_s:,.0f}", f"{p.utilisation:.1%}", f"{p.hours:.1f}") if p.target_tokens_per_s else ("", "", "")
        rows.append((describe(p.experiment), _gib(p.largest.memory), *speed))
    title = f"{name} on {target.name}: what fits, of a device's {_gib(target.chip.memory or 0)}: compiled, not run"
    return Table(title, ("settings", "memory", "target tokens/s", "utilisation", "hours"), tuple(rows))


def _memory(program: Compiled, target: Target) -> str:
    return _gib(program.memory) + (f" of {_gib(target.chip.memory)}" if target.chip.memory else "")


def _gib(size: float) -> str:
    return f"{size / GIB:.2f} GiB" if size >= GIB / 100 else f"{size / 2**20:.2f} MiB"


def _bytes(size: float) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.3f} MB"


def _si(number: float) -> str:
    """Return a number with an SI prefix: 4.61 T."""
    power = min(int(math.log10(max(number, 1)) // 3), 5)
    return f"{number / 1000**power:.2f} {('', 'k', 'M', 'G', 'T', 'P')[power]}".strip()
