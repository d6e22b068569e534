"""Verbs of one run: train, resume, data prepare, data check, runs show, runs average."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from jaxnmt.cli.verbs.common import Flat, NoOptions, Settings
from jaxnmt.config import Captioning, Classification, Experiment, Positive, checks, replace
from jaxnmt.config.files import shipped_configs
from jaxnmt.errors import UserError
from jaxnmt.parallel import compiler, distributed
from jaxnmt.parallel.log import say
from jaxnmt.run import Run
from jaxnmt.runs import directory
from jaxnmt.training_run import begun, run_folder, train_folder, trainable

if TYPE_CHECKING:
    from jaxnmt.training.hooks import Hook


# ---- train, resume, data, runs


@dataclasses.dataclass(frozen=True)
class Prepare:
    run: str = ""
    """Folder of the run; when empty, runs/ and the config's name."""
    experiment: Annotated[Experiment, Flat] = dataclasses.field(default_factory=Experiment)


@dataclasses.dataclass(frozen=True)
class Train:
    run: str = ""
    """Folder of the run; when empty, runs/ and the config's name."""
    profile: str = ""
    """Trace these steps with JAX's profiler into the run's folder profile, such as 20:25 (the first and the last step)."""
    explain_sharding: bool = False
    """Only print how each parameter is sharded over the devices, and how much of it they hold; nothing is trained."""
    experiment: Annotated[Experiment, Flat] = dataclasses.field(default_factory=Experiment)


@dataclasses.dataclass(frozen=True)
class Resume:
    profile: str = ""
    """Trace these steps with JAX's profiler into the run's folder profile, such as 1020:1025 (the first and the last step)."""
    experiment: Annotated[Experiment, Flat] = dataclasses.field(default_factory=Experiment)


@dataclasses.dataclass(frozen=True)
class Average:
    last: Positive[int] = 5
    """Number of latest checkpoints to average."""


def train(config: str, options: Train) -> None:
    """Train a model; the same command on an existing run resumes from its last checkpoint.

    Examples:
      jaxnmt train quickstart
      jaxnmt train transformer_small --data.train a.en a.de --training.steps 5000
      jaxnmt train multi30k --run runs/wide --model.emb-dim 512 --model.num-heads 8
      jaxnmt train wmt14_big --mesh.fsdp 8 --explain-sharding
      jaxnmt train quickstart --profile 20:25
    """
    if options.explain_sharding:
        return _explain_sharding(config, options)
    run, experiment = run_folder(config, options.run), trainable(config, options.experiment)
    train_folder(run, experiment, _profile(options.profile, run), progress=True, signals=True)


def _profile(steps: str, run: pathlib.Path) -> list[Hook]:
    """Return the hook of `--profile`, if it is given."""
    if not steps:
        return []
    first, _, last = steps.partition(":")
    if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
        raise UserError(f"--profile {steps}: give the first and the last step to trace, such as 20:25")
    from jaxnmt.training.hooks import Profile

    return [Profile(int(first), int(last), run / "profile")]


def resume(run: str, options: Resume) -> None:
    """Resume a run from its last checkpoint. Settings that do not change the training may be changed.

    Examples:
      jaxnmt resume runs/quickstart
      jaxnmt resume runs/quickstart --training.steps 2000
    """
    folder, experiment = directory.folder(run), trainable(run, options.experiment)
    train_folder(folder, experiment, _profile(options.profile, folder), progress=True, signals=True)


def data_prepare(config: str, options: Prepare) -> None:
    """Clean, train the tokenizer and tokenise now, so that training starts at once.

    Examples:
      jaxnmt data prepare wmt14_base
      jaxnmt data prepare transformer_small --data.train a.en a.de --run runs/mine
    """
    run, experiment = run_folder(config, options.run), trainable(config, options.experiment)
    distributed.initialize()
    with begun(run, experiment):
        from jaxnmt.data.prepared import prepare

        with distributed.leader_first("prepare the data"):
            prepare(experiment, run / "tokenizer", say=say)
    say(f"ready: `jaxnmt resume {run}` trains on it")


def data_check(first: str, second: str | None, options: Settings) -> None:
    """Read pairs and report what cleaning would drop: how many for each reason, and where; and pictures and numbers that cannot be read.

    Examples:
      jaxnmt data check a.en a.de
      jaxnmt data check pairs.tsv.gz --data.cleaning.max-ratio 4
      jaxnmt data check quickstart
      jaxnmt data check captions --data.train pictures.tsv
    """
    checks.validate(options.experiment)
    from jaxnmt.data.cleaning import EXAMPLES, check, rules_of
    from jaxnmt.data.sources import described, sources_of

    def listed(what: str, wrong: Sequence[str]) -> str:
        return "\n".join([f"  {what:<20} {len(wrong):>12,}", *(f"      {line}" for line in wrong[:EXAMPLES])])

    experiment, words = options.experiment, tuple(filter(None, (first, second)))
    if second or is_text(first):
        experiment = replace(experiment, **{"data.train": words})
    sources = sources_of(experiment, "train")
    if not sources:
        raise UserError(f"config {first} has no training data; give yours with --data.train a.en a.de")
    for line in described(sources):
        print(line)
    print(check(sources, rules_of(experiment), experiment.tokenizer.normalization))
    if isinstance(experiment.task, Captioning):
        from jaxnmt.data.pictures import each

        bad = [str(found) for found in each(sources, experiment.task) if isinstance(found, UserError)]
        print(listed("unreadable picture", bad))
    if isinstance(experiment.task, Classification) and experiment.task.labels == "number":
        from jaxnmt.data.labels import not_numbers

        print(listed("not a number", list(not_numbers(sources, drops_empty=True))))


def runs_show(run: str, options: NoOptions) -> None:
    """Show a run's settings, progress and scores; or one line for each run of a folder.

    Examples:
      jaxnmt runs show runs/quickstart
      jaxnmt runs show runs
    """
    print(directory.show(directory.folder(run)))


def runs_average(run: str, options: Average) -> None:
    """Average the parameters of a run's newest checkpoints; translate and evaluate use the result with `--checkpoint average`.

    A run keeps two checkpoints and the best one; --checkpoints.keep-latest 5 keeps more.

    Examples:
      jaxnmt runs average runs/quickstart
      jaxnmt runs average runs/quickstart --last 10
    """
    opened = Run(run)
    steps = ", ".join(map(str, opened.average(options.last)))
    place = opened.folder / directory.AVERAGE
    print(f"averaged checkpoints {steps} into {place}; `jaxnmt translate {run} --checkpoint average` uses it, and evaluate likewise")


def check_training(name: str, options: Train | Resume | Prepare) -> None:
    """Check the settings of a run before it begins.

    Raises:
        UserError: settings are invalid or contradict each other, or there is no training data.
    """
    if isinstance(options, Train) and options.explain_sharding:  # it needs no training data
        checks.validate(options.experiment)
    else:
        trainable(name, options.experiment)


def _explain_sharding(config: str, options: Train) -> None:
    checks.validate(options.experiment)
    distributed.initialize()
    from jaxnmt.lab import figures
    from jaxnmt.lab.plan.workload import Lengths
    from jaxnmt.lab.sharding_table import explain

    compiler.check()
    table = explain(options.experiment, Lengths(options.experiment, run_folder(config, options.run), say).vocabularies)
    if distributed.is_leader():
        figures.show([table])


def is_text(name: str) -> bool:
    """Return whether a word of `data check` names text, a file or a dataset, and not a config."""
    is_config = name.endswith(".py") or name.replace("-", "_") in shipped_configs()
    return not is_config and (any(mark in name for mark in "./,:") or pathlib.Path(name).is_file())
