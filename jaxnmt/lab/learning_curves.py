"""Learning curves of runs, from their metrics.jsonl."""

from __future__ import annotations

import itertools
import math
import pathlib
from typing import Literal

import numpy as np

from jaxnmt.errors import UserError
from jaxnmt.lab.figures import Line, line
from jaxnmt.runs.directory import read_metrics

Against = Literal["epoch", "step", "tokens", "minutes"]
Metric = Literal["bleu", "loss"]
X = {"epoch": "epoch", "step": "step", "tokens": "target tokens trained on", "minutes": "minutes of training"}
Y = {"bleu": "validation BLEU", "loss": "validation loss, nats a token"}


def curve(run: pathlib.Path, against: Against, metric: Metric) -> Line:
    """Return a run's validation scores against the training done until then. Minutes exclude compiling, validating and saving.

    Raises:
        UserError: the run has no validation with this metric yet.
    """
    trained, records = _trained(run, against), read_metrics(run, "validation")
    scores = [(trained(record["step"]), y) for record in records if (y := record.get(metric)) is not None and math.isfinite(y)]
    if not scores:
        raise UserError(f"{run} has no validation with a {metric} yet, so there is no curve: train on, or choose another --metric")
    return line([(x, y, y, y) for x, y in scores])


def _trained(run: pathlib.Path, against: Against):
    """Return a function from a step to the training done until then, interpolated between logged steps."""
    records = read_metrics(run, "train")
    steps = [0, *(record["step"] for record in records)]
    values = {
        "epoch": [record["epoch"] for record in records],
        "step": steps[1:],
        "tokens": [record["target_tokens"] for record in records],
        "minutes": list(itertools.accumulate(record["timing"]["seconds"] / 60 for record in records)),
    }[against]
    return lambda step: float(np.interp(step, steps, [0, *values]))
