"""Check an experiment's values. Each problem is one sentence that names the fields and their values.

A field's type and constraints are declared at the field. A rule between fields of one dataclass is in its method `problems`, which a model
of the user's own may have too. The rules in this file are between different parts of an experiment.
"""

from __future__ import annotations

import itertools
import math
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from jaxnmt.config import Captioning, Classification, Experiment, Input, Language, MaskedLanguage, Recurrent, Schedule, replace
from jaxnmt.config.fields import Constraint, OnlyFor, constraints, did_you_mean, leaves, markers, type_constraint
from jaxnmt.config.files import tupled
from jaxnmt.config.tasks import TASKS
from jaxnmt.errors import UserError

_OURS: tuple[type, ...] = (Recurrent, *TASKS, *(type(section) for section in vars(Experiment()).values()))
_FINITE = Constraint("a finite number", lambda value: not isinstance(value, float) or math.isfinite(value))
_METHODS = {
    "model": "build(source_size, target_size, target_vocab) that returns its linen module",
    "optimizer": "build() that returns an optax transformation for learning rate 1",
    "schedule": "rate(step, total_steps) that returns the learning rate",
}
"""The method of a part of the user's own that is not a subclass of ours. Parts that are not listed must be subclasses."""


def validate(experiment: Experiment) -> None:
    """Check every value of an experiment.

    Raises:
        UserError: the first problem; names the field(s) and value(s).
    """
    checks = (_values, _unused_fields, _sections, _own_parts, _relations)  # each relies on those before it
    for problem in itertools.chain.from_iterable(check(experiment) for check in checks):
        raise UserError(problem)


def value_problem(name: str, hint: Any, value: Any) -> str:
    """Return what is wrong with a field's value by its type and constraints; empty if nothing is."""
    for constraint in (type_constraint(hint), _FINITE, *constraints(hint)):
        if not constraint.holds(value):
            sequence = typing.get_origin(hint) is tuple and isinstance(value, str | list)
            instead = f": write {(value,) if isinstance(value, str) else tuple(value)!r}" if sequence else ""
            return f"{name} is {value!r}; it must be {constraint.words}{instead}"
    return ""


def check_input(given: Input) -> None:
    """Check the values of `Input`.

    Raises:
        UserError: the first problem; names the field and its value.
    """
    for problem in (value_problem(name, hint, value) for name, hint, value in leaves(given)):
        if problem:
            raise UserError(problem)


def _values(experiment: Experiment) -> Iterator[str]:
    own = tuple(f"{part}." for part, section in vars(experiment).items() if type(section) not in _OURS)
    for name, hint, value in leaves(experiment):
        only_its_class_knows = name.startswith(own) and not constraints(hint)
        if not only_its_class_knows and (problem := value_problem(name, hint, value)):
            yield problem


def _unused_fields(experiment: Experiment) -> Iterator[str]:
    for name, hint, value in leaves(experiment):
        part, _, field = name.partition(".")
        section = getattr(experiment, part)
        for marker in markers(hint):
            if isinstance(marker, OnlyFor) and section.name not in marker.names and value != getattr(type(section), field):
                yield (
                    f"{name} {value:g} has no effect with {part}.name {section.name}: "
                    f"leave it at {getattr(type(section), field):g}, or choose {' or '.join(marker.names)}"
                )


def _sections(experiment: Experiment) -> Iterator[str]:
    for section in vars(experiment).values():
        yield from getattr(section, "problems", tuple)()


def _own_parts(experiment: Experiment) -> Iterator[str]:
    """Yield what the user's own parts lack."""
    for part, section in vars(experiment).items():
        method = _METHODS.get(part, "")
        if not isinstance(section, _OURS) and not callable(getattr(section, method.partition("(")[0], None)):
            lack = f"has no method {method}" if method else f"must be a subclass of jaxnmt.config.{part.title()}"
            yield f"the {part} {type(section).__name__} {lack}"


def _relations(experiment: Experiment) -> Iterator[str]:
    """Yield problems between different parts of an experiment."""
    batching, training, schedule, model = experiment.batching, experiment.training, experiment.schedule, experiment.model
    if getattr(model, "tie_embeddings", "") == "all" and not experiment.tokenizer.joint:
        yield "model.tie_embeddings all needs tokenizer.joint True: with two vocabularies, tie decoder or none"
    task, kind = experiment.task, type(experiment.task).__name__
    if batching.layout == "packed" and not task.packs:
        yield f"batching.layout packed does not work for the task {kind}, which puts one example in a row: set batching.layout buckets"
    if experiment.validation.metric not in task.metrics:
        yield f"validation.metric {experiment.validation.metric} is not for the task {kind}: set it to {' or '.join(task.metrics)}"
    if not (task.pairs or experiment.tokenizer.joint):
        yield f"tokenizer.joint False does not work for the task {kind}, which uses one text as source and target: set it to True"
    if experiment.init.from_ and experiment.tokenizer.model and experiment.init.vocabulary == "keep":
        both = "tokenizer.model and init.from each bring a vocabulary, and parameters are for one"
        yield f"{both}: leave out tokenizer.model, or set init.vocabulary map"
    if training.lora.rank and not experiment.init.from_:
        yield f"training.lora.rank {training.lora.rank} adapts the parameters of another run: name it with init.from"
    if training.lora.rank and experiment.init.l2:
        yield "init.l2 holds parameters near those of init.from, and training.lora.rank does not change them: leave out one of the two"
    if isinstance(task, Language) and isinstance(model, Recurrent) and (model.context != "fixed" or model.input_feeding):
        yield "the task Language has no source to attend to: a Recurrent model needs model.context fixed and model.input_feeding False"
    if isinstance(task, Classification) and getattr(model, "output_bias", False):
        yield "model.output_bias is for tokens, and the task Classification predicts labels: leave it out"
    if isinstance(model, Recurrent) and isinstance(task, Classification | MaskedLanguage):
        if model.copy or model.coverage:
            yield f"model.copy and model.coverage need a decoder, and the task {kind} has no decoder: leave them out"
        width = model.encoder_dim or model.hidden_dim
        if isinstance(task, MaskedLanguage) and model.tie_embeddings != "none" and width != model.emb_dim:
            tied = f"model.tie_embeddings {model.tie_embeddings}"
            yield f"{tied} needs encoder states of the width model.emb_dim {model.emb_dim}, not {width}"
    if isinstance(task, Captioning):
        yield from _captioning(experiment, task)
    if isinstance(model, Recurrent) and model.copy:
        if not experiment.tokenizer.joint:
            yield "model.copy needs tokenizer.joint True: only then is the id of a source token that of the same target token"
        if experiment.decoding.shortlist:
            yield "decoding.shortlist renumbers tokens, and model.copy needs the original ids: set it to 0"
    if batching.layout == "packed" and not getattr(model, "packs", False):
        yield f"batching.layout packed is for models that read packed rows; a {type(model).__name__} needs batching.layout buckets"
    if isinstance(model, Recurrent) and model.context == "fixed":
        if experiment.decoding.coverage_penalty:
            yield "decoding.coverage_penalty needs attention over the source, and model.context fixed has none: set it to 0"
        if experiment.decoding.unk == "replace":
            yield "decoding.unk replace needs attention over the source, and model.context fixed has none: set it to write or forbid"
    width = max(batching.row_length, experiment.data.max_length) if batching.layout == "packed" else experiment.data.max_length
    if batching.tokens < width * training.accumulation:
        longest = "data.max_length" if width == experiment.data.max_length else "batching.row_length"
        parts = f" in each of training.accumulation {training.accumulation} parts" if training.accumulation > 1 else ""
        yield f"batching.tokens {batching.tokens} is too few for one row of {longest} {width}{parts}"
    if getattr(experiment.optimizer, "name", "") == "adafactor" and getattr(model, "scan_layers", False):
        yield "optimizer.name adafactor keeps a factored state for each layer; set model.scan_layers False, or choose another optimizer"
    name = schedule.name if isinstance(schedule, Schedule) else ""
    if name in ("cosine", "linear") and schedule.warmup_steps >= training.steps:
        yield f"schedule.warmup_steps {schedule.warmup_steps} leaves no step for schedule.name {name}: training.steps is {training.steps}"
    if name == "plateau" and experiment.validation.every == 0:
        yield "schedule.name plateau needs validations: validation.every is 0"


def _captioning(experiment: Experiment, task: Captioning) -> Iterator[str]:
    """Yield problems of a task whose source is not text."""
    model = experiment.model
    if isinstance(model, Recurrent) and model.bridge == "copy":
        yield "model.bridge copy needs a recurrent encoder, and pictures are read without one: set it to dense"
    if isinstance(model, Recurrent) and model.copy:
        yield "model.copy copies words of the source, and a picture has no words: set it to False"
    if task.attention_penalty and not (isinstance(model, Recurrent) and model.context != "fixed"):
        yield f"task.attention_penalty {task.attention_penalty:g} is for a Recurrent model with attention: set it to 0"
    for name in ("shortlist", "coverage_penalty"):
        if getattr(experiment.decoding, name):
            yield f"decoding.{name} needs words of the source, and a picture has no words: set it to 0"
    if experiment.decoding.unk == "replace":
        yield "decoding.unk replace copies words of the source, and a picture has no words: set it to write or forbid"


def with_settings(experiment: Experiment, settings: Mapping[str, Any]) -> Experiment:
    """Return an experiment with other values of some fields, given by their dotted names; a list counts as a tuple.

    Raises:
        UserError: a field does not exist, or its value is invalid.
    """
    known = {name for name, _, _ in leaves(experiment)}
    for name in settings:
        if name not in known:
            raise UserError(f"there is no setting {name}{did_you_mean(name, known)}")
    experiment = replace(experiment, **{name: tupled(value) for name, value in settings.items()})
    validate(experiment)
    return experiment
