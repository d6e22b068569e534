"""A run's folder: made, resumed, locked, read and shown; changed settings that would change the training are refused."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import pathlib
import re
from collections.abc import Callable, Collection
from typing import Any

from jaxnmt.config import Experiment, model_code
from jaxnmt.config.files import changed_fields, read_config, read_config_json, save_config, tupled
from jaxnmt.errors import UserError
from jaxnmt.io import files

CONFIG = "config.json"
METRICS = "metrics.jsonl"
LOCK = "lock"
CHECKPOINTS, AVERAGE = "checkpoints", "average"
_LOG = re.compile(r"log(\.\w+)?|.+\.(log|out|err)(\.\d+)?")  # what a shell, tee or a scheduler calls files of printed lines
COMMITTED = "commit_success.txt"  # Orbax writes it last into a checkpoint in a bucket

HARMLESS = (
    *("training.max_minutes", "training.max_bad_steps", "training.stuck_minutes"),
    *("data.source_language", "data.target_language", "data.test", "data.cache", "data.workers"),
    *("validation.samples", "validation.patience", "model.remat"),
    *("checkpoints.", "logging.", "decoding.", "mesh."),
)
"""Fields that may change within a run: the parameters after step n do not depend on them (on the mesh only by rounding)."""


def folder(run: str | pathlib.PurePath) -> pathlib.Path:
    """Return a run's folder by its name: a local one, or one in a bucket (`gs://bucket/runs/big`).

    Raises:
        UserError: the name is not UTF-8 (JSON and TensorStore could not write it), the folder is elsewhere, or gcsfs is not installed.
    """
    name = os.fspath(run) if files.in_bucket(run) else os.path.abspath(run)
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UserError(f"the folder {os.fsencode(name)!r} is not named in UTF-8, and a run cannot be kept there: choose another") from None
    if files.in_bucket(name):
        if not name.startswith("gs://"):
            raise UserError(f"{name}: of remote folders, only gs:// ones are supported")
        if set("*?[") & set(name):
            raise UserError(f"{name}: a run's name in a bucket cannot contain *, ? or [, which gcsfs takes for a pattern: choose another")
        if importlib.util.find_spec("gcsfs") is None:
            raise UserError(f"{name}: folders in a bucket need gcsfs (the extra gcs): pip install gcsfs")
    return files.to_path(run)


def is_run(name: str) -> bool:
    """Return whether a name is that of a run's folder, such as one that may also name a config."""
    return (folder(name) / CONFIG).is_file()


def read(run: str | pathlib.Path) -> Experiment:
    """Return the experiment of an existing run. The code of a user's own model is executed.

    Raises:
        UserError: the folder does not exist or is not a run, or the model's code is not trusted.
    """
    return read_config(_config(folder(run)))


def settings(run: pathlib.Path) -> dict[str, Any]:
    """Return a run's `config.json` as dictionaries, without executing code.

    Raises:
        UserError: the folder does not exist or is not a run.
    """
    return read_config_json(_config(run))


def _config(run: pathlib.Path) -> pathlib.Path:
    if not (run / CONFIG).is_file():
        runs = find_runs(run)
        inside = f"; the runs in it are {', '.join(map(str, runs[:5]))}" if runs else ""
        raise UserError(f"{run} {f'is not a run: it has no {CONFIG}' if run.exists() else 'does not exist'}{inside}")
    return run / CONFIG


def checkpoints(run: pathlib.Path) -> list[int]:
    """Return the steps of a run's complete checkpoints, oldest first.

    Orbax writes a local checkpoint under another name and renames it; in a bucket it writes `COMMITTED` last.
    """
    folder = run / CHECKPOINTS
    found = [path for path in folder.iterdir() if path.name.isdigit() and path.is_dir()] if folder.is_dir() else []
    return sorted(int(path.name) for path in found if not files.in_bucket(path) or (path / COMMITTED).exists())


def where_training_begins(run: pathlib.Path) -> str:
    """Return a line for people: the checkpoint that training resumes from, and the save that an earlier session did not finish."""
    newest = max(checkpoints(run), default=-1)
    names = [path.name for path in (run / CHECKPOINTS).iterdir()] if (run / CHECKPOINTS).is_dir() else []
    begun = max((int(match[1]) for name in names if (match := re.match(r"(\d+)(\.orbax-checkpoint-tmp|$)", name))), default=-1)
    lost = f"; the save of step {begun:,} was not finished" if begun > newest else ""
    if newest >= 0:
        return f"resuming the run {run} from checkpoint {newest:,}{lost}"
    again = " from the beginning: it has no complete checkpoint" if (run / CONFIG).exists() else ""
    return f"starting the run {run}{again}{lost}"


def find_runs(folder: pathlib.Path) -> list[pathlib.Path]:
    """Return the runs directly in a folder, sorted by name."""
    return sorted(path.parent for path in folder.glob(f"*/{CONFIG}"))


def read_metrics(run: pathlib.Path, kind: str = "") -> list[dict[str, Any]]:
    """Return the records of a run's metrics.jsonl, in order. A line that was cut off (the process was killed, or the disk full) is skipped.

    Args:
        run: the run's folder.
        kind: "train", "validation", "skipped" or "init"; "" for all.
    """
    path, records = run / METRICS, []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):
            records.append(json.loads(line))
    return [record for record in records if kind in ("", record["kind"])]


def ancestry(run: pathlib.Path) -> list[dict[str, Any]]:
    """Return where a run's first parameters are from, and those of that run's, and so on: the newest first, empty if they were random.

    Each record has "from", "checkpoint", "checksum" and "parameters". A run keeps those of all its ancestors, which need not exist.
    """
    records = read_metrics(run, "init")[:1]
    own = [{name: value for name, value in record.items() if name not in ("kind", "step", "ancestors", "timing")} for record in records]
    return own + [each for record in records for each in record.get("ancestors", ())]


def locked(run: pathlib.Path, say: Callable[[str], None]) -> contextlib.AbstractContextManager[None]:
    """Lock a run's folder, which is made if it does not exist, so that no other process trains the run. A run in a bucket is not locked.

    The system removes the lock when this process ends, however it ends.

    Args:
        run: the run's folder.
        say: is called with a line for people if the file system has no locks.

    Raises:
        UserError: another process has locked it, or the folder holds something else.
        OSError: the folder cannot be written.
    """
    if files.in_bucket(run):
        return contextlib.nullcontext()
    _refuse_something_else(run)
    refusal = UserError(f"another process is training {run}, or preparing its data: wait until it ends, stop it, or train another run")
    return files.lock(run / LOCK, say, when_held=refusal)


def start(run: pathlib.Path, experiment: Experiment, moved: Collection[str] = ()) -> bool:
    """Make a run's folder, or open an existing one to resume with `experiment`, and write `config.json`.

    The first complete checkpoint binds a run to its settings and its text. Without a checkpoint the run begins anew, and what an earlier
    try left is removed, since it may be of other settings or text. No work is lost: tokenizer and token ids are in the cache too.

    Args:
        run: the run's folder.
        experiment: its settings from now on.
        moved: fields that may change because the text and the scores stay the same: they name other files with the same text, or another
            language that is scored alike.

    Returns:
        True if the run has a checkpoint.

    Raises:
        UserError: the folder holds something else, a changed field would change the training, or init.from is not a run.
        OSError: the folder cannot be written.
    """
    _refuse_something_else(run)
    begun = bool(checkpoints(run))
    if begun:
        _refuse_changes(run, read_config(run / CONFIG), experiment, moved)
    else:
        _refuse_lost_checkpoints(run)
        if (other := experiment.init.from_) and not is_run(other):
            raise UserError(f"init.from {other} is not a run: it has no {CONFIG}")
        _remove_traces(run)
    run.mkdir(parents=True, exist_ok=True)
    save_config(experiment, run / CONFIG)
    return begun


def _refuse_lost_checkpoints(run: pathlib.Path) -> None:
    """Refuse to begin a run anew if its checkpoints are somewhere else."""
    place = run / CHECKPOINTS
    if not files.in_bucket(run) and place.is_symlink() and not place.exists():
        raise UserError(f"{place} is a link to {os.readlink(place)}, which does not exist: mount or create it, then repeat the command")
    if (run / AVERAGE).exists():
        raise UserError(f"{run} has an average of checkpoints and no checkpoints: put them back, or choose another folder with --run")


def _remove_traces(run: pathlib.Path) -> None:
    """Remove what training writes before its first checkpoint."""
    from jaxnmt.io.literal_paths import LiteralPath

    for name in ("tokenizer", "data.json", "batches.json", METRICS, "samples", "tensorboard", model_code.FILE):
        LiteralPath(run / name).rmtree(missing_ok=True)


def _refuse_something_else(run: pathlib.Path) -> None:
    if run.is_file():
        raise UserError(f"{run} is a file; --run takes a folder")
    found = run.iterdir() if run.is_dir() and not (run / CONFIG).is_file() else ()
    killed = f".{CONFIG}."  # what `start` leaves
    if any(path.name != LOCK and not path.name.startswith(killed) and not is_log(path) for path in found):
        raise UserError(f"{run} is neither empty nor a run (it has no {CONFIG}); choose another folder with --run")


def is_log(path: pathlib.Path) -> bool:
    """Return whether a file is a log of the command: by its name, or because this process writes its stdout or stderr there."""
    if files.in_bucket(path) or _LOG.fullmatch(path.name):
        return path.is_file() and bool(_LOG.fullmatch(path.name))
    with contextlib.suppress(OSError):  # one of them is closed
        return any(os.path.samestat(path.stat(), os.fstat(number)) for number in (1, 2))
    return False


def _refuse_changes(run: pathlib.Path, old: Experiment, new: Experiment, moved: Collection[str]) -> None:
    """Refuse changed settings that would change the training. Each one is listed as `field: old → new`."""
    listed = [
        f"\n  {name}: {_shown(before)} → {_shown(after)}"
        for name, (before, after) in changed_fields(old, new).items()
        if name not in moved and not _harmless(name, old, new, before, after)
    ]
    if listed:
        raise UserError(
            f"{run} was started with other settings, which would change the training: choose another folder with --run, "
            f"or resume it as it is with `jaxnmt resume {run}`{''.join(listed)}"
        )


def _harmless(name: str, old: Experiment, new: Experiment, before: Any, after: Any) -> bool:
    if name == "training.steps":  # these two schedules count from the last step
        return after > before and getattr(old.schedule, "name", "") in ("noam", "constant", "plateau")
    if name == "validation.every":
        return getattr(old.schedule, "name", "") != "plateau"
    if bleu_decides(old, new) and _changes_validation_bleu(name, old):  # scores of two kinds would be compared
        return False
    return name.startswith(HARMLESS)


def bleu_decides(old: Experiment, new: Experiment) -> bool:
    """Return whether validation BLEU decides the learning rate or when training stops."""
    return new.validation.metric == "bleu" and (getattr(old.schedule, "name", "") == "plateau" or bool(new.validation.patience))


def _changes_validation_bleu(name: str, experiment: Experiment) -> bool:
    """Return whether a field may change validation BLEU."""
    if name == "data.target_language":  # it may choose BLEU's tokenizer
        return True
    no_effect = ("decoding.beam_size", "decoding.n_best", "decoding.batch_size", "decoding.batch_tokens")
    if not name.startswith("decoding.") or name in no_effect:
        return False  # validation has its own beam size, and a translation does not depend on its batch
    of_length = name in ("decoding.length_penalty", "decoding.length_normalization")
    return not of_length or experiment.validation.beam_size > 1  # greedy search compares no lengths


def _shown(value: Any) -> str:
    return (" ".join(map(str, value)) if isinstance(value, tuple) else str(value)) or "(none)"


# ---- shown


def show(path: pathlib.Path) -> str:
    """Return what `jaxnmt runs show` prints: a run's summary, or a table of the runs in a folder. No code of a run is executed.

    Raises:
        UserError: the path is not a run and holds none.
    """
    runs = find_runs(path)
    if not runs or (path / CONFIG).exists():
        return _summary(path)
    width = max(len(run.name) for run in runs)
    return "\n".join(f"{run.name:<{width}}  {_progress(run)}" for run in runs)


def _summary(run: pathlib.Path) -> str:
    values = {name: value for name, value in _flat(settings(run)).items() if value not in ((), "")}
    model = values.pop("model.type").rpartition(":")[2]
    lines = [f"{run}: {model}, {_progress(run)}", f"checkpoints: {', '.join(map(str, checkpoints(run))) or 'none'}"]
    lines += _ancestors(run, values)
    if validations := read_metrics(run, "validation"):
        lines += ["validations:", *(f"  step {record['step']:,}: {_numbers(record)}" for record in validations)]
    width = max(map(len, values))
    return "\n".join([*lines, "settings:", *(f"  {name:<{width}}  {_shown(value)}" for name, value in values.items())])


def _ancestors(run: pathlib.Path, values: dict[str, Any]) -> list[str]:
    """Return a line for each ancestor of a run, the newest first.

    A run records its ancestors when it saves its first checkpoint. Before that, the first line comes from its settings.
    """
    records, lines = ancestry(run), []
    if not records and not checkpoints(run) and (parent := values.get("init.from")):
        which = values.get("init.checkpoint", "best")
        named = {"average": "average", "best": "the best checkpoint", "latest": "the latest checkpoint"}.get(which, f"checkpoint {which}")
        lines.append(f"begins with {named} of {parent}")
        records = ancestry(folder(parent))
    for record in records:
        named = "average of" if record["checkpoint"] == "average" else f"checkpoint {record['checkpoint']} of"
        which = "which " if lines else ""
        counted = f"({record['parameters']:,} parameters, checksum {record['checksum']})"
        lines.append(f"{which}began with {named} {record['from']} {counted}")
    return lines


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested objects by their dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": tupled(value)}
    return found


def _progress(run: pathlib.Path) -> str:
    """Return the steps done, the last training figures and the best validation, in one line."""
    records, steps = read_metrics(run), settings(run)["training"]["steps"]
    step = max([0, *checkpoints(run), *(record["step"] for record in records)])
    parts = [f"step {step:,} of {steps:,}"]
    if training := [record for record in records if record["kind"] == "train"]:
        parts.append(f"loss {_number(training[-1]['loss'])}")
    if best := [record for record in records if record["kind"] == "validation" and record["best"]]:
        parts.append(f"best validation at step {best[-1]['step']:,}: {_numbers(best[-1])}")
    return ", ".join(parts)


def _numbers(record: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_number(record[name])}" for name in ("bleu", "accuracy", "loss", "perplexity") if name in record)


def _number(value: float | None) -> str:
    return "NaN" if value is None else f"{value:.4g}"
