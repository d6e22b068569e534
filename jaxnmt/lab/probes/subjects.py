"""What is probed: the models of configs, all of one width where that is asked for, and of trained runs. No JAX here."""

from __future__ import annotations

import dataclasses
import pathlib
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxnmt import errors
from jaxnmt.config import checks as config_checks
from jaxnmt.config.files import load_config
from jaxnmt.runs import directory as run_directory

WIDTHS = {"emb_dim": 1, "hidden_dim": 1, "encoder_dim": 1, "mlp_dim": 4}
"""The fields of a model that say how wide it is, and how many times `--width` each becomes."""


class Subject(NamedTuple):
    """A model as it is configured, and the folder of the run that trained it (None: it is not trained)."""

    model: Any
    run: pathlib.Path | None = None


def subjects(names: Sequence[str], width: int = 0, runs: bool = False) -> dict[str, Subject]:
    """Models by a label for a chart: the config's or the run's own name, or all that was given where two of these are the same.

    Args:
        names: configs, by shipped name or path, and where `runs` says so also folders of runs.
        width: what to make their widths (`resized`); 0: as they are configured.

    Raises:
        UserError: a config that does not exist, fails or cannot be; the same name twice; a width for a run.
    """
    if len(set(names)) < len(names):
        raise errors.UserError(f"{Counter(names).most_common(1)[0][0]} is given twice; each model is one line")
    short = [pathlib.Path(name).name.removesuffix(".py") for name in names]
    labels = short if len(set(short)) == len(short) else names
    return {label: _subject(name, width, runs) for label, name in zip(labels, names, strict=True)}


def _subject(name: str, width: int, runs: bool) -> Subject:
    if (folder := run_directory.folder(name)).is_dir():
        if not runs:
            raise errors.UserError(f"{name} is a folder; this probe trains its models itself: give a config, by shipped name or path")
        if width:
            raise errors.UserError(f"--width {width} cannot change {name}: it is trained; leave --width out, or give configs alone")
        return Subject(run_directory.read(name).model, folder)
    experiment = load_config(name)
    if width:
        experiment = dataclasses.replace(experiment, model=resized(name, experiment.model, width))
    config_checks.validate(experiment)
    return Subject(experiment.model)


def resized(name: str, model: Any, width: int) -> Any:
    """A model with its states and vectors `width` wide, and the hidden layers of its feed-forward blocks four times that.

    Raises:
        UserError: it has none of the fields `WIDTHS`.
    """
    own = {field.name for field in dataclasses.fields(model)}
    changes = {field: times * width for field, times in WIDTHS.items() if field in own}
    if not changes:
        raise errors.UserError(f"--width {width}: the model of {name} has none of the fields {', '.join(WIDTHS)}; use --width 0")
    return dataclasses.replace(model, **changes)
