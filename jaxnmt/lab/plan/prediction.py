"""A config on a target: its programs compiled, and what follows for the run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from jaxnmt import config as cfg
from jaxnmt.data.packing import Shape
from jaxnmt.decoding.translator import output_limit
from jaxnmt.lab.plan import compiled
from jaxnmt.lab.plan.compiled import Compiled
from jaxnmt.lab.plan.estimate import Estimate, estimate
from jaxnmt.lab.plan.minimum import least_sent
from jaxnmt.lab.plan.topology import Target
from jaxnmt.lab.plan.workload import Lengths, Workload
from jaxnmt.models.accounting import parameter_count, training_flops
from jaxnmt.models.seq2seq import build_model
from jaxnmt.parallel.sharding import make_mesh

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a run would be like.

    Attributes:
        programs: the training step of each shape.
        times: of each; None where the chip's rates are not known or the program does not fit.
        parameters: how many the model has.
        model_flops: of the mean step: 6 for each weight and token, whatever else is computed.
    """

    experiment: cfg.Experiment
    target: Target
    mesh: dict[str, int]
    workload: Workload
    programs: tuple[Compiled, ...]
    times: tuple[Estimate | None, ...]
    parameters: int
    model_flops: float

    @property
    def fits(self) -> bool:
        """Whether every program does."""
        return all(program.fits for program in self.programs)

    @property
    def largest(self) -> Compiled:
        """The program that needs most memory."""
        return max(self.programs, key=lambda program: program.memory)

    @property
    def least_sent(self) -> float | None:
        """Bytes that a device must send in the mean step; known for models with the settings of a Transformer."""
        model = self.experiment.model
        if not hasattr(model, "mlp_dim") or len(self.target.devices) == 1:
            return None
        return sum(share.share * least_sent(model, self.parameters, self.mesh, share.shape) for share in self.workload.shares)

    @property
    def step_seconds(self) -> float | None:
        """Of the mean step."""
        if any(time is None for time in self.times):
            return None
        return sum(share.share * time.seconds for share, time in zip(self.workload.shares, self.times, strict=True) if time)

    @property
    def target_tokens(self) -> float:
        """Of the mean step."""
        return sum(share.share * share.target_tokens for share in self.workload.shares)

    @property
    def tokens_per_second(self) -> float | None:
        """Target tokens, as `train` and `bench` count them."""
        return self.target_tokens / self.step_seconds if self.step_seconds else None

    @property
    def utilisation(self) -> float | None:
        """Model FLOP/s as a share of all chips' peak."""
        peak = (self.target.chip.flops or 0) * len(self.target.devices)
        return self.model_flops / self.step_seconds / peak if self.step_seconds and peak else None

    @property
    def hours(self) -> float | None:
        """Of all steps; without validation, checkpoints and waiting for input."""
        return self.experiment.training.steps * self.step_seconds / 3600 if self.step_seconds else None


def predict(experiment: cfg.Experiment, target: Target, lengths: Lengths, say: Say = lambda line: None) -> Prediction:
    """Compile the training step of every shape for a target.

    Raises:
        UserError: the mesh does not fit the devices or the model.
    """
    mesh = make_mesh(experiment.mesh, target.devices)
    workload = lengths.workload(experiment, mesh)
    vocabularies = workload.source_vocab, workload.target_vocab
    programs = []
    for share in workload.shares:
        rows, source, to = share.shape
        say(f"compiling {rows} rows x {source} source x {to} target positions for {target.name} ...")
        programs.append(compiled.training(experiment, target, vocabularies, share.shape))
    model = build_model(experiment.model, *vocabularies)
    tokens = [sum(share.share * getattr(share, side) for share in workload.shares) for side in ("source_tokens", "target_tokens")]
    return Prediction(
        experiment=experiment,
        target=target,
        mesh=dict(mesh.shape),
        workload=workload,
        programs=tuple(programs),
        times=tuple(estimate(program, target) if program.fits else None for program in programs),
        parameters=parameter_count(model.shapes),
        model_flops=training_flops(model, *tokens),
    )


def decoding(experiment: cfg.Experiment, target: Target, lengths: Lengths) -> tuple[Compiled, Estimate | None]:
    """The search for as many of the longest sentences as are translated together, and its time."""
    source, settings = experiment.data.max_length, experiment.decoding
    shape = Shape(settings.batch_size, source, output_limit(source, settings))
    program = compiled.decoding(experiment, target, lengths.vocabularies, shape)
    return program, estimate(program, target) if program.fits else None
