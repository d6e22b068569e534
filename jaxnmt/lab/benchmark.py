"""Measures the training speed of a config on this machine: the training loop itself, timed step by step, saving nothing."""

from __future__ import annotations

import itertools
import json
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax

from jaxnmt import Experiment, Hook, UserError, __version__
from jaxnmt.config.fields import leaves
from jaxnmt.models.parameters import parameter_count, training_flops
from jaxnmt.parallel import compiler
from jaxnmt.training.hooks import FinishedStep, SkippedSteps, Stop
from jaxnmt.training.loop import Trainer
from jaxnmt.training.metrics import peak_flops
from jaxnmt.training.tuning import trained_paths

IMPORTED = time.perf_counter()


class Timer(Hook):
    """Keeps the time of each step, and stops the training after `seconds` of steps.

    Attributes:
        begun: when the training began, after compiling.
        done: each step, in order, and when the host received its results.
    """

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.done: list[tuple[float, FinishedStep]] = []

    def start(self, trainer: Trainer) -> None:
        self.begun = time.perf_counter()

    def record(self, trainer: Trainer, finished: FinishedStep) -> None:
        self.done.append((time.perf_counter(), finished))
        if len(self.done) == 1:
            trainer.clock.take_window()  # the first batch and the first step are start-up

    def is_due(self, trainer: Trainer, step: int) -> bool:
        if self.done and time.perf_counter() - self.done[0][0] > self.seconds:
            trainer.stop("measured")
        return False


class Measurement(Trainer):
    """A session that ends without a word about the run, which is thrown away."""

    def _say_goodbye(self) -> None:
        if self.stopped == self.INTERRUPTED:
            self.signals.leave("the measurement is not finished", self.display.say)


def benchmark(experiment: Experiment, seconds: float) -> dict[str, Any]:
    """Train for some time in a temporary folder.

    The first step counts as start-up; speed, padding and waiting are those of the later steps.

    Args:
        experiment: its `training.steps` is the maximum number of steps.
        seconds: of training steps, after the first one.

    Returns:
        A record for JSON. Its start-up times are seconds since the process started.

    Raises:
        UserError: fewer than three steps were taken; and whatever training raises.
    """
    process_began = time.perf_counter() - process_age()
    compiler.check()
    with tempfile.TemporaryDirectory(prefix="jaxnmt-bench-") as folder:
        timer = Timer(seconds)
        trainer = Measurement(experiment, Path(folder), [Stop(), SkippedSteps(), timer], progress=True, signals=True)
        trainer.run()
    if len(timer.done) < 3:
        raise UserError(f"{len(timer.done)} steps are too few to tell a speed: allow more --run-time or more --training.steps")
    return {
        **_speed(trainer, timer.done),
        "first_step_begun_s": timer.begun - process_began,
        "first_step_finished_s": timer.done[0][0] - process_began,
        "compile_s": trainer.programs.seconds,
        **memory(),
        "shapes": [list(shape) for shape in trainer.plan.shapes],
        "parameters": parameter_count(trainer.programs.abstract.params),
        **circumstances(),
    }


def _speed(trainer: Trainer, done: list[tuple[float, FinishedStep]]) -> dict[str, Any]:
    """Return speed, padding and waiting of all steps but the first."""
    times, steps = [at for at, _ in done], [step for _, step in done[1:]]
    shapes, targets = [step.batch.shape for step in steps], [trainer.target_tokens(step) for step in steps]
    seconds, source, target = times[-1] - times[0], sum(int(step.metrics.source_tokens) for step in steps), sum(targets)
    rates = [tokens / (after - before) for tokens, (before, after) in zip(targets, itertools.pairwise(times), strict=True)]
    positions = sum(shape.rows * (shape.source + shape.target) for shape in shapes)
    peak, trained = peak_flops(), trained_paths(trainer.config.training, trainer.model)
    return {
        "target_tokens_per_s": target / seconds,
        "target_tokens_per_s_median": statistics.median(rates),
        "source_tokens_per_s": source / seconds,
        "steps": len(rates),
        "seconds": seconds,
        "target_tokens": target,
        "source_tokens": source,
        "utilisation": training_flops(trainer.model, source, target, trained) / seconds / peak,
        "peak_flops": peak,
        "padding": 1 - (source + target) / positions,
        "input_wait": min(trainer.clock.take_window()[1] / seconds, 1.0),
    }


def circumstances() -> dict[str, Any]:
    """Return when, on what and with which versions something is measured."""
    return {
        "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "devices": f"{jax.device_count()} {jax.devices()[0].device_kind}",
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxnmt": __version__,
    }


def memory() -> dict[str, int]:
    """Return the peak memory of the process, and of a device if its backend reports it, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    record = {"peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    device = [stats["peak_bytes_in_use"] for d in jax.local_devices() if (stats := d.memory_stats()) and "peak_bytes_in_use" in stats]
    return record | ({"peak_device_memory_bytes": max(device)} if device else {})


def process_age() -> float:
    """Return the seconds since this process started; without /proc, since this module was imported."""
    try:
        began = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
        return float(Path("/proc/uptime").read_text().split()[0]) - began
    except (OSError, ValueError, IndexError):
        return time.perf_counter() - IMPORTED


def append(record: dict[str, Any], experiment: Experiment, name: str, path: Path) -> None:
    """Append a line to a JSON Lines file: the record, the config's name and every setting."""
    path.parent.mkdir(parents=True, exist_ok=True)
    settings = {field: value for field, _, value in leaves(experiment)}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"config": name} | record | {"settings": settings}) + "\n")


def describe(record: dict[str, Any], name: str) -> str:
    """Return the record as text; the first line can be a row of a table."""
    rate, median, gib = record["target_tokens_per_s"], record["target_tokens_per_s_median"], 2**30
    begun, finished = record["first_step_begun_s"], record["first_step_finished_s"]
    peak_memory = record["peak_memory_bytes"] / gib
    row = f"{name:<22}{rate:>9,.0f} target tokens/s {record['utilisation']:>5.0%} of the peak {record['padding']:>5.0%} padding"
    rows = {
        "speed": f"{rate:,.0f} target tokens/s over {record['steps']} steps, the median step {median:,.0f}; without padding",
        "utilisation": f"{record['utilisation']:.0%} of {record['peak_flops'] / 1e9:,.0f} GFLOP/s",
        "padding": f"{record['padding']:.1%} of positions",
        "input wait": f"{record['input_wait']:.1%} of the time",
        "compilation": f"{record['compile_s']:.1f} s for {len(record['shapes'])} shape(s)",
        "first step": f"started {begun:.1f} s after the process, finished after {finished:.1f} s",
        **described_circumstances(record),
    }
    return "\n".join([f"{row} {finished:>6.1f} s to the first step {peak_memory:>6.2f} GiB", *lines_of(rows)])


def described_circumstances(record: dict[str, Any]) -> dict[str, str]:
    """Return memory, model and machine of a record in words."""
    gib, device = 2**30, record.get("peak_device_memory_bytes")
    return {
        "memory": f"{record['peak_memory_bytes'] / gib:.2f} GiB" + (f", {device / gib:.2f} GiB on a device" if device else ""),
        "model": f"{record['parameters']:,} parameters",
        "on": f"{record['devices']}, {record['cores']} cores (load {record['load']:.1f}), JAX {record['jax']}, Python {record['python']}",
    }


def lines_of(rows: dict[str, str]) -> list[str]:
    """Return the lines of a table of names and values."""
    return [f"  {what:<18}{value}" for what, value in rows.items()]
