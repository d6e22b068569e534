"""What a study is, and the jobs that it consists of. Nothing here imports JAX."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jaxnmt.config import Experiment, replace
from jaxnmt.config import checks as config_checks
from jaxnmt.config.files import call_function, changed_fields, find_study, to_json, with_absolute_paths, write_json
from jaxnmt.errors import UserError
from jaxnmt.runs import directory as run_directory


@dataclass(frozen=True)
class Budget:
    """How long a run trains: the same for every variant."""

    amount: float
    unit: Literal["steps", "epochs", "tokens", "flops", "minutes"] = "steps"
    """Optimizer steps; passes over the text; target tokens; floating-point operations of training (6 for each weight and token); minutes
    of training, on whatever does it."""


@dataclass(frozen=True)
class Study:
    """Variants that differ in what is studied, and are trained alike.

    A config file of a study has a function `study()` that returns one.
    """

    variants: Mapping[str, Experiment]
    """By name; the first is the parent that the others are compared with."""
    budget: Budget
    """Of every run whose result counts."""
    seeds: tuple[int, ...] = (1, 2, 3)
    """Each variant is trained once with each."""
    learning_rates: tuple[float, ...] = ()
    """Tried for every variant before its runs, with the first seed; the best on validation is taken. Empty: the variant's own."""
    tuning: Budget | None = None
    """Of each of these trials; None: as `budget`."""
    unequal_parameters: bool = False
    """Whether variants may differ by more than a twentieth in parameters (embeddings and output layer counted)."""
    unequal_tokens: bool = False
    """Whether a step of one variant may read more target tokens than one of another by more than a twentieth, where the budget is steps."""

    @property
    def parent(self) -> str:
        return next(iter(self.variants))

    @property
    def units(self) -> set[str]:
        """Of its budgets."""
        return {self.budget.unit, (self.tuning or self.budget).unit}

    def budget_of(self, job: Job) -> Budget:
        """What a job may train."""
        return self.budget if job.learning_rate is None else self.tuning or self.budget


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        variant, seed: whose, and with which seed.
        learning_rate: that is tried, of a trial; None for a run whose result counts.
    """

    variant: str
    seed: int
    learning_rate: float | None = None

    @property
    def name(self) -> str:
        """The variant's, as a folder may be called."""
        return re.sub(r"[^\w.+-]+", "_", self.variant).strip("_")

    @property
    def folder(self) -> str:
        """Its place in the study's folder."""
        return f"runs/{self.name}/seed-{self.seed}" if self.learning_rate is None else f"trials/{self.name}/rate-{self.learning_rate:g}"


def load(name: str) -> Study:
    """The study of a config file, by shipped name (`heads`) or path.

    Raises:
        UserError: there is none, or what it says cannot be.
    """
    path = find_study(name)
    study = call_function(path, "study", Study)
    check(study, str(path))
    return study


def check(study: Study, where: str) -> None:
    """Refuse what cannot be.

    Raises:
        UserError: naming the variant or field.
    """
    if len(study.variants) < 2:
        raise UserError(f"{where}: a study compares at least two variants, not {len(study.variants)}")
    if not study.seeds or len(set(study.seeds)) < len(study.seeds):
        raise UserError(f"{where}: seeds are {study.seeds}; give at least one, each once")
    for budget, field in ((study.budget, "budget"), (study.tuning, "tuning")):
        if budget and budget.amount <= 0:
            raise UserError(f"{where}: {field} is {budget.amount:g} {budget.unit}; it must be above 0")
    folders = [Job(name, 0).folder for name in study.variants]
    if len(set(folders)) < len(folders):
        raise UserError(f"{where}: two variants' names differ in punctuation alone: {', '.join(study.variants)}")
    for name, experiment in study.variants.items():
        try:
            config_checks.validate(experiment)
        except UserError as error:
            raise UserError(f"{where}: variant {name}: {error}") from None
        if experiment.schedule.name in ("cosine", "linear") and "minutes" in study.units:
            raise UserError(
                f"{where}: variant {name}: schedule.name {experiment.schedule.name} ends at a step, and a budget in minutes names none; "
                "choose noam, constant or plateau"
            )


def trials(study: Study, variant: str) -> list[Job]:
    """The trials that choose a variant's learning rate; none where one rate needs no choice."""
    rates = study.learning_rates
    return [Job(variant, study.seeds[0], rate) for rate in rates] if len(rates) > 1 else []


def jobs(study: Study) -> Iterator[Job]:
    """Every training, trials first; seed by seed, so that a study stopped early has something of each variant."""
    for variant in study.variants:
        yield from trials(study, variant)
    for seed in study.seeds:
        yield from (Job(variant, seed) for variant in study.variants)


def experiment_of(study: Study, job: Job, steps: int, learning_rate: float | None) -> Experiment:
    """The run of a job: so many steps, at a learning rate that was chosen (None: the variant's own). Nothing but its budget ends it."""
    budget = study.budget_of(job)
    changes: dict[str, Any] = {
        "training.seed": job.seed,
        "training.steps": steps,
        "training.max_minutes": budget.amount if budget.unit == "minutes" else 0.0,
        "validation.patience": 0,
    }
    if learning_rate is not None:
        changes["schedule.learning_rate"] = learning_rate
    return with_absolute_paths(replace(study.variants[job.variant], **changes))


def describe(study: Study) -> dict[str, Any]:
    """All that defines a study, for JSON; two studies are the same if these are equal."""
    plain = dataclasses.asdict(dataclasses.replace(study, variants={}))
    return json.loads(json.dumps(plain | {"variants": {name: to_json(e) for name, e in study.variants.items()}}))


def differences(study: Study, variant: str) -> dict[str, tuple[Any, Any]]:
    """What sets a variant apart from the parent: {field: (parent's, its own)}."""
    return changed_fields(study.variants[study.parent], study.variants[variant])


def begin(study: Study, folder: pathlib.Path) -> None:
    """Make a study's folder, or see that an existing one holds the same study.

    Raises:
        UserError: it holds another one; the fields that differ are named.
    """
    path, now = folder / "study.json", describe(study)
    found = {file.name for file in folder.iterdir() if not run_directory.is_log(file)} if folder.is_dir() else set()
    if path.name not in found:
        if any(not name.startswith(f".{path.name}") for name in found):  # more than another worker that is just writing it leaves
            raise UserError(f"{folder} is neither empty nor a study (it has no study.json); choose another folder with --folder")
        folder.mkdir(parents=True, exist_ok=True)
        write_json(now, path)
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    changed = [field for field in now if before.get(field) != now[field] and field != "seeds"]
    if changed:
        raise UserError(
            f"{folder} holds a study with other {' and '.join(changed)}: choose another folder with --folder, or restore the config file"
        )
    write_json(now, path)  # other seeds only add runs, or leave some out
