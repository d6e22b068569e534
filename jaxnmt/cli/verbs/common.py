"""What verbs of several kinds share."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from typing import Annotated, Literal

import tyro

from jaxnmt.config import Experiment
from jaxnmt.config import checks as config_checks
from jaxnmt.config import files as config_files
from jaxnmt.errors import UserError
from jaxnmt.parallel import distributed
from jaxnmt.runs import directory as run_directory

Flat = tyro.conf.arg(name="")  # the nested fields' flags go without a prefix
Checkpoint = int | Literal["best", "latest", "average"]
Tokenize = Literal["", "13a", "intl", "zh", "ja-mecab", "ko-mecab", "char", "none", "flores101", "flores200", "spBLEU-1K"]  # of sacreBLEU


@dataclasses.dataclass(frozen=True)
class Settings:
    experiment: Annotated[Experiment, Flat] = dataclasses.field(default_factory=Experiment)


@dataclasses.dataclass(frozen=True)
class NoOptions:
    pass


def run_folder(config: str, run: str) -> pathlib.Path:
    """The run's folder: as it is given, or runs/ and the config's name."""
    name = pathlib.Path(config).stem if config.endswith(".py") else config.replace("-", "_")
    return run_directory.folder(run or pathlib.Path("runs") / name)


def trainable(name: str, experiment: Experiment) -> Experiment:
    """The experiment, checked, its files named so that a run can be taken up from any folder."""
    config_checks.validate(experiment)
    if not experiment.data.train:
        raise UserError(f"{name} has no training data; give yours with --data.train a.en a.de")
    return config_files.with_absolute_paths(experiment)


def at_least(least: int, **values: int) -> None:
    """Check that options are at least `least`.

    Raises:
        UserError: one is less.
    """
    for name, value in values.items():
        if value < least:
            raise UserError(f"--{name.replace('_', '-')} expects a whole number of {least} or more, not {value}")


def writable(flag: str, name: str) -> None:
    """Check, before anything is computed, that a file can be written. An empty name is none.

    Raises:
        UserError: its folder is missing, it is a folder, or it is stdout, which has the verb's results.
    """
    path = pathlib.Path(name)
    if name == "-":
        raise UserError(f"{flag} -: stdout has this verb's results; name a file")
    if name and not path.absolute().parent.is_dir():
        raise UserError(f"{flag} {name} cannot be written: there is no folder {path.parent}")
    if name and path.is_dir():
        raise UserError(f"{flag} {name} is a folder; name a file")


def say(line: str) -> None:
    """For people; of several processes, one says it."""
    if distributed.is_leader():
        print(line, file=sys.stderr, flush=True)  # stdout is for results
