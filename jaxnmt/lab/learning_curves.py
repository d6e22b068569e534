"""Learning curves of runs, from their metrics.jsonl."""

from __future__ import annotations

import itertools
import math
import pathlib
from collections.abc import Mapping

import numpy as np

from jaxnmt import UserError
from jaxnmt.lab import figures
from jaxnmt.lab.options import Curves
from jaxnmt.runs.directory import read_metrics

X = {"epoch": "epoch", "step": "step", "tokens": "target tokens trained on", "minutes": "minutes of training"}
Y = {"bleu": "validation BLEU", "loss": "validation loss, nats a token"}


def report(runs: Mapping[str, pathlib.Path], options: Curves) -> dict[str, str]:
    """Return a chart of runs and its numbers, by the suffix of their files: validation scores against the training done until then.

    Minutes exclude compiling, validating and saving.

    Raises:
        UserError: a run has no validation with this metric yet.
    """
    lines = {label: _curve(run, options) for label, run in runs.items()}
    chart = figures.chart(lines, "Learning curves", X[options.against], Y[options.metric])
    return {".svg": chart, ".csv": figures.lines_csv(lines)}


def _curve(run: pathlib.Path, options: Curves) -> figures.Line:
    """Return a run's curve. What was trained until a validation is interpolated between logged steps."""
    records = read_metrics(run, "train")
    steps = [record["step"] for record in records]
    trained = {
        "epoch": [record["epoch"] for record in records],
        "step": steps,
        "tokens": [record["target_tokens"] for record in records],
        "minutes": itertools.accumulate(record["timing"]["seconds"] / 60 for record in records),
    }[options.against]
    validations = [(record["step"], record.get(options.metric)) for record in read_metrics(run, "validation")]
    scores = [(step, y) for step, y in validations if y is not None and math.isfinite(y)]
    if not scores:
        raise UserError(f"{run} has no validation with a {options.metric} yet, so there is no curve: train on, or choose another --metric")
    at = np.interp([step for step, _ in scores], [0, *steps], [0, *trained])
    return figures.line([(float(x), y, y, y) for x, (_, y) in zip(at, scores, strict=True)])
