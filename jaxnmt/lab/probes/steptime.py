"""The cost of a training step against length: batches without padding, S = T = L, with the same number of tokens for every L.

A recurrent model goes through a batch of R rows in L sequential steps, each a product of R rows; a Transformer goes through all R·L
positions at once. With constant tokens R falls as L grows: the recurrent model's products get narrow, and the device idles.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from jaxnmt import Experiment
from jaxnmt.data.packing import Shape, rows_for
from jaxnmt.lab import figures
from jaxnmt.lab.laws.subject import FIRST_WORD, Practice
from jaxnmt.lab.options import Steptime, Subject
from jaxnmt.models.parameters import training_flops
from jaxnmt.models.seq2seq import build_model
from jaxnmt.parallel.log import say
from jaxnmt.parallel.sharding import make_mesh, num_shards, to_mesh
from jaxnmt.training.metrics import peak_flops

VOCABULARY = 8000
LEAST = 3  # timed steps


class Timing(NamedTuple):
    """A row of the CSV.

    Attributes:
        step_s: the median step; `low_s` and `high_s` the quartiles.
        utilisation: floating-point operations of `models.parameters.training_flops` (without attention's own products) as a share of what
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


def measure(models: Mapping[str, Subject], options: Steptime) -> list[Timing]:
    """Time each model at each length, with dropout, the run's own compiled step and the default optimizer.

    Args:
        models: by label.
        options: a compiled step is repeated at least `LEAST` times.
    """
    timings = []
    for label, subject in models.items():
        model = build_model(subject.model, VOCABULARY, VOCABULARY)
        for length in sorted(set(options.lengths)):
            times, shape = _time(model, Experiment(model=subject.model), length, options)
            low, middle, high = statistics.quantiles(times, n=4)
            count = shape.rows * length
            share = training_flops(model, count, count) / middle / peak_flops()
            timings.append(Timing(label, length, shape.rows, middle, low, high, count / middle, share, len(times)))
            say(f"{label}, length {length}: {1000 * middle:,.1f} ms a step")
    return timings


def _time(model, experiment: Experiment, length: int, options: Steptime) -> tuple[list[float], Shape]:
    """Return the duration of each step, and the batch's shape."""
    shape = Shape(rows_for(options.tokens, length, num_shards("B", make_mesh(experiment.mesh))), length, length)
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
            end = time.perf_counter() + options.run_time
    return times[1:], shape  # the first step is slower: it allocates memory


def report(timings: Sequence[Timing]) -> figures.Report:
    """Return charts and numbers, by the suffix of their files, and a table with one row per model and length.

    The bands span the quartiles.
    """
    seconds: dict[str, list[tuple[float, ...]]] = {}
    shares: dict[str, list[tuple[float, ...]]] = {}
    rows = []
    for t in timings:
        seconds.setdefault(t.model, []).append((t.length, t.step_s, t.low_s, t.high_s))
        low, high = t.utilisation / (t.high_s / t.step_s), t.utilisation / (t.low_s / t.step_s)
        shares.setdefault(t.model, []).append((t.length, t.utilisation, low, high))
        rate = f"{t.target_tokens_per_s:,.0f}"
        rows.append((f"{t.model}, {t.length}", f"{t.rows}", f"{1000 * t.step_s:,.1f}", rate, f"{t.utilisation:.1%}"))
    files = {".csv": figures.to_csv(Timing._fields, timings)}
    for suffix, title, y, curves in (
        (".svg", "Training step, by length", "seconds a step", seconds),
        ("-utilisation.svg", "Utilisation in training, by length", "share of the device's peak rate", shares),
    ):
        lines = {model: figures.line(points) for model, points in curves.items()}
        files[suffix] = figures.chart(lines, title, "source and target length L, tokens", y, log_x=True)
    note = f"{jax.device_count()} {jax.devices()[0].device_kind}; medians of at least {LEAST} steps."
    header = ("L", "rows", "ms a step", "target tokens/s", "utilisation")
    return files, figures.Table("Training steps, S = T = L", header, rows, note)
