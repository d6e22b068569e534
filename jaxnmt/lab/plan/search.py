"""Tries meshes, remat policies and batch sizes, one after the other."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator

from jaxnmt import config as cfg
from jaxnmt.errors import UserError
from jaxnmt.lab.plan.prediction import Prediction, predict
from jaxnmt.lab.plan.topology import Target
from jaxnmt.lab.plan.workload import Lengths

TENSOR = (1, 4)
FSDP = (1, 8, 64)  # the part of each that divides the device count
BATCHES = (1, 2)  # factors of batching.tokens


def candidates(experiment: cfg.Experiment, devices: int) -> Iterator[cfg.Experiment]:
    """Yield every combination that divides the device count; remat only for models that have it."""
    policies = ("none", "dots", "full") if hasattr(experiment.model, "remat") else (None,)
    shared = sorted({math.gcd(fsdp, devices) for fsdp in FSDP})
    for fsdp, tensor, times, policy in itertools.product(shared, TENSOR, BATCHES, policies):
        if devices % (fsdp * tensor):
            continue
        mesh = cfg.Mesh(data=devices // (fsdp * tensor), fsdp=fsdp, tensor=tensor)
        changes = {"mesh": mesh, "batching.tokens": times * experiment.batching.tokens}
        yield cfg.replace(experiment, **changes, **({"model.remat": policy} if policy else {}))


def search(experiment: cfg.Experiment, target: Target, lengths: Lengths, say: Callable[[str], None]) -> list[Prediction]:
    """Return the predictions that fit, fastest first (least memory first if no time is known).

    A policy that recomputes more is tried only if the one before does not fit, a larger batch only if the smaller one fits.

    Raises:
        UserError: no mesh fits the model.
    """
    found: list[Prediction] = []
    refused: dict[tuple, str] = {}
    tried = list(candidates(experiment, len(target.devices)))
    fitting: dict[tuple, bool] = {}
    for number, candidate in enumerate(tried, 1):
        mesh, tokens = dataclasses.astuple(candidate.mesh), candidate.batching.tokens
        smaller = fitting.get((mesh, tokens // 2), True) if tokens > experiment.batching.tokens else True
        if mesh in refused or fitting.get((mesh, tokens)) or not smaller:
            continue
        say(f"{number} of {len(tried)}: {describe(candidate)}")
        try:
            prediction = predict(candidate, target, lengths)
        except UserError as error:  # an axis that does not divide the model
            refused[mesh] = str(error)
            continue
        fitting[mesh, tokens] = prediction.fits
        found += [prediction] if prediction.fits else []
    if not fitting:
        raise UserError(f"no mesh fits the model: {next(iter(refused.values()))}")
    return sorted(found, key=lambda p: (-(p.tokens_per_second or 0), p.largest.memory))


def describe(experiment: cfg.Experiment) -> str:
    """Return the settings of a candidate, as flags."""
    mesh, remat = experiment.mesh, getattr(experiment.model, "remat", None)
    flags = f"--mesh.data {mesh.data} --mesh.fsdp {mesh.fsdp} --mesh.tensor {mesh.tensor} --batching.tokens {experiment.batching.tokens}"
    return flags + (f" --model.remat {remat}" if remat else "")
