"""Options and checks that several verbs share."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable
from typing import Annotated, get_args

import tyro

from jaxnmt.config import Experiment
from jaxnmt.errors import UserError
from jaxnmt.evaluation.tokenization import MetricName
from jaxnmt.io import streams
from jaxnmt.parallel import distributed

NO_METRICS = f"--metrics expects at least one of {', '.join(get_args(MetricName))}"
Flat = tyro.conf.arg(name="")  # the nested fields' flags go without a prefix


@dataclasses.dataclass(frozen=True)
class Settings:
    experiment: Annotated[Experiment, Flat] = dataclasses.field(default_factory=Experiment)


@dataclasses.dataclass(frozen=True)
class NoOptions:
    pass


def writable(flag: str, name: str) -> None:
    """Check, before anything is computed, that a file can be written; an empty name is no file.

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


def leader_writer(output: str) -> contextlib.AbstractContextManager[Callable[[str], object]]:
    """Return a function that writes lines in process 0; in the other processes it writes nothing."""
    return streams.line_writer(output) if distributed.is_leader() else contextlib.nullcontext(lambda line: None)
