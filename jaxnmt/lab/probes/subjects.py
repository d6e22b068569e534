"""The models of a probe: of configs, optionally all of one width, and of trained runs. Does not import JAX."""

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
"""The fields of a model that set its width, each as a multiple of `--width`."""


class Subject(NamedTuple):
    """A model's configuration, and the folder of the run that trained it (None: untrained)."""

    model: Any
    run: pathlib.Path | None = None


def subjects(names: Sequence[str], width: int = 0, runs: bool = False) -> dict[str, Subject]:
    """Return models by label: the name of the config or run, or the full path if two names are the same.

    Args:
        names: configs, by shipped name or path, and with `runs` also folders of runs.
        width: the width of all models (`resized`); 0: as configured.

    Raises:
        UserError: a config does not exist, fails or is invalid; a name is given twice; a width is given for a run.
    """
    if len(set(names)) < len(names):
        raise errors.UserError(f"{Counter(names).most_common(1)[0][0]} is given twice; each model is one line")
    short = [pathlib.Path(name).name.removesuffix(".py") for name in names]
    labels = short if len(set(short)) == len(short) else names
    return {label: _subject(name, width, runs) for label, name in zip(labels, names, strict=True)}


def _subject(name: str, width: int, runs: bool) -> Subject:
    if (folder := run_directory.folder(name)).is_dir():
        if not runs:
            raise errors.UserError(f"{name} is a folder, and this probe trains its models itself: give a config, by shipped name or path")
        if width:
            raise errors.UserError(f"--width {width} cannot change the trained model of {name}: leave --width out, or give configs only")
        return Subject(run_directory.read(name).model, folder)
    experiment = load_config(name)
    if width:
        experiment = dataclasses.replace(experiment, model=resized(name, experiment.model, width))
    config_checks.validate(experiment)
    return Subject(experiment.model)


def resized(name: str, model: Any, width: int) -> Any:
    """Return a model with states and vectors of size `width`, and feed-forward layers four times as wide.

    Raises:
        UserError: it has none of the fields `WIDTHS`.
    """
    changes = {field.name: WIDTHS[field.name] * width for field in dataclasses.fields(model) if field.name in WIDTHS}
    if not changes:
        raise errors.UserError(f"--width {width}: the model of {name} has none of the fields {', '.join(WIDTHS)}; use --width 0")
    return dataclasses.replace(model, **changes)
