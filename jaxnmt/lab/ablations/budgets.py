"""What a budget comes to in steps, variant by variant, and whether variants may be compared at all."""

from __future__ import annotations

import json
import pathlib
from typing import NamedTuple

import numpy as np

from jaxnmt.config import Experiment
from jaxnmt.data import identity
from jaxnmt.data.batching import BatchPlan
from jaxnmt.data.prepared import Prepared, cache_folder, prepare
from jaxnmt.data.sources import open_sources
from jaxnmt.errors import UserError
from jaxnmt.io import whole_files
from jaxnmt.lab.ablations.study import Budget, Job, Study
from jaxnmt.models.accounting import parameter_count, training_flops
from jaxnmt.models.seq2seq import build_model

LIKENESS = 1 / 20  # by how much numbers may differ and still be called equal
UNLIMITED = 1_000_000_000  # steps of a run that a clock ends


class Size(NamedTuple):
    """What a variant costs.

    Attributes:
        parameters: numbers in the model, embeddings and output layer counted.
        flops: of training, for each target token (and the source tokens that come with it).
        tokens: target tokens of an epoch, end tokens counted; of a mixture, about.
        epoch_steps: batches of an epoch.
    """

    parameters: int
    flops: float
    tokens: int
    epoch_steps: int

    def steps(self, budget: Budget) -> int:
        """Steps that a budget pays for: at least one; of a budget in minutes, more than there is time for."""
        if budget.unit == "minutes":
            return UNLIMITED
        epochs = {
            "steps": budget.amount / self.epoch_steps,
            "epochs": budget.amount,
            "tokens": budget.amount / self.tokens,
            "flops": budget.amount / (self.flops * self.tokens),
        }[budget.unit]
        return max(1, round(epochs * self.epoch_steps))


def measure(study: Study, folder: pathlib.Path) -> dict[str, Size]:
    """The size of each variant; its data are prepared on the way, once for those that share them.

    Raises:
        UserError: parameters, or the tokens of a step, differ too much, and the study does not allow it; or what reading data raises.
    """
    sizes = {name: _size(experiment, folder / "tokenizers" / Job(name, 0).name) for name, experiment in study.variants.items()}
    if not study.unequal_parameters:
        _equal({name: size.parameters for name, size in sizes.items()}, "parameters", "unequal_parameters=True")
    if "steps" in study.units and not study.unequal_tokens:
        tokens = {name: round(size.tokens / size.epoch_steps) for name, size in sizes.items()}
        _equal(tokens, "target tokens in a step", 'unequal_tokens=True, or give the budget in "tokens",')
    return sizes


def _equal(numbers: dict[str, int], what: str, otherwise: str) -> None:
    """Refuse variants that differ from the first one in what a study holds equal."""
    parent, first = next(iter(numbers.items()))
    unequal = {name: number for name, number in numbers.items() if abs(number - first) > LIKENESS * first}
    if unequal:
        told = ", ".join(f"{name} {number:,}" for name, number in unequal.items())
        raise UserError(
            f"{parent} has {first:,} {what}, but {told}: bring them within a twentieth of each other, or say {otherwise} in the study"
        )


def _size(experiment: Experiment, tokenizer_folder: pathlib.Path) -> Size:
    data = prepare(experiment, tokenizer_folder, say=lambda line: None)
    _same_text(experiment, data, tokenizer_folder)
    source, target = data.tokenizer.source_vocab_size, data.tokenizer.target_vocab_size
    model = build_model(experiment.model, source, target)
    plan = _plan(experiment, data)
    source_tokens, target_tokens = _epoch_tokens(data)
    flops = training_flops(model, source_tokens / target_tokens, 1)
    return Size(parameter_count(model.shapes), flops, target_tokens, plan.steps_per_epoch)


def _same_text(experiment: Experiment, data: Prepared, folder: pathlib.Path) -> None:
    """Refuse other text, or test sentences, than a variant's runs began with; `folder` remembers."""
    tests = [source.fingerprint() for source in open_sources(experiment.data.test, "data.test", cache_folder(experiment.data))]
    before, now = identity.read(folder), data.fingerprints | {"test": tests}
    if before and not (identity.same(before, now) and before["test"] == tests):
        raise UserError(
            f"the text, tokenizer or test sentences of this study are not what its runs began with ({folder / identity.RECORD} tells): "
            "restore the files, or choose another folder with --folder"
        )
    whole_files.write(folder / identity.RECORD, json.dumps(now, indent=2, sort_keys=True))


def _epoch_tokens(data: Prepared) -> tuple[int, int]:
    """Of source and target, end tokens counted: of as many pairs as there are in all, drawn from the corpora by their weights."""
    pairs, weights = sum(map(len, data.train)), np.array(data.weights) / sum(data.weights)
    sides = [[corpus.source_lengths for corpus in data.train], [corpus.target_lengths for corpus in data.train]]
    source, target = (round(pairs * float(weights @ [lengths.mean() + 1 for lengths in side])) for side in sides)
    return source, target


def _plan(experiment: Experiment, data: Prepared) -> BatchPlan:
    return BatchPlan(
        [(corpus.source_lengths, corpus.target_lengths) for corpus in data.train],
        data.weights,
        experiment.batching,
        experiment.training.seed,
        experiment.data.max_length,
        row_multiple=experiment.training.accumulation,
    )
