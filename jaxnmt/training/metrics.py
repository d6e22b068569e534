"""What is measured while training, and where it is written: metrics.jsonl and TensorBoard."""

from __future__ import annotations

import functools
import json
import math
import shutil
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp

from jaxnmt.io import files
from jaxnmt.parallel.distributed import is_leader
from jaxnmt.runs import directory as run_directory

# Dense bf16 matrix-product rates of one device, FLOP/s, from the makers' data sheets.
_PEAK = {
    **{"TPU v4": 275e12, "TPU v5 lite": 197e12, "TPU v5e": 197e12, "TPU v5p": 459e12, "TPU v5": 459e12},
    **{"TPU v6 lite": 918e12, "TPU v6e": 918e12, "TPU7x": 1153.5e12},
    **{"A100": 312e12, "H100": 989e12, "H200": 989e12, "B200": 2250e12},
    **{"A10": 125e12, "A10G": 70e12, "L4": 121e12, "L40": 181e12, "L40S": 362e12},
}


@functools.cache
def peak_flops() -> float:
    """Matrix-product rate of all devices together: from data sheets; of others, measured (float32, 1024³, best of five): a CPU's cores
    are one device's, however many devices it plays.
    """
    kind = jax.devices()[0].device_kind
    if known := max((name for name in _PEAK if name in kind), key=len, default=""):  # "A100", which "A10" is in too
        return _PEAK[known] * jax.device_count()
    x = jnp.ones((1024, 1024), jnp.float32)
    product = jax.jit(lambda a, b: a @ b).lower(x, x).compile()
    product(x, x).block_until_ready()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        product(x, x).block_until_ready()
        times.append(time.perf_counter() - start)
    return 2 * 1024**3 / min(times) * (1 if jax.default_backend() == "cpu" else jax.device_count())


def perplexity(nll: float) -> float:
    """exp of a mean negative log-likelihood, infinite rather than an error; of what is no number, none."""
    return math.inf if nll >= 700 else math.exp(nll)


class MetricsLog:
    """`metrics.jsonl`, one record a line, and TensorBoard events; both cut back to the step that training goes on from.

    A record's `timing` holds everything that differs from one machine or session to the next; the rest is exact. What is no finite
    number (the loss of steps that were all skipped) is null there, since JSON has no word for it, and missing in TensorBoard. Of several
    processes, one writes. Nothing can be added to a file in a bucket: those of a run that lies there grow in a folder here and are
    copied there once a minute, with every validation and before every checkpoint.
    """

    def __init__(self, run: Path, step: int, tensorboard: bool):
        self.path = run / run_directory.METRICS
        self._file, self._writer = None, None
        if not is_leader():
            return
        _cut_back(self.path, step)
        self._run = self._folder = run
        if files.in_bucket(run):
            self._folder = Path(tempfile.mkdtemp(prefix="jaxnmt-"))
            if self.path.exists():
                (self._folder / self.path.name).write_text(self.path.read_text(encoding="utf-8"), encoding="utf-8")
        self._published = time.monotonic()
        self._file = (self._folder / self.path.name).open("a", encoding="utf-8")
        if tensorboard:
            from tensorboardX import SummaryWriter

            self._writer = SummaryWriter(str(self._folder / "tensorboard"), purge_step=step + 1)

    def write(self, kind: str, step: int, values: dict, timing: dict | None = None) -> None:
        """One record, on disk when this returns (in a bucket: with the next copy)."""
        if not self._file:
            return
        values, timing = _finite(values), _finite(timing or {})
        record = {"kind": kind, "step": step} | values | ({"timing": timing} if timing else {})
        self._file.write(json.dumps(record, allow_nan=False) + "\n")
        self._file.flush()
        if self._writer:
            for name, value in (values | timing).items():
                if isinstance(value, int | float):
                    self._writer.add_scalar(f"{kind}/{name}", value, step)
            self._writer.flush()
        if kind != "train" or time.monotonic() - self._published > 60:
            self.publish()

    def publish(self) -> None:
        """Copy what is in this computer's folder to where the run lies."""
        if not self._file or self._folder == self._run:
            return
        for file in self._folder.rglob("*"):
            if file.is_file():
                there = self._run / file.relative_to(self._folder)
                there.parent.mkdir(parents=True, exist_ok=True)
                there.write_bytes(file.read_bytes())
        self._published = time.monotonic()

    def close(self) -> None:
        """Let go of the files."""
        for file in filter(None, (self._file, self._writer)):
            file.close()
        self.publish()
        if self._file and self._folder != self._run:
            shutil.rmtree(self._folder, ignore_errors=True)


def _finite(values: dict) -> dict:
    """With None for what is no finite number, and Python's numbers for NumPy's."""
    numbers = {name: float(value) for name, value in values.items() if not isinstance(value, str | list | bool | int | None)}
    return values | {name: number if math.isfinite(number) else None for name, number in numbers.items()}


def _cut_back(path: Path, step: int) -> None:
    """Drop the records after a step, and a last line that was cut off; the file is replaced in one go."""
    if not path.exists():
        return
    kept = [json.dumps(record) + "\n" for record in run_directory.read_metrics(path.parent) if record["step"] <= step]
    files.write(path, "".join(kept))
