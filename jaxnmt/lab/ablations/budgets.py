"""Converts a budget to steps for each variant, and checks that variants are comparable."""

from __future__ import annotations

import json
import pathlib
from typing import NamedTuple

import numpy as np

from jaxnmt import Budget, Experiment, Study, UserError
from jaxnmt.data import identity
from jaxnmt.data.batching import BatchPlan
from jaxnmt.data.prepared import Prepared, cache_folder, prepare
from jaxnmt.data.sources import sources_of
from jaxnmt.io import files
from jaxnmt.lab.ablations.study import Job
from jaxnmt.models.parameters import parameter_count, training_flops
from jaxnmt.models.seq2seq import build_model
from jaxnmt.training.tuning import trained_paths

TOLERANCE = 1 / 20  # of numbers that should be equal
UNLIMITED = 1_000_000_000  # steps of a run with a budget in minutes


class Size(NamedTuple):
    """The cost of a variant.

    Attributes:
        parameters: of the model, including embeddings and output layer.
        flops: of training, per target token (including the source tokens that come with it).
        tokens: target tokens per epoch, including EOS; approximate for a mixture.
        epoch_steps: batches per epoch.
    """

    parameters: int
    flops: float
    tokens: int
    epoch_steps: int

    def steps(self, budget: Budget) -> int:
        """Return the steps that a budget pays for, at least one; `UNLIMITED` for a budget in minutes."""
        if budget.unit == "minutes":
            return UNLIMITED
        of_an_epoch = {"steps": self.epoch_steps, "epochs": 1, "tokens": self.tokens, "flops": self.flops * self.tokens}
        return max(1, round(budget.amount / of_an_epoch[budget.unit] * self.epoch_steps))


def measure(study: Study, folder: pathlib.Path) -> dict[str, Size]:
    """Return the size of each variant. Its data is prepared first, once for variants that share it.

    Raises:
        UserError: parameters or tokens per step differ by more than the study allows; or the data cannot be read.
    """
    sizes = {name: _size(experiment, folder / "tokenizers" / Job(name, 0).name) for name, experiment in study.variants.items()}
    if not study.unequal_parameters:
        _equal({name: size.parameters for name, size in sizes.items()}, "parameters", "unequal_parameters=True")
    if "steps" in study.units and not study.unequal_tokens:
        tokens = {name: round(size.tokens / size.epoch_steps) for name, size in sizes.items()}
        _equal(tokens, "target tokens in a step", 'unequal_tokens=True, or give the budget in "tokens",')
    return sizes


def _equal(numbers: dict[str, int], what: str, otherwise: str) -> None:
    """Raise UserError if variants differ too much from the first one."""
    parent, first = next(iter(numbers.items()))
    unequal = ", ".join(f"{name} {number:,}" for name, number in numbers.items() if abs(number - first) > TOLERANCE * first)
    if unequal:
        raise UserError(f"{parent} has {first:,} {what}, but {unequal}: make them equal within 5 %, or set {otherwise} in the study")


def _size(experiment: Experiment, tokenizer_folder: pathlib.Path) -> Size:
    data = prepare(experiment, tokenizer_folder, say=lambda line: None)
    _same_text(experiment, data, tokenizer_folder)
    source, target = data.tokenizer.source_vocab_size, data.tokenizer.target_vocab_size
    model = build_model(experiment.model, source, target, experiment.task)
    source_tokens, target_tokens = _epoch_tokens(data)
    flops = training_flops(model, source_tokens / target_tokens, 1, trained_paths(experiment.training, model))
    return Size(parameter_count(model.shapes), flops, target_tokens, _plan(experiment, data).steps_per_epoch)


def _same_text(experiment: Experiment, data: Prepared, folder: pathlib.Path) -> None:
    """Raise UserError if the text differs from the one that a variant's runs started with, as recorded in `folder`."""
    tests = [source.fingerprint() for source in sources_of(experiment, "test", cache_folder(experiment.data))]
    before, now = identity.read(folder), data.fingerprints | {"test": tests}
    if before and not (identity.same(before, now) and before["test"] == tests):
        raise UserError(f"{folder}: text or tokenizer is not what its runs began with: restore it, or choose another folder with --folder")
    files.write(folder / identity.RECORD, json.dumps(now, indent=2, sort_keys=True))


def _epoch_tokens(data: Prepared) -> tuple[int, int]:
    """Return source and target tokens per epoch, including EOS: of as many pairs as there are, sampled from the corpora by weight."""
    pairs, weights = sum(map(len, data.train)), np.array(data.weights) / sum(data.weights)
    sides = [[corpus.source.lengths for corpus in data.train], [corpus.target.lengths for corpus in data.train]]
    source, target = (round(pairs * float(weights @ [lengths.mean() + 1 for lengths in side])) for side in sides)
    return source, target


def _plan(experiment: Experiment, data: Prepared) -> BatchPlan:
    return BatchPlan([corpus.lengths for corpus in data.train], data.weights, experiment)
