"""Learning curves of runs, from what they wrote down while they trained."""

from __future__ import annotations

import itertools
import math
import pathlib
from typing import Literal

import numpy as np

from jaxnmt.errors import UserError
from jaxnmt.lab.figures import Line
from jaxnmt.runs.directory import read_metrics

Against = Literal["epoch", "step", "tokens", "minutes"]
Metric = Literal["bleu", "loss"]
X = {"epoch": "epoch", "step": "step", "tokens": "target tokens trained on", "minutes": "minutes of training"}
Y = {"bleu": "validation BLEU", "loss": "validation loss, nats a token"}


def curve(run: pathlib.Path, against: Against, metric: Metric) -> Line:
    """A run's validations: each one's score, over what had been trained by then. Minutes leave out compiling, validating and saving.

    Raises:
        UserError: the run has no validation with this metric yet.
    """
    trained = _trained(run, against)
    points = [(trained(record["step"]), record[metric]) for record in read_metrics(run, "validation") if _is_number(record.get(metric))]
    if not points:
        raise UserError(f"{run} has no validation with a {metric} yet: there is no curve to draw")
    x, y = (list(values) for values in zip(*points, strict=True))
    return Line(x, y, y, y)


def _trained(run: pathlib.Path, against: Against):
    """What had been trained at a step: the line between the two nearest that were written down."""
    records = read_metrics(run, "train")
    steps = [0, *(record["step"] for record in records)]
    values = {
        "epoch": [record["epoch"] for record in records],
        "step": steps[1:],
        "tokens": [record["target_tokens"] for record in records],
        "minutes": list(itertools.accumulate(record["timing"]["seconds"] / 60 for record in records)),
    }[against]
    return lambda step: float(np.interp(step, steps, [0, *values]))


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
