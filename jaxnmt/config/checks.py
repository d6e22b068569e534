"""Check an experiment's values. Each problem is one sentence that names the fields and their values.

A field's type and constraints are declared at the field. A rule between fields of one dataclass is in its method `problems`, which a model
of the user's own may have too. The rules in this file are between different parts of an experiment.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Iterator
from typing import Any

from jaxnmt.config import Data, Decoding, Experiment, Optimizer, Recurrent, Schedule, Transformer
from jaxnmt.config.constraints import OnlyFor, constraints
from jaxnmt.config.fields import describe_type, is_of_type, leaves
from jaxnmt.errors import UserError

_OURS = {Recurrent, *(type(section) for section in vars(Experiment()).values())}


def validate(experiment: Experiment) -> None:
    """Check every value of an experiment.

    Raises:
        UserError: the first problem; names the field(s) and value(s).
    """
    for problems in (_value_problems, _section_problems, _relations):  # each relies on those before it
        for problem in problems(experiment):
            raise UserError(problem)


def value_problem(name: str, hint: Any, value: Any) -> str:
    """Return what is wrong with a field's value by its type and constraints; empty if nothing is."""
    if not is_of_type(value, hint):
        sequence = typing.get_origin(hint) is tuple and isinstance(value, str | list)
        instead = f": write {(value,) if isinstance(value, str) else tuple(value)!r}" if sequence else ""
        return f"{name} is {value!r}; it must be {describe_type(hint)}{instead}"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{name} is {value}; it must be a finite number"
    broken = [constraint.words for constraint in constraints(hint) if not constraint.holds(value)]
    return f"{name} is {value}; it must be {broken[0]}" if broken else ""


def _value_problems(experiment: Experiment) -> Iterator[str]:
    own = tuple(f"{part}." for part, section in vars(experiment).items() if type(section) not in _OURS)
    for name, hint, value in leaves(experiment):
        if name.startswith(own) and not any(constraints(hint)):
            continue  # only the user's own class knows which values are valid
        if problem := value_problem(name, hint, value):
            yield problem


def _section_problems(experiment: Experiment) -> Iterator[str]:
    for part in dataclasses.fields(experiment):
        section = getattr(experiment, part.name)
        yield from _unused_fields(part.name, section)
        if callable(problems := getattr(section, "problems", None)):
            yield from problems()


def _unused_fields(part: str, section: Any) -> Iterator[str]:
    hints = typing.get_type_hints(type(section), include_extras=True)
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        for marker in getattr(hints[field.name], "__metadata__", ()):
            if isinstance(marker, OnlyFor) and section.name not in marker.names and value != field.default:
                yield (
                    f"{part}.{field.name} {value:g} has no effect with {part}.name {section.name}: "
                    f"leave it at {field.default:g}, or choose {' or '.join(marker.names)}"
                )


def _relations(experiment: Experiment) -> Iterator[str]:
    """Yield problems between different parts of an experiment."""
    batching, training, schedule, model = experiment.batching, experiment.training, experiment.schedule, experiment.model
    if getattr(model, "tie_embeddings", "") == "all" and not experiment.tokenizer.joint:
        yield "model.tie_embeddings all needs tokenizer.joint True: with two vocabularies, tie decoder or none"
    yield from _missing_methods(experiment)
    if batching.layout == "packed" and not getattr(model, "packs", False):
        yield f"batching.layout packed is for models that read packed rows; a {type(model).__name__} needs batching.layout buckets"
    width = max(batching.row_length, experiment.data.max_length) if batching.layout == "packed" else experiment.data.max_length
    if batching.tokens < width * training.accumulation:
        longest = "data.max_length" if width == experiment.data.max_length else "batching.row_length"
        parts = f" in each of training.accumulation {training.accumulation} parts" if training.accumulation > 1 else ""
        yield f"batching.tokens {batching.tokens} is too few for one row of {longest} {width}{parts}"
    if getattr(experiment.optimizer, "name", "") == "adafactor" and getattr(model, "scan_layers", False):
        yield "optimizer.name adafactor keeps a factored state for each layer; set model.scan_layers False, or choose another optimizer"
    if not isinstance(schedule, Schedule):
        return
    if schedule.name in ("cosine", "linear") and schedule.warmup_steps >= training.steps:
        yield (
            f"schedule.warmup_steps {schedule.warmup_steps} leaves no step for schedule.name {schedule.name}: "
            f"training.steps is {training.steps}"
        )
    if schedule.name == "plateau" and experiment.validation.every == 0:
        yield "schedule.name plateau needs validations: validation.every is 0"


def _missing_methods(experiment: Experiment) -> Iterator[str]:
    """Yield what the user's own parts lack."""
    needed = (
        ("model", Transformer | Recurrent, "build", "build(source_size, target_size, target_vocab) that returns its linen module"),
        ("optimizer", Optimizer, "build", "build() that returns an optax transformation for learning rate 1"),
        ("schedule", Schedule, "rate", "rate(step, total_steps) that returns the learning rate"),
    )
    for part, ours, method, signature in needed:
        section = getattr(experiment, part)
        if not isinstance(section, ours) and not callable(getattr(section, method, None)):
            yield f"the {part} {type(section).__name__} has no method {signature}"
    for part, parent in (("data", Data), ("decoding", Decoding)):
        section = getattr(experiment, part)
        if not isinstance(section, parent):
            yield f"the {part} {type(section).__name__} must be a subclass of jaxnmt.config.{parent.__name__}"
