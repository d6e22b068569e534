"""Studies and their jobs. Nothing here imports JAX."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from jaxnmt import Experiment, UserError, replace
from jaxnmt.config import checks as config_checks
from jaxnmt.config.files import call_function, find_config, to_json, with_absolute_paths, write_json
from jaxnmt.evaluation.tokenization import MetricName
from jaxnmt.runs import directory as run_directory


@dataclass(frozen=True)
class Budget:
    """How long each run trains, whatever its variant."""

    amount: float
    unit: Literal["steps", "epochs", "tokens", "flops", "minutes"] = "steps"
    """Optimizer steps; passes over the text; target tokens; floating-point operations of training (6 per weight and token); minutes of
    training, on any machine."""


@dataclass(frozen=True)
class Study:
    """Variants that differ in the subject of the study, and are trained alike.

    The config file of a study has a function `study()` that returns one.
    """

    variants: Mapping[str, Experiment]
    """By name; the first is the parent, with which the others are compared."""
    budget: Budget
    """Of every run (not of the trials of learning rates)."""
    seeds: tuple[int, ...] = (1, 2, 3)
    """Each variant is trained once with each seed."""
    metrics: tuple[MetricName, ...] = ()
    """Scores of the test sentences, as `jaxnmt evaluate` takes them; variants are tested by the first. Empty: those of the task."""
    learning_rates: tuple[float, ...] = ()
    """Tried for every variant before its runs, with the first seed; its runs use the best on validation. Empty: the variant's own."""
    tuning: Budget | None = None
    """Of each trial of a learning rate; None: as `budget`."""
    unequal_parameters: bool = False
    """Allow variants to differ by more than 5 % in parameters (including embeddings and output layer)."""
    unequal_tokens: bool = False
    """With a budget in steps: allow variants to differ by more than 5 % in target tokens per step."""

    @property
    def parent(self) -> str:
        """The name of the first variant."""
        return next(iter(self.variants))

    @property
    def units(self) -> set[str]:
        """The units of its budgets."""
        return {self.budget.unit, (self.tuning or self.budget).unit}

    def budget_of(self, job: Job) -> Budget:
        """Return the budget of a job."""
        return self.tuning or self.budget if job.is_trial else self.budget


@dataclass(frozen=True)
class Job:
    """One training: a run, or a trial of a learning rate.

    Attributes:
        learning_rate: the rate that a trial tries; None for a run.
    """

    variant: str
    seed: int
    learning_rate: float | None = None

    @property
    def is_trial(self) -> bool:
        """Whether it tries a learning rate."""
        return self.learning_rate is not None

    @property
    def name(self) -> str:
        """The variant's name, fit for a folder."""
        return re.sub(r"[^\w.+-]+", "_", self.variant).strip("_")

    @property
    def folder(self) -> str:
        """Its folder, relative to the study's."""
        return f"trials/{self.name}/rate-{self.learning_rate:g}" if self.is_trial else f"runs/{self.name}/seed-{self.seed}"


def load(name: str) -> Study:
    """Return the study of a config file, by shipped name (`heads`) or path.

    Raises:
        UserError: there is no such file, or the study is invalid; the message names the variant or field.
    """
    where = find_config(name, "study")
    study = call_function(where, "study", Study)
    if len(study.variants) < 2:
        raise UserError(f"{where}: a study compares at least two variants, not {len(study.variants)}")
    if not study.seeds or len(set(study.seeds)) < len(study.seeds):
        raise UserError(f"{where}: seeds are {study.seeds}; give at least one, each once")
    for budget, field in ((study.budget, "budget"), (study.tuning, "tuning")):
        if budget and budget.amount <= 0:
            raise UserError(f"{where}: {field} is {budget.amount:g} {budget.unit}; it must be above 0")
    folders = [Job(name, 0).folder for name in study.variants]
    if len(set(folders)) < len(folders):
        raise UserError(f"{where}: names of variants must differ in more than punctuation: {', '.join(study.variants)}")
    task = study.variants[study.parent].task
    if unknown := set(study.metrics).difference(get_args(MetricName)):
        raise UserError(f"{where}: metrics: there is no {unknown.pop()}; choose from {', '.join(get_args(MetricName))}")
    if study.metrics and (task.is_label or not task.is_scored):
        raise UserError(f"{where}: metrics are for translations, and the task {type(task).__name__} has its own: leave them out")
    for name, experiment in study.variants.items():
        if type(experiment.task) is not type(task):
            kinds = f"{type(task).__name__} and {type(experiment.task).__name__}"
            raise UserError(f"{where}: variant {name}: scores of the tasks {kinds} do not compare: give all variants one task")
        try:
            config_checks.validate(experiment)
        except UserError as error:
            raise UserError(f"{where}: variant {name}: {error}") from None
        if getattr(experiment.schedule, "name", "") in ("cosine", "linear") and "minutes" in study.units:
            ends = f"schedule.name {experiment.schedule.name} ends at a fixed step, which a budget in minutes does not have"
            raise UserError(f"{where}: variant {name}: {ends}; choose noam, constant or plateau")
    return study


def trials(study: Study, variant: str) -> list[Job]:
    """Return the trials that choose a variant's learning rate; none if there is at most one rate."""
    rates = study.learning_rates
    return [Job(variant, study.seeds[0], rate) for rate in rates] if len(rates) > 1 else []


def jobs(study: Study) -> Iterator[Job]:
    """Yield every job: trials first, then runs seed by seed, so that a study stopped early has results of each variant."""
    for variant in study.variants:
        yield from trials(study, variant)
    for seed in study.seeds:
        yield from (Job(variant, seed) for variant in study.variants)


def experiment_of(study: Study, job: Job, size: Any, learning_rate: float | None) -> Experiment:
    """Return the config of a job. Only the budget ends the run: early stopping is off.

    Args:
        study: the job's study.
        job: a run or a trial.
        size: the `budgets.Size` of its variant.
        learning_rate: None keeps the variant's own.
    """
    budget = study.budget_of(job)
    changes: dict[str, Any] = {
        "training.seed": job.seed,
        "training.steps": size.steps(budget),
        "training.max_minutes": budget.amount if budget.unit == "minutes" else 0.0,
        "validation.patience": 0,
    }
    if learning_rate is not None:
        changes["schedule.learning_rate"] = learning_rate
    return with_absolute_paths(replace(study.variants[job.variant], **changes))


def begin(study: Study, folder: pathlib.Path) -> None:
    """Create a study's folder, or check that an existing one contains the same study.

    Raises:
        UserError: it contains another one; the message names the fields that differ.
    """
    path = folder / "study.json"
    variants = {name: to_json(experiment) for name, experiment in study.variants.items()}
    now = json.loads(json.dumps(dataclasses.asdict(dataclasses.replace(study, variants={})) | {"variants": variants}))
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = " and ".join(field for field in now if before.get(field) != now[field] and field != "seeds")
        if changed:
            raise UserError(f"{folder} contains a study with other {changed}: choose another --folder, or restore the config file")
    elif folder.is_dir():
        found = [file for file in folder.iterdir() if not run_directory.is_log(file)]
        if any(not file.name.startswith((path.name, f".{path.name}")) for file in found):  # another worker may be writing study.json
            raise UserError(f"{folder} is neither empty nor a study (it has no study.json); choose another folder with --folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(now, path)  # other seeds only add or omit runs
