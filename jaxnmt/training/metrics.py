"""Write training metrics to metrics.jsonl and TensorBoard; hardware peak rates for utilisation."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import tempfile
import time
import timeit
from pathlib import Path

import jax
import jax.numpy as jnp

from jaxnmt.io import files
from jaxnmt.parallel.distributed import is_leader
from jaxnmt.runs import directory

# Dense bf16 matrix-product rates of one device, FLOP/s, from the makers' data sheets.
_PEAK = {
    **{"TPU v4": 275e12, "TPU v5 lite": 197e12, "TPU v5e": 197e12, "TPU v5p": 459e12, "TPU v5": 459e12},
    **{"TPU v6 lite": 918e12, "TPU v6e": 918e12, "TPU7x": 1153.5e12},
    **{"A100": 312e12, "H100": 989e12, "H200": 989e12, "B200": 2250e12},
    **{"A10": 125e12, "A10G": 70e12, "L4": 121e12, "L40": 181e12, "L40S": 362e12},
}


@functools.cache
def peak_flops() -> float:
    """Return the peak matrix-product rate of all devices together, in FLOP/s.

    Taken from data sheets where the device is known, otherwise measured (float32, 1024³, best of five). Simulated CPU devices share the
    same cores and count as one.
    """
    kind = jax.devices()[0].device_kind
    if known := max((name for name in _PEAK if name in kind), key=len, default=""):  # "A100", which "A10" is in too
        return _PEAK[known] * jax.device_count()
    x = jnp.ones((1024, 1024), jnp.float32)
    product = jax.jit(jnp.matmul)
    product(x, x).block_until_ready()
    seconds = min(timeit.repeat(lambda: product(x, x).block_until_ready(), number=1, repeat=5))
    return 2 * 1024**3 / seconds * (1 if jax.default_backend() == "cpu" else jax.device_count())


def perplexity(nll: float) -> float:
    """Return exp(nll): infinite instead of an overflow error, NaN for NaN."""
    return math.inf if nll >= 700 else math.exp(nll)


class MetricsLog(contextlib.ExitStack):
    """Writes `metrics.jsonl`, one record a line, and TensorBoard events. Both are cut back to the step that training resumes from.

    The field `timing` of a record holds what differs between machines and sessions; all other fields are exact. Non-finite values (the
    loss, if all steps were skipped) are written as null, because JSON has no NaN, and are left out of TensorBoard. Only process 0 writes.

    A file in a bucket cannot be appended to. The files of a run in a bucket grow in a local folder and are copied to the bucket once a
    minute, after every validation and before every checkpoint.
    """

    def __init__(self, run: Path, step: int, tensorboard: bool):
        super().__init__()  # what is entered last is closed first
        self._run = self._folder = run
        if not is_leader():
            return
        kept = "".join(json.dumps(record) + "\n" for record in directory.read_metrics(run) if record["step"] <= step)
        files.write(run / directory.METRICS, kept)
        if files.in_bucket(run):
            self._folder = Path(self.enter_context(tempfile.TemporaryDirectory(prefix="jaxnmt-")))
            self.callback(self.publish)
            (self._folder / directory.METRICS).write_text(kept, encoding="utf-8")
        self._published = time.monotonic()
        self._file = self.enter_context((self._folder / directory.METRICS).open("a", encoding="utf-8"))
        self._writer = None
        if tensorboard:
            from tensorboardX import SummaryWriter

            self._writer = self.enter_context(SummaryWriter(str(self._folder / "tensorboard"), purge_step=step + 1))

    def write(self, kind: str, step: int, values: dict, timing: dict | None = None) -> None:
        """Write one record. It is on disk when this returns (in a bucket: with the next copy)."""
        if not is_leader():
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
        """Copy the local folder to the bucket, if the run is in one."""
        if self._folder == self._run:
            return
        for file in self._folder.rglob("*"):
            if file.is_file():
                there = self._run / file.relative_to(self._folder)
                there.parent.mkdir(parents=True, exist_ok=True)
                there.write_bytes(file.read_bytes())
        self._published = time.monotonic()


def _finite(values: dict) -> dict:
    """Return the values with None for non-finite numbers and Python numbers for NumPy scalars."""
    numbers = {name: float(value) for name, value in values.items() if not isinstance(value, str | list | bool | int | None)}
    return values | {name: number if math.isfinite(number) else None for name, number in numbers.items()}
