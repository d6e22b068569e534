"""A config on a target: its programs compiled, and the speed and duration of the run, estimated; nothing is run."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from jaxnmt import config as cfg
from jaxnmt.data.packing import Shape
from jaxnmt.errors import UserError
from jaxnmt.lab.plan import compiled
from jaxnmt.lab.plan.chips import Target
from jaxnmt.lab.plan.compiled import Compiled
from jaxnmt.lab.plan.timing import sending
from jaxnmt.lab.plan.workload import Lengths, Share
from jaxnmt.models.parameters import parameter_count, training_flops
from jaxnmt.models.seq2seq import build_model
from jaxnmt.parallel.sharding import make_mesh
from jaxnmt.training.tuning import trained_paths

Say = Callable[[str], None]
TENSOR = (1, 4)
FSDP = (1, 8, 64)  # the part of each that divides the device count
BATCHES = (1, 2)  # factors of batching.tokens


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Seconds of one call.

    Attributes:
        arithmetic: matrix products at the chip's peak.
        computing: for TPUs the compiler's estimate of every instruction, plus Pallas kernels at the chip's peak or at the memory's
            bandwidth, whichever is slower. For GPUs ours, in the same way for every kernel (`timing`).
        waiting: collectives during which nothing is computed.
        overlapped: collectives that overlap with computing.
    """

    arithmetic: float
    computing: float
    waiting: float
    overlapped: float

    @property
    def seconds(self) -> float:
        """The whole call: overlapped collectives cost only the time that computing does not hide."""
        return self.waiting + max(self.computing, self.overlapped)


def estimate(program: Compiled, target: Target) -> Estimate | None:
    """Return the time of a call; None if the chip's rates are unknown or the program does not fit."""
    chip, devices = target.chip, len(program.order)
    if not program.fits or not chip.flops or not chip.bandwidth:
        return None
    arithmetic, computing = program.work.flops / devices / chip.flops, program.schedule.total.seconds
    if not chip.clock:
        return Estimate(arithmetic, computing, program.schedule.waiting, program.schedule.overlapped)
    computing += max(program.work.kernel_flops / chip.flops, program.work.kernel_bytes / chip.bandwidth) / devices
    waiting = sum(sending(c, target, program.order) for c in program.collectives if not c.overlapped)
    hidden = [(c.kind, sending(c, target, program.order)) for c in program.collectives if c.overlapped]
    # Permutes between different neighbours use different links at the same time, like a ring in both directions.
    permutes = max((time for kind, time in hidden if kind == "collective-permute"), default=0.0)
    return Estimate(arithmetic, computing, waiting, permutes + sum(time for kind, time in hidden if kind != "collective-permute"))


def least_sent(model: Any, parameters: int, mesh: Mapping[str, int], shape: Shape) -> float:
    """Return the least bytes that a device sends in a Transformer's step, in the computation's dtype.

    Replicas (`data`) all-reduce their share of the gradient: 2 (n - 1) / n of it. Devices that shard parameters (`fsdp`) all-gather them
    and reduce-scatter the gradient: 2 (n - 1) / n, if they keep what they gathered for the backward pass; if layers are scanned or computed
    again, they gather again: 3 (n - 1) / n (Rajbhandari et al. 2020, section 7.2.2). Devices that split layers (`tensor`) all-reduce each
    sublayer's output in the forward pass and its input's gradient in the backward pass: 2 (n - 1) / n of these activations (Shoeybi et al.
    2019, section 3); so do the embeddings, the output layer, and all cross-attentions together for the encoder's states.
    """
    data, fsdp, tensor = (mesh[axis] for axis in ("data", "fsdp", "tensor"))
    width = 2 if model.dtype == "bfloat16" else 4
    local = parameters * width / tensor
    copies = 2 * (data - 1) / data * local / fsdp
    gathers = 2 if model.scan_layers or model.remat != "none" else 1
    shared = (gathers + 1) * (fsdp - 1) / fsdp * local
    rows = shape.rows / (data * fsdp)
    source, target = (rows * length * model.emb_dim * width for length in (shape.source, shape.target))
    encoder = (4 * model.num_encoder_layers + 1) * source  # two sublayers, forward and backward, and the embedding, forward
    decoder = (6 * model.num_decoder_layers + 2) * target + source  # three sublayers, embedding, output layer; encoder's states
    return copies + shared + 2 * (tensor - 1) / tensor * (encoder + decoder)


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
        model_flops: of the mean step, as `training_flops` counts them: without recomputation.
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
    def sent(self) -> float:
        """Bytes that a device sends in the mean step."""
        return self.mean(lambda step: sum(collective.sent for collective in step.program.collectives))

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
    def target_tokens_per_s(self) -> float | None:
        """Target tokens, as `train` and `bench` count them."""
        return self.mean(lambda step: step.share.target_tokens) / self.step_seconds if self.step_seconds else None

    @property
    def utilisation(self) -> float | None:
        """Model FLOP/s as a share of all chips' peak."""
        peak = (self.target.chip.flops or 0) * len(self.target.devices)
        return self.model_flops / self.step_seconds / peak if self.step_seconds else None

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
        steps.append(PlannedStep(share, program, estimate(program, target)))
    model = build_model(experiment.model, *lengths.vocabularies, experiment.task)
    source, target_tokens = (
        sum(step.share.share * getattr(step.share, side) for step in steps) for side in ("source_tokens", "target_tokens")
    )
    flops = training_flops(model, source, target_tokens, trained_paths(experiment.training, model))
    return Prediction(experiment, target, dict(mesh.shape), lengths.origin, tuple(steps), parameter_count(model.shapes), flops)


def candidates(experiment: cfg.Experiment, devices: int) -> Iterator[cfg.Experiment]:
    """Yield every mesh, remat policy and batch size that divides the device count; remat only for models that have it."""
    policies = ("none", "dots", "full") if hasattr(experiment.model, "remat") else (None,)
    shared = sorted({math.gcd(fsdp, devices) for fsdp in FSDP})
    for fsdp, tensor, times, policy in itertools.product(shared, TENSOR, BATCHES, policies):
        if devices % (fsdp * tensor):
            continue
        mesh = cfg.Mesh(data=devices // (fsdp * tensor), fsdp=fsdp, tensor=tensor)
        changes = {"mesh": mesh, "batching.tokens": times * experiment.batching.tokens}
        yield cfg.replace(experiment, **changes, **({"model.remat": policy} if policy else {}))


def search(experiment: cfg.Experiment, target: Target, lengths: Lengths, say: Say) -> list[Prediction]:
    """Return the predictions that fit, of candidates tried one after the other: fastest first, or least memory if no time is known.

    A policy that recomputes more is tried only if the one before does not fit, a larger batch only if the smaller one fits.

    Raises:
        UserError: no mesh fits the model.
    """
    planned: list[Prediction] = []
    refusal: UserError | None = None
    tried = list(enumerate(candidates(experiment, len(target.devices)), 1))
    for _, of_mesh in itertools.groupby(tried, lambda each: each[1].mesh):
        try:
            for _, of_size in itertools.groupby(of_mesh, lambda each: each[1].batching.tokens):
                for number, candidate in of_size:
                    say(f"{number} of {len(tried)}: {describe(candidate)}")
                    planned.append(predict(candidate, target, lengths))
                    if planned[-1].fits:
                        break
                else:
                    break
        except UserError as error:  # an axis that does not divide the model
            refusal = error
    if not planned:
        raise UserError(f"no mesh fits the model: {refusal}")
    fitting = [prediction for prediction in planned if prediction.fits]
    return sorted(fitting, key=lambda p: (-(p.target_tokens_per_s or 0), p.largest.memory))


def describe(experiment: cfg.Experiment) -> str:
    """Return the settings of a candidate, as flags."""
    mesh, remat = experiment.mesh, getattr(experiment.model, "remat", None)
    flags = f"--mesh.data {mesh.data} --mesh.fsdp {mesh.fsdp} --mesh.tensor {mesh.tensor} --batching.tokens {experiment.batching.tokens}"
    return flags + (f" --model.remat {remat}" if remat else "")
