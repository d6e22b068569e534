"""A config on a target: its programs compiled, and the speed and duration of the run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

from jaxnmt import config as cfg
from jaxnmt.data.packing import Shape
from jaxnmt.decoding.translator import output_limit
from jaxnmt.lab.plan import compiled
from jaxnmt.lab.plan.compiled import Compiled
from jaxnmt.lab.plan.estimate import Estimate, estimate
from jaxnmt.lab.plan.minimum import least_sent
from jaxnmt.lab.plan.topology import Target
from jaxnmt.lab.plan.workload import Lengths, Share
from jaxnmt.models.seq2seq import build_model, parameter_count, training_flops
from jaxnmt.parallel.sharding import make_mesh

Say = Callable[[str], None]


class PlannedStep(NamedTuple):
    """The training step of one batch shape; `time` is None if the chip's rates are unknown or the program does not fit."""

    share: Share
    program: Compiled
    time: Estimate | None


@dataclasses.dataclass(frozen=True)
class Prediction:
    """A predicted run.

    Attributes:
        batches: the source of the batch shapes, for readers.
        steps: one for each batch shape.
        parameters: number of the model's parameters.
        model_flops: of the mean step: 6 per weight and token, without recomputation.
    """

    experiment: cfg.Experiment
    target: Target
    mesh: dict[str, int]
    batches: str
    steps: tuple[PlannedStep, ...]
    parameters: int
    model_flops: float

    def mean(self, of: Callable[[PlannedStep], float]) -> float:
        """Return the mean over steps, weighted by their shares."""
        return sum(step.share.share * of(step) for step in self.steps)

    @property
    def fits(self) -> bool:
        """Whether every program fits."""
        return all(step.program.fits for step in self.steps)

    @property
    def largest(self) -> Compiled:
        """The program that needs most memory."""
        return max((step.program for step in self.steps), key=lambda program: program.memory)

    @property
    def least_sent(self) -> float | None:
        """Bytes that a device must send in the mean step; known for models with the settings of a Transformer."""
        model = self.experiment.model
        if not hasattr(model, "mlp_dim") or len(self.target.devices) == 1:
            return None
        return self.mean(lambda step: least_sent(model, self.parameters, self.mesh, step.share.shape))

    @property
    def step_seconds(self) -> float | None:
        """Duration of the mean step; None if a time is unknown."""
        return self.mean(lambda step: step.time.seconds if step.time else 0.0) if all(step.time for step in self.steps) else None

    @property
    def tokens_per_second(self) -> float | None:
        """Target tokens, as `train` and `bench` count them."""
        return self.mean(lambda step: step.share.target_tokens) / self.step_seconds if self.step_seconds else None

    @property
    def utilisation(self) -> float | None:
        """Model FLOP/s as a share of all chips' peak."""
        peak = (self.target.chip.flops or 0) * len(self.target.devices)
        return self.model_flops / self.step_seconds / peak if self.step_seconds and peak else None

    @property
    def hours(self) -> float | None:
        """Duration of all steps, without validation, checkpoints and waiting for input."""
        return self.experiment.training.steps * self.step_seconds / 3600 if self.step_seconds else None


def predict(experiment: cfg.Experiment, target: Target, lengths: Lengths, say: Say = lambda line: None) -> Prediction:
    """Compile the training step of every batch shape for a target.

    Raises:
        UserError: the mesh does not fit the devices or the model.
    """
    mesh = make_mesh(experiment.mesh, target.devices)
    steps = []
    for share in lengths.shares(experiment, mesh):
        rows, source, to = share.shape
        say(f"compiling {rows} rows x {source} source x {to} target positions for {target.name} ...")
        program = compiled.training(experiment, target, lengths.vocabularies, share.shape)
        steps.append(PlannedStep(share, program, estimate(program, target) if program.fits else None))
    model = build_model(experiment.model, *lengths.vocabularies)
    tokens = [sum(step.share.share * getattr(step.share, side) for step in steps) for side in ("source_tokens", "target_tokens")]
    return Prediction(
        experiment=experiment,
        target=target,
        mesh=dict(mesh.shape),
        batches=lengths.origin,
        steps=tuple(steps),
        parameters=parameter_count(model.shapes),
        model_flops=training_flops(model, *tokens),
    )


def decoding(experiment: cfg.Experiment, target: Target, lengths: Lengths) -> tuple[Compiled, Estimate | None]:
    """Compile the search for a full batch of the longest sentences. Returns the program and its time."""
    source, settings = experiment.data.max_length, experiment.decoding
    shape = Shape(settings.batch_size, source, output_limit(source, settings))
    program = compiled.decoding(experiment, target, lengths.vocabularies, shape)
    return program, estimate(program, target) if program.fits else None
