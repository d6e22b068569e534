"""A run's folder: when it is made, when it is taken up again, and when a changed setting is refused."""

from __future__ import annotations

import importlib.util
import pathlib
import typing
from typing import Any

from jaxnmt import config_files
from jaxnmt.config import Experiment, UserError

CONFIG = "config.json"

HARMLESS = (
    "training.max_minutes",
    "training.max_bad_steps",
    "training.stuck_minutes",
    "validation.samples",
    "validation.patience",
    "checkpoints.",
    "logging.",
    "decoding.",
    "data.test",
    "data.cache",
    "data.workers",
    "model.remat",
    "mesh.",
)
"""Fields that may change within a run: the parameters after step n do not depend on them (on the mesh: but for rounding)."""


def folder(run: str | pathlib.PurePath) -> pathlib.Path:
    """A run's folder by its name: a local one, or one in a bucket (`gs://bucket/runs/big`).

    Raises:
        UserError: what buckets need is not installed, or it is of another kind.
    """
    if isinstance(run, pathlib.PurePath) or "://" not in run:
        return pathlib.Path(run) if isinstance(run, str) else typing.cast(pathlib.Path, run)
    if not run.startswith("gs://"):
        raise UserError(f"{run}: of folders that are elsewhere, only gs:// ones are known")
    if importlib.util.find_spec("gcsfs") is None:
        raise UserError(f"{run}: folders in a bucket need gcsfs (the extra gcs): pip install gcsfs")
    from etils import epath  # a quarter of a second to import

    return typing.cast(pathlib.Path, epath.Path(run))


def read(run: str | pathlib.Path) -> Experiment:
    """The experiment of an existing run.

    Raises:
        UserError: the folder does not exist or is not a run.
    """
    run = folder(run)
    if not (run / CONFIG).is_file():
        runs = [str(found) for found in find_runs(run)] if run.is_dir() else []
        inside = f"; the runs in it are {', '.join(runs[:5])}" if runs else ""
        raise UserError(f"{run} {f'is not a run: it has no {CONFIG}' if run.exists() else 'does not exist'}{inside}")
    return config_files.read(run / CONFIG)


def find_runs(folder: pathlib.Path) -> list[pathlib.Path]:
    """The runs directly in a folder, by name."""
    return sorted(path.parent for path in folder.glob(f"*/{CONFIG}"))


def start(run: pathlib.Path, experiment: Experiment) -> bool:
    """Make a run's folder, or take up an existing one with `experiment`; `config.json` is written.

    Returns:
        Whether the run existed.

    Raises:
        UserError: the folder holds something else, cannot be written, or a changed field would change the training.
    """
    if run.exists() and not run.is_dir():
        raise UserError(f"{run} is a file; --run takes a folder")
    existed = (run / CONFIG).is_file()
    if existed and (run / "tokenizer").exists():  # else nothing was made yet: a first try may have named a file that is not there
        refuse_changes(run, config_files.read(run / CONFIG), experiment)
    elif not existed and run.is_dir() and any(run.iterdir()):
        raise UserError(f"{run} is neither empty nor a run (it has no {CONFIG}); choose another folder with --run")
    try:
        run.mkdir(parents=True, exist_ok=True)
        config_files.save(experiment, run / CONFIG)
    except OSError as error:
        raise UserError(f"{run} cannot be written ({error.strerror}): mend that, or choose another folder with --run") from error
    return existed


def refuse_changes(run: pathlib.Path, old: Experiment, new: Experiment) -> None:
    """Compare an existing run's settings with those asked for now.

    Raises:
        UserError: some differ that would change the training; each is listed as `field: old → new`.
    """
    changed = config_files.differences(old, new)
    harmful = {name: values for name, values in changed.items() if not _harmless(name, old, *values)}
    if harmful:
        listed = "".join(f"\n  {name}: {_shown(before)} → {_shown(after)}" for name, (before, after) in harmful.items())
        raise UserError(
            f"{run} was started with other settings, which would change the training: choose another folder with --run, "
            f"or take it up as it is with `jaxnmt resume {run}`{listed}"
        )


def _harmless(name: str, old: Experiment, before: Any, after: Any) -> bool:
    if name == "training.steps":  # the learning rate of these two is counted from the last step
        return after > before and old.schedule.name not in ("cosine", "linear")
    if name == "validation.every":
        return old.schedule.name != "plateau"
    return name.startswith(HARMLESS)


def _shown(value: Any) -> str:
    return (" ".join(map(str, value)) or "(none)") if isinstance(value, tuple) else str(value) if value != "" else "(none)"
