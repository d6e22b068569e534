"""How fast a config trains here: the training loop itself, timed step by step, with nothing saved."""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxnmt import __version__, errors
from jaxnmt import config as cfg
from jaxnmt.config import files as config_files
from jaxnmt.models.accounting import parameter_count, training_flops
from jaxnmt.parallel import compiler
from jaxnmt.training.loop import Trainer
from jaxnmt.training.metrics import peak_flops

IMPORTED = time.perf_counter()


class Step(NamedTuple):
    """One optimizer step: when the host had its result, and what was in its batch."""

    finished: float
    positions: int
    source_tokens: int
    target_tokens: int


class TimedTrainer(Trainer):
    """Training that keeps the time of each step, stops after `seconds` of steps, and neither validates nor saves.

    Attributes:
        begun: when each step was handed to the device.
        done: each step's results, in order.
        compiled: the programs.
    """

    def __init__(self, experiment: cfg.Experiment, run: Path, seconds: float):
        super().__init__(experiment, run, translate=None)
        self.seconds = seconds
        self.begun: list[float] = []
        self.done: list[Step] = []

    def _steps(self) -> None:
        self.compiled = self.programs

        def timed(*arguments):
            self.begun.append(time.perf_counter())
            return self.compiled(*arguments)

        self.programs = timed  # type: ignore[assignment]
        super()._steps()

    def _record(self, pending) -> None:
        super()._record(pending)
        shape, metrics = pending.planned.shape, pending.metrics
        positions = shape.rows * (shape.source + shape.target)
        self.done.append(Step(time.perf_counter(), positions, int(metrics.source_tokens), int(metrics.sums.tokens)))
        if len(self.done) == 1:
            self.clock.take_window()  # the first batch and the first step are start-up

    def _is_milestone(self, step: int) -> bool:
        due = super()._is_milestone(step)
        if self.done and time.perf_counter() - self.done[0].finished > self.seconds:
            self.stopped = self.stopped or "measured"
        return due or bool(self.stopped)

    def _milestone(self, step: int) -> None:
        """Nothing is logged, validated or saved."""

    def _say_goodbye(self) -> None:
        if self.stopped == "interrupted":
            self.signals.leave("the measurement is not finished", self.display.say)


def benchmark(experiment: cfg.Experiment, seconds: float) -> dict[str, Any]:
    """Train for some time in a folder that is thrown away.

    The first step belongs to the start-up; speed, padding and waiting are of the steps after it.

    Args:
        experiment: its `training.steps` are the most that are taken.
        seconds: of training steps; the time until the first is done does not count.

    Returns:
        A record fit for JSON. Its times of starting up are seconds since the process began.

    Raises:
        UserError: fewer than three steps were taken; and whatever training raises.
    """
    process_began = time.perf_counter() - process_age()
    compiler.check()
    with tempfile.TemporaryDirectory(prefix="jaxnmt-bench-") as folder:
        trainer = TimedTrainer(experiment, Path(folder), seconds)
        trainer.run()
    if len(trainer.done) < 3:
        raise errors.UserError(f"{len(trainer.done)} steps are too few to tell a speed: allow more --run-time or more --training.steps")
    first, steps = trainer.done[0], trainer.done[1:]
    return {
        **_speed(trainer, steps, steps[-1].finished - first.finished),
        "first_step_begun_s": trainer.begun[0] - process_began,
        "first_step_finished_s": first.finished - process_began,
        "compile_s": trainer.compiled.seconds,
        **_memory(),
        "shapes": [list(shape) for shape in trainer.plan.shapes],
        "parameters": parameter_count(trainer.abstract.params),
        **environment(),
    }


def _speed(trainer: TimedTrainer, steps: list[Step], seconds: float) -> dict[str, Any]:
    starts = [trainer.done[0].finished, *(step.finished for step in steps)]
    source, target = sum(step.source_tokens for step in steps), sum(step.target_tokens for step in steps)
    rates = [step.target_tokens / (step.finished - start) for start, step in zip(starts, steps, strict=False)]
    peak = peak_flops()
    return {
        "target_tokens_per_s": target / seconds,
        "target_tokens_per_s_median": statistics.median(rates),
        "source_tokens_per_s": source / seconds,
        "steps": len(steps),
        "seconds": seconds,
        "target_tokens": target,
        "source_tokens": source,
        "utilisation": training_flops(trainer.model, source, target) / seconds / peak,
        "peak_flops": peak,
        "padding": 1 - (source + target) / sum(step.positions for step in steps),
        "input_wait": min(trainer.clock.take_window().waited / seconds, 1.0),
    }


def _memory() -> dict[str, int]:
    """Most that the process had in memory, and most that a device held where its backend tells; bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    record = {"peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    device = [stats["peak_bytes_in_use"] for d in jax.local_devices() if (stats := d.memory_stats()) and "peak_bytes_in_use" in stats]
    return record | ({"peak_device_memory_bytes": max(device)} if device else {})


def environment() -> dict[str, Any]:
    """What was measured on what, and when."""
    devices = jax.devices()
    return {
        "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "devices": f"{len(devices)} {devices[0].device_kind}",
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxnmt": __version__,
    }


def process_age() -> float:
    """Seconds since this process began; where the system does not tell, since this module was imported."""
    try:
        began = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
        return float(Path("/proc/uptime").read_text().split()[0]) - began
    except (OSError, ValueError, IndexError):
        return time.perf_counter() - IMPORTED


def append(record: dict[str, Any], experiment: cfg.Experiment, name: str, path: Path) -> None:
    """Add a line to a JSON Lines file: the record, the config's name and every setting."""
    path.parent.mkdir(parents=True, exist_ok=True)
    settings = {field: value for field, _, value in config_files.leaves(experiment)}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"config": name} | record | {"settings": settings}) + "\n")


def describe(record: dict[str, Any], name: str) -> str:
    """The record of a config for people; the first line is fit to be a row of a table."""
    rate, median, gib = record["target_tokens_per_s"], record["target_tokens_per_s_median"], 2**30
    begun, finished = record["first_step_begun_s"], record["first_step_finished_s"]
    memory, device = record["peak_memory_bytes"] / gib, record.get("peak_device_memory_bytes")
    row = f"{name:<22}{rate:>9,.0f} target tokens/s {record['utilisation']:>5.0%} of the peak {record['padding']:>5.0%} padding"
    rows = {
        "speed": f"{rate:,.0f} target tokens/s over {record['steps']} steps, the median step {median:,.0f}; padding not counted",
        "utilisation": f"{record['utilisation']:.0%} of {record['peak_flops'] / 1e9:,.0f} GFLOP/s",
        "padding": f"{record['padding']:.1%} of positions",
        "input wait": f"{record['input_wait']:.1%} of the time",
        "compilation": f"{record['compile_s']:.1f} s for {len(record['shapes'])} shape(s)",
        "first step": f"begun {begun:.1f} s after the process, finished after {finished:.1f} s",
        "memory": f"{memory:.2f} GiB" + (f", {device / gib:.2f} GiB on a device" if device else ""),
        "model": f"{record['parameters']:,} parameters",
        "on": f"{record['devices']}, {record['cores']} cores (load {record['load']:.1f}), JAX {record['jax']}, Python {record['python']}",
    }
    lines = (f"  {what:<16}{value}" for what, value in rows.items())
    return "\n".join([f"{row} {finished:>6.1f} s to the first step {memory:>6.2f} GiB", *lines])
