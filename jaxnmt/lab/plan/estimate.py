"""Estimates the time of a call from the compiler's analysis of its program; nothing is run."""

from __future__ import annotations

import dataclasses

from jaxnmt.lab.plan.collectives import seconds
from jaxnmt.lab.plan.compiled import Compiled
from jaxnmt.lab.plan.topology import Target


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Seconds of one call.

    Attributes:
        arithmetic: matrix products at the chip's peak.
        computing: the compiler's estimate of every instruction, plus Pallas kernels at the chip's peak or at the memory's bandwidth,
            whichever is slower. If the compiler gives no estimate: `arithmetic`, or reading and writing at the memory's bandwidth.
        waiting: collectives during which nothing is computed.
        overlapped: collectives that overlap with computing.
    """

    arithmetic: float
    computing: float
    waiting: float
    overlapped: float

    @property
    def seconds(self) -> float:
        """The whole call: overlapped collectives cost only the time that computing does not hide."""
        return self.waiting + max(self.computing, self.overlapped)


def estimate(compiled: Compiled, target: Target) -> Estimate | None:
    """Return the time of a call; None if the chip's rates are unknown."""
    chip, devices = target.chip, len(compiled.order)
    if not chip.flops or not chip.bandwidth:
        return None
    arithmetic = compiled.work.flops / devices / chip.flops
    if compiled.cycles is None or not chip.clock:
        computing = max(arithmetic, compiled.accessed / chip.bandwidth)
    else:
        kernels = max(compiled.work.kernel_flops / chip.flops, compiled.work.kernel_bytes / chip.bandwidth) / devices
        computing = compiled.cycles / chip.clock + kernels
    waiting = sum(seconds(c, target, compiled.order) for c in compiled.collectives if not c.overlapped)
    hidden = [(c.kind, seconds(c, target, compiled.order)) for c in compiled.collectives if c.overlapped]
    # Permutes between different neighbours use different links at the same time, like a ring in both directions.
    permutes = max((time for kind, time in hidden if kind == "collective-permute"), default=0.0)
    return Estimate(arithmetic, computing, waiting, permutes + sum(time for kind, time in hidden if kind != "collective-permute"))
