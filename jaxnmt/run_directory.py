"""A run's folder: when it is made, when it is taken up again, who holds it, and when a changed setting is refused."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import pathlib
import typing
from collections.abc import Callable, Collection, Iterator
from typing import Any

from jaxnmt import config_files, whole_files
from jaxnmt.config import Experiment, UserError

CONFIG = "config.json"
METRICS = "metrics.jsonl"
LOCK = "lock"

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
    if whole_files.in_bucket(run):
        yield
        return
    import fcntl

    _refuse_something_else(run)
    with _writing(run):
        run.mkdir(parents=True, exist_ok=True)
        file = (run / LOCK).open("ab")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another process is training {run}, or preparing its data: wait until it has ended, or stop it, or train another run"
            ) from None
        except OSError as error:
            say(f"{run / LOCK} cannot be locked ({error.strerror}): do not train this run in two processes at once")
        yield


def start(run: pathlib.Path, experiment: Experiment, moved: Collection[str] = ()) -> bool:
    """Make a run's folder, or take up an existing one with `experiment`; `config.json` is written.

    Args:
        moved: fields that may change since the text stays the same, or the scores: they name other files that hold it, or another language
            that is scored alike.

    Returns:
        Whether the run existed.

    Raises:
        UserError: the folder holds something else, cannot be written, or a changed field would change the training.
    """
    _refuse_something_else(run)
    existed = (run / CONFIG).is_file()
    if existed and (run / "tokenizer").exists():  # else nothing was made yet: a first try may have named a file that is not there
        refuse_changes(run, config_files.read(run / CONFIG), experiment, moved)
    with _writing(run):
        run.mkdir(parents=True, exist_ok=True)
        config_files.save(experiment, run / CONFIG)
    return existed


def _refuse_something_else(run: pathlib.Path) -> None:
    if run.exists() and not run.is_dir():
        raise UserError(f"{run} is a file; --run takes a folder")
    if not (run / CONFIG).is_file() and run.is_dir() and any(path.name != LOCK for path in run.iterdir()):
        raise UserError(f"{run} is neither empty nor a run (it has no {CONFIG}); choose another folder with --run")


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
    changed = config_files.differences(old, new)
    harmful = {name: values for name, values in changed.items() if name not in moved and not _harmless(name, old, new, *values)}
    if harmful:
        listed = "".join(f"\n  {name}: {_shown(before)} → {_shown(after)}" for name, (before, after) in harmful.items())
        raise UserError(
            f"{run} was started with other settings, which would change the training: choose another folder with --run, "
            f"or take it up as it is with `jaxnmt resume {run}`{listed}"
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
