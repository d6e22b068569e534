"""What a budget comes to in steps, variant by variant, and whether variants may be compared at all."""

from __future__ import annotations

import pathlib
from typing import NamedTuple

import jax

from jaxnmt.analysis.ablations.study import Budget, Job, Study
from jaxnmt.config import Experiment, UserError
from jaxnmt.data.batching import BatchPlan
from jaxnmt.data.prepared import Prepared, prepare
from jaxnmt.models.accounting import parameter_count, training_flops
from jaxnmt.models.seq2seq import build_model

LIKENESS = 1 / 20  # by how much parameters may differ and still be called equal


class Size(NamedTuple):
    """What a variant costs.

    Attributes:
        parameters: numbers in the model, embeddings and output layer counted.
        flops: of training, for each target token (and the source tokens that come with it).
        tokens: target tokens of an epoch, end tokens counted.
        epoch_steps: batches of an epoch.
    """

    parameters: int
    flops: float
    tokens: int
    epoch_steps: int

    def steps(self, budget: Budget) -> int:
        """Steps that a budget pays for: at least one."""
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
        UserError: parameters differ too much, and the study does not allow it; or what reading data raises.
    """
    sizes = {name: _size(experiment, folder / "tokenizers" / Job(name, 0).name) for name, experiment in study.variants.items()}
    counts = {name: size.parameters for name, size in sizes.items()}
    parent = counts[study.parent]
    unequal = {name: count for name, count in counts.items() if abs(count - parent) > LIKENESS * parent}
    if unequal and not study.unequal_parameters:
        told = ", ".join(f"{name} {count:,}" for name, count in unequal.items())
        raise UserError(
            f"{study.parent} has {parent:,} parameters, but {told}: bring them within a twentieth of each other, "
            "or say unequal_parameters=True in the study"
        )
    return sizes


def _size(experiment: Experiment, tokenizer_folder: pathlib.Path) -> Size:
    data = prepare(experiment, tokenizer_folder, say=lambda line: None)
    source, target = data.tokenizer.source_vocab_size, data.tokenizer.target_vocab_size
    params = jax.eval_shape(build_model(experiment.model, source, target).init, jax.random.key(0))
    plan = _plan(experiment, data)
    source_tokens, target_tokens = (sum(int(side.sum()) + len(side) for side in sides) for sides in _lengths(data))
    return Size(parameter_count(params), training_flops(params, source_tokens / target_tokens, 1), target_tokens, plan.steps_per_epoch)


def _lengths(data: Prepared):
    return [corpus.source_lengths for corpus in data.train], [corpus.target_lengths for corpus in data.train]


def _plan(experiment: Experiment, data: Prepared) -> BatchPlan:
    return BatchPlan(
        [(corpus.source_lengths, corpus.target_lengths) for corpus in data.train],
        data.weights,
        experiment.batching,
        experiment.training.seed,
        experiment.data.max_length,
        row_multiple=experiment.training.accumulation,
    )
