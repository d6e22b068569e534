"""The cost of a training step against length: batches without padding, S = T = L, with the same number of tokens for every L.

A recurrent model goes through a batch of R rows in L sequential steps, each a product of R rows; a Transformer goes through all R·L
positions at once. With constant tokens R falls as L grows: the recurrent model's products get narrow, and the device idles.
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
from jaxnmt.lab import figures
from jaxnmt.lab.laws.practice import Practice
from jaxnmt.lab.laws.subject import FIRST_WORD
from jaxnmt.lab.tables import Table
from jaxnmt.models.seq2seq import build_model, training_flops
from jaxnmt.parallel.sharding import make_mesh, num_shards, to_mesh
from jaxnmt.training.metrics import peak_flops

VOCABULARY = 8000
LEAST = 3  # timed steps
X = "source and target length L, tokens"
TITLES = {"time": "Training step, by length", "utilisation": "Utilisation in training, by length"}
Y = {"time": "seconds a step", "utilisation": "share of the device's peak rate"}


class Timing(NamedTuple):
    """A row of the CSV.

    Attributes:
        step_s: the median step; `low_s` and `high_s` the quartiles.
        utilisation: floating-point operations of `models.accounting.training_flops` (without attention's own products) as a share of what
            the device could do in that time (`training.metrics.peak_flops`).
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
    """Time each model at each length, with dropout, the run's own compiled step and the default optimizer.

    Args:
        models: configurations, by label.
        tokens: target tokens of a batch, approximately.
        seconds: how long to repeat a compiled step; at least `LEAST` times.
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
    """Return the duration of each step, and the batch's shape."""
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
    return times[1:], shape  # the first step is slower: it allocates memory


def lines(timings: Sequence[Timing], kind: str) -> dict[str, figures.Line]:
    """Return the curves of a chart, by model; `kind`: "time" or "utilisation". The band spans the quartiles."""
    points: dict[str, list[tuple[float, ...]]] = {}
    for t in timings:
        values = (t.step_s, t.low_s, t.high_s)
        if kind == "utilisation":
            values = (t.utilisation, t.utilisation / (t.high_s / t.step_s), t.utilisation / (t.low_s / t.step_s))
        points.setdefault(t.model, []).append((float(t.length), *values))
    return {model: figures.line(each) for model, each in points.items()}


def table(timings: Sequence[Timing]) -> Table:
    """Return one row per model and length."""
    rows = [
        (f"{t.model}, {t.length}", f"{t.rows}", f"{1000 * t.step_s:,.1f}", f"{t.target_tokens_per_s:,.0f}", f"{t.utilisation:.1%}")
        for t in timings
    ]
    note = f"{jax.device_count()} {jax.devices()[0].device_kind}; medians of at least {LEAST} steps."
    return Table("Training steps, S = T = L", ("L", "rows", "ms a step", "target tokens/s", "utilisation"), tuple(rows), note)
