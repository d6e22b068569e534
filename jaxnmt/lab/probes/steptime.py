"""What a training step costs against length: batches without padding, S = T = L, of equally many tokens whatever L is.

A recurrent model goes through a batch of R rows in L steps, one after the other, each a product of R rows; a Transformer through all R·L
positions at once. At equal tokens R falls as L grows: the recurrent model's products get narrow, the device idle.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnmt import config as cfg
from jaxnmt.data.packing import Shape, rows_for
from jaxnmt.lab.figures import Line
from jaxnmt.lab.laws.practice import Practice
from jaxnmt.lab.laws.subject import FIRST_WORD
from jaxnmt.lab.tables import Table
from jaxnmt.models.accounting import training_flops
from jaxnmt.models.seq2seq import build_model
from jaxnmt.parallel.sharding import make_mesh, num_shards, to_mesh
from jaxnmt.training.metrics import peak_flops

VOCABULARY = 8000
LEAST = 3  # steps that are timed
X = "source and target length L, tokens"
TITLES = {"time": "Training step, by length", "utilisation": "Utilisation in training, by length"}
Y = {"time": "seconds a step", "utilisation": "share of the device's peak rate"}


class Timing(NamedTuple):
    """A row of the CSV.

    Attributes:
        step_s: the median step; `low_s` and `high_s` the quartiles.
        utilisation: floating-point operations of `models.accounting.training_flops` (attention's own products left out), as a share of
            what the device could do in that time (`training.metrics.peak_flops`).
    """

    model: str
    length: int
    rows: int
    step_s: float
    low_s: float
    high_s: float
    target_tokens_per_s: float
    utilisation: float
    steps: int


def measure(models: Mapping[str, Any], lengths: Sequence[int], tokens: int, seconds: float) -> Iterator[Timing]:
    """Time each model at each length, dropout and all, with the run's own compiled step and default optimizer.

    Args:
        models: configurations, by label.
        tokens: target tokens of a batch, about.
        seconds: how long to repeat a step, once it is compiled and warm; at least `LEAST` times.
    """
    for label, config in models.items():
        model = build_model(config, VOCABULARY, VOCABULARY)
        for length in lengths:
            times, shape = _time(model, cfg.Experiment(model=config), length, tokens, seconds)
            low, middle, high = statistics.quantiles(times, n=4)
            count = shape.rows * length
            share = training_flops(model, count, count) / middle / peak_flops()
            yield Timing(label, length, shape.rows, middle, low, high, count / middle, share, len(times))


def _time(model, experiment: cfg.Experiment, length: int, tokens: int, seconds: float) -> tuple[list[float], Shape]:
    """Return each step's seconds, and the batch's shape."""
    shape = Shape(rows_for(tokens, length, num_shards("B", make_mesh(experiment.mesh))), length, length)
    practice = Practice(model, experiment, [shape])
    words: np.ndarray = np.random.default_rng(0).integers(FIRST_WORD, VOCABULARY, (shape.rows, length), np.int32)
    names = ("encoder_input_tokens", "decoder_input_tokens", "decoder_target_tokens")
    batch = to_mesh(dict.fromkeys(names, words) | {"decoder_loss_weights": np.ones(words.shape, np.float32)}, practice.mesh)
    state, end = practice.fresh(), float("inf")
    times: list[float] = []
    while len(times) <= LEAST or time.perf_counter() < end:
        begun = time.perf_counter()
        state, metrics = practice.programs(state, shape, batch)
        jax.block_until_ready((state, metrics))
        times.append(time.perf_counter() - begun)
        if len(times) == 1:
            end = time.perf_counter() + seconds
    return times[1:], shape  # the first is the slowest: memory is new


def lines(timings: Sequence[Timing], kind: str) -> dict[str, Line]:
    """The curves of a chart, by model; `kind`: "time" or "utilisation". The band is from quartile to quartile."""
    found: dict[str, Line] = {}
    for timing in timings:
        line = found.setdefault(timing.model, Line([], [], [], []))
        slow, fast = timing.high_s / timing.step_s, timing.low_s / timing.step_s
        values = (timing.step_s, timing.low_s, timing.high_s)
        if kind == "utilisation":
            values = (timing.utilisation, timing.utilisation / slow, timing.utilisation / fast)
        for column, value in zip(line, (float(timing.length), *values), strict=True):
            column.append(value)
    return found


def table(timings: Sequence[Timing]) -> Table:
    """A model and length a row."""
    rows = [
        (
            f"{t.model}, {t.length}",
            str(t.rows),
            f"{1000 * t.step_s:,.1f}",
            f"{t.target_tokens_per_s:,.0f}",
            f"{t.utilisation:.1%}",
        )
        for t in timings
    ]
    note = f"{jax.device_count()} {jax.devices()[0].device_kind}; medians of at least {LEAST} steps."
    return Table("Training steps, S = T = L", ("L", "rows", "ms a step", "target tokens/s", "utilisation"), tuple(rows), note)
