"""A run's folder: when it is made, when it goes on, who holds it, and when a changed setting is refused."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import pathlib
import re
import typing
from collections.abc import Callable, Collection, Iterator
from typing import Any

from jaxnmt.config import model_code
from jaxnmt.config.files import changed_fields, read_config, read_config_json, save_config
from jaxnmt.io import files
from jaxnmt.config import Experiment
from jaxnmt.errors import UserError

CONFIG = "config.json"
METRICS = "metrics.jsonl"
LOCK = "lock"
CHECKPOINTS, AVERAGE = "checkpoints", "average"
_LOG = re.compile(r"log(\.\w+)?|.+\.(log|out|err)(\.\d+)?")  # files that a shell, tee or a scheduler writes what is printed to
COMMITTED = "commit_success.txt"  # Orbax's, in a complete checkpoint

HARMLESS = (
    "training.max_minutes",
    "training.max_bad_steps",
    "training.stuck_minutes",
    "validation.samples",
    "validation.patience",
    "checkpoints.",
    "logging.",
    "decoding.",
    "data.source_language",
    "data.target_language",
    "data.test",
    "data.cache",
    "data.workers",
    "model.remat",
    "mesh.",
)
"""Fields that may change within a run: the parameters after step n do not depend on them (on the mesh: but for rounding)."""


def folder(run: str | pathlib.PurePath) -> pathlib.Path:
    """Return a run's folder by its name: a local one, or one in a bucket (`gs://bucket/runs/big`).

    Raises:
        UserError: its name is not UTF-8, what buckets need is not installed, or it is neither.
    """
    _refuse_undecodable(run)
    if isinstance(run, pathlib.PurePath) or "://" not in run:
        return pathlib.Path(run) if isinstance(run, str) else typing.cast(pathlib.Path, run)
    if not run.startswith("gs://"):
        raise UserError(f"{run}: of folders that are elsewhere, only gs:// ones are known")
    if set("*?[") & set(run):
        raise UserError(
            f"{run}: the name of a run in a bucket cannot have *, ? or [ in it, which gcsfs takes for a pattern: choose another"
        )
    if importlib.util.find_spec("gcsfs") is None:
        raise UserError(f"{run}: folders in a bucket need gcsfs (the extra gcs): pip install gcsfs")
    from jaxnmt.io.literal_paths import LiteralPath  # etils takes a quarter of a second to import

    return typing.cast(pathlib.Path, LiteralPath(run))


def _refuse_undecodable(run: str | pathlib.PurePath) -> None:
    """Refuse a folder that JSON and TensorStore could not name."""
    name = os.fspath(run) if files.in_bucket(run) else os.path.abspath(run)
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UserError(f"the folder {os.fsencode(name)!r} is not named in UTF-8, and a run cannot be kept there: choose another") from None


def read(run: str | pathlib.Path) -> Experiment:
    """Return the experiment of an existing run. The code of a model of the user's own is executed.

    Raises:
        UserError: the folder does not exist or is not a run; or the model's code is not trusted.
    """
    run = folder(run)
    _refuse_other_folder(run)
    return read_config(run / CONFIG)


def _refuse_other_folder(run: pathlib.Path) -> None:
    if not (run / CONFIG).is_file():
        runs = [str(found) for found in find_runs(run)] if run.is_dir() else []
        inside = f"; the runs in it are {', '.join(runs[:5])}" if runs else ""
        raise UserError(f"{run} {f'is not a run: it has no {CONFIG}' if run.exists() else 'does not exist'}{inside}")


def settings(run: pathlib.Path) -> dict[str, Any]:
    """Return what a run's `config.json` holds, as JSON: no code of the run is executed.

    Raises:
        UserError: the folder does not exist, or is not a run.
    """
    _refuse_other_folder(run)
    return read_config_json(run / CONFIG)


def setting(run: pathlib.Path, name: str) -> Any:
    """Return one of a run's `settings` by its dotted name; the default if an earlier version did not have it.

    Raises:
        UserError: as `settings`; or it is not of its type.
    """
    value: Any = settings(run)
    default: Any = Experiment()
    for part in name.split("."):
        value, default = value.get(part) if isinstance(value, dict) else None, getattr(default, part)
    if value is None:
        return default
    if not isinstance(value, int | float if isinstance(default, int | float) else type(default)):
        raise UserError(f"{run / CONFIG}: {name} is {value!r}; the file was changed: restore it")
    return value


def checkpoints(run: pathlib.Path) -> list[int]:
    """Return the steps of a run's complete checkpoints, oldest first.

    Orbax writes a checkpoint on this computer under another name and renames it; in a bucket the last file that it writes is `COMMITTED`.
    """
    folder = run / CHECKPOINTS
    found = [path for path in folder.iterdir() if path.name.isdigit() and path.is_dir()] if folder.is_dir() else []
    return sorted(int(path.name) for path in found if not files.in_bucket(path) or (path / COMMITTED).exists())


def unfinished_saves(run: pathlib.Path) -> list[int]:
    """Return the steps after the newest complete checkpoint whose saving was begun and never finished, oldest first."""
    folder, complete = run / CHECKPOINTS, checkpoints(run)
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    found = {int(match[1]) for name in names if (match := re.match(r"(\d+)(\.orbax-checkpoint-tmp|$)", name))}
    return sorted(step for step in found if step > max(complete, default=-1))


def find_runs(folder: pathlib.Path) -> list[pathlib.Path]:
    """The runs directly in a folder, by name."""
    return sorted(path.parent for path in folder.glob(f"*/{CONFIG}"))


def read_metrics(run: pathlib.Path, kind: str = "") -> list[dict[str, Any]]:
    """A run's records so far, or those of one kind ("train", "validation", "skipped"), in order. A line that was cut off (the process was
    killed, or the disk full) is no record."""
    path, records = run / METRICS, []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):
            records.append(json.loads(line))
    return [record for record in records if kind in ("", record["kind"])]


@contextlib.contextmanager
def held(run: pathlib.Path, say: Callable[[str], None]) -> Iterator[None]:
    """Keep a run, which may not be there yet, from other processes that would train it. The system lets go of it when this process
    ends, however it ends. A run in a bucket cannot be held.

    Args:
        say: gets a line for people where the file system knows no locks.

    Raises:
        UserError: another process holds it; the folder holds something else, or cannot be written.
    """
    if files.in_bucket(run):
        yield
        return
    refusal = UserError(f"another process is training {run}, or preparing its data: wait until it ends, stop it, or train another run")
    _refuse_something_else(run)
    with contextlib.ExitStack() as stack:
        with _writing(run):
            stack.enter_context(files.lock(run / LOCK, say, when_held=refusal))
        yield


def start(run: pathlib.Path, experiment: Experiment, moved: Collection[str] = ()) -> bool:
    """Make a run's folder, or open an existing one to go on with `experiment`; `config.json` is written.

    The first complete checkpoint binds a run to its settings and its text. Without one the run begins anew, and what an earlier try has
    left is removed, which may be of other settings or other text. The work is not lost: tokenizer and token ids are in the cache too.

    Args:
        moved: fields that may change since the text stays the same, or the scores: they name other files that hold it, or another language
            that is scored alike.

    Returns:
        Whether the run has a checkpoint.

    Raises:
        UserError: the folder holds something else or cannot be written, or a changed field would change the training.
    """
    _refuse_undecodable(run)
    _refuse_something_else(run)
    begun = bool(checkpoints(run))
    if not begun:
        _refuse_lost_checkpoints(run)
    else:
        refuse_changes(run, read_config(run / CONFIG), experiment, moved)
    with _writing(run):
        run.mkdir(parents=True, exist_ok=True)
        if not begun:
            _remove_traces(run)
        save_config(experiment, run / CONFIG)
    return begun


def _refuse_lost_checkpoints(run: pathlib.Path) -> None:
    """Refuse to begin a run anew whose checkpoints are somewhere else."""
    place = run / CHECKPOINTS
    if not files.in_bucket(run) and place.is_symlink() and not place.exists():
        raise UserError(f"{place} is a link to {os.readlink(place)}, which is not there: mount or create it, then repeat the command")
    if (run / AVERAGE).exists():
        raise UserError(
            f"{run} has an average of checkpoints and no checkpoints: put them back to go on, or choose another folder with --run"
        )


def _remove_traces(run: pathlib.Path) -> None:
    """Remove what training makes before its first checkpoint."""
    from jaxnmt.io.literal_paths import LiteralPath

    for name in ("tokenizer", "data.json", "batches.json", METRICS, "samples", "tensorboard", model_code.FILE):
        LiteralPath(run / name).rmtree(missing_ok=True)


def _refuse_something_else(run: pathlib.Path) -> None:
    if run.exists() and not run.is_dir():
        raise UserError(f"{run} is a file; --run takes a folder")
    if (run / CONFIG).is_file() or not run.is_dir():
        return
    killed = f".{CONFIG}."  # what `start` leaves
    if any(path.name != LOCK and not path.name.startswith(killed) and not is_log(path) for path in run.iterdir()):
        raise UserError(f"{run} is neither empty nor a run (it has no {CONFIG}); choose another folder with --run")


def is_log(path: pathlib.Path) -> bool:
    """Return whether a file is a log of the command: by its name, or because this process's stdout or stderr goes there."""
    if not path.is_file():
        return False
    if _LOG.fullmatch(path.name) or files.in_bucket(path):
        return bool(_LOG.fullmatch(path.name))
    with contextlib.suppress(OSError):  # one of them is closed
        return any(os.path.samestat(path.stat(), os.fstat(number)) for number in (1, 2))
    return False


@contextlib.contextmanager
def _writing(run: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{run} cannot be written ({error.strerror}): mend that, or choose another folder with --run") from error


def refuse_changes(run: pathlib.Path, old: Experiment, new: Experiment, moved: Collection[str] = ()) -> None:
    """Compare an existing run's settings with those asked for now; `moved` as in `start`.

    Raises:
        UserError: some differ that would change the training; each is listed as `field: old → new`.
    """
    changed = changed_fields(old, new)
    harmful = {name: values for name, values in changed.items() if name not in moved and not _harmless(name, old, new, *values)}
    if harmful:
        listed = "".join(f"\n  {name}: {_shown(before)} → {_shown(after)}" for name, (before, after) in harmful.items())
        raise UserError(
            f"{run} was started with other settings, which would change the training: choose another folder with --run, "
            f"or go on with it as it is with `jaxnmt resume {run}`{listed}"
        )


def _harmless(name: str, old: Experiment, new: Experiment, before: Any, after: Any) -> bool:
    if name == "training.steps":  # the learning rate of these two is counted from the last step
        return after > before and old.schedule.name not in ("cosine", "linear")
    if name == "validation.every":
        return old.schedule.name != "plateau"
    if bleu_decides(old, new) and _changes_validation_bleu(name, old):  # else it would be compared with BLEU of another kind
        return False
    return name.startswith(HARMLESS)


def bleu_decides(old: Experiment, new: Experiment) -> bool:
    """Whether validation BLEU decides the learning rate or when training stops."""
    return new.validation.metric == "bleu" and (old.schedule.name == "plateau" or bool(new.validation.patience))


def _changes_validation_bleu(name: str, experiment: Experiment) -> bool:
    """Whether a field that may change otherwise may change validation BLEU."""
    if name == "data.target_language":  # which may choose BLEU's tokenizer
        return True
    if not name.startswith("decoding.") or name in ("decoding.beam_size", "decoding.n_best", "decoding.batch_size"):
        return False  # validations have a beam of their own, and a translation does not depend on its batch
    return name != "decoding.length_penalty" or experiment.validation.beam_size > 1  # greedy search compares no lengths


def _shown(value: Any) -> str:
    return (" ".join(map(str, value)) or "(none)") if isinstance(value, tuple) else str(value) if value != "" else "(none)"
