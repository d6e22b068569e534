"""Checkpoints: Orbax on disk, layers unstacked, parameters apart from optimizer state, each item with a checksum.

A step's folder holds `params`, `ema` (if one is kept), `optimizer` and `progress` (JSON). Orbax shows a step only when it is complete;
the checksums find a bit that flips afterwards. Orbax removes nothing: a checkpoint is removed when a newer one has been read back.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from jaxnmt import config as cfg
from jaxnmt import errors
from jaxnmt.io import files
from jaxnmt.io.literal_paths import LiteralPath
from jaxnmt.models.layers import at_least_float32
from jaxnmt.runs import directory as run_directory
from jaxnmt.runs.directory import checkpoints as steps
from jaxnmt.training.checksum import checksum
from jaxnmt.training.progress import Progress, Score
from jaxnmt.training.state import cast_like


def folder(run: Path) -> LiteralPath:
    """Return the folder of a run's checkpoints, as Orbax must be given it."""
    run = Path(run).absolute() if not files.in_bucket(run) else run
    return LiteralPath(run / run_directory.CHECKPOINTS)


def open_manager(run: Path, **options: Any) -> ocp.CheckpointManager:
    """Return Orbax's manager, which reads the score of every checkpoint and removes none."""
    with _readable_scores(run):
        return ocp.CheckpointManager(folder(run), options=ocp.CheckpointManagerOptions(**options))


@contextlib.contextmanager
def _readable_scores(run: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, TypeError) as error:
        raise errors.UserError(
            f"the score of a checkpoint of {run} cannot be read ({error}): remove the folder whose metrics are damaged from {folder(run)}"
        ) from error


def record_sum(record: dict) -> int:
    """Return the checksum of a record of progress or metrics without its checksums."""
    return zlib.crc32(json.dumps({name: value for name, value in record.items() if name != "checksums"}, sort_keys=True).encode())


def restore(manager: ocp.CheckpointManager, run: Path, step: int, items: dict[str, Any]) -> tuple[dict[str, Any], dict]:
    """Return items of a checkpoint, laid out like the ShapeDtypeStructs given, and its progress record.

    Raises:
        UserError: it is damaged.
    """
    arguments = {name: ocp.args.StandardRestore(item) for name, item in items.items()}
    try:
        found = manager.restore(step, args=ocp.args.Composite(**arguments, progress=ocp.args.JsonRestore()))
    except Exception as error:  # Orbax says so of lost data: nothing narrower
        raise _unreadable(run, step, error) from error
    record = found["progress"]
    sums = record.get("checksums", {})
    _check(run, step, {name: int(checksum(found[name])) == sums.get(name) for name in items} | {"progress": _is_intact(record, "progress")})
    return {name: found[name] for name in items}, record


def _check(run: Path, step: int, intact: dict[str, bool]) -> None:
    """Refuse a checkpoint with an item whose checksum is another."""
    for name in intact:
        if not intact[name]:
            raise errors.UserError(f"checkpoint {step} of {run} is damaged: its {name} are not what was written; {_instead(run, step)}")


def _is_intact(record: dict, item: str) -> bool:
    return record.get("checksums", {}).get(item) in (None, record_sum(record))  # earlier versions had none


def _unreadable(run: Path, step: int, error: BaseException) -> errors.UserError:
    return errors.UserError(f"checkpoint {step} of {run} cannot be read ({errors.first_line(error)[:200]}); {_instead(run, step)}")


def _instead(run: Path, step: int) -> str:
    return f"remove the folder {folder(run) / str(step)} to use an older one"


def read_json(run: Path, step: int, item: str) -> Any:
    """Return a checkpoint's progress or metrics. Nothing here waits for another process."""
    handler = ocp.JsonCheckpointHandler(**({"filename": item} if item == "metrics" else {}))
    return handler.restore(folder(run) / str(step) / item)


def _record(run: Path, step: int) -> dict[str, Any]:
    try:
        record = read_json(run, step, "progress")
        _check(run, step, {"progress": _is_intact(record, "progress")})
    except (OSError, ValueError, AttributeError) as error:
        raise _unreadable(run, step, error) from error
    return record


def read_progress(run: Path, step: int) -> Progress:
    """Return what training knew at a step.

    Raises:
        UserError: it is damaged.
    """
    return Progress.read(_record(run, step), unnamed_metric(run))


def recorded_checksum(run: Path, step: int, averaged: bool) -> int | None:
    """Return the checksum of the parameters that decoding uses, recorded when checkpoint `step` was written; they are not read."""
    return _record(run, step).get("checksums", {}).get("ema" if averaged else "params")


def scores(run: Path) -> dict[int, Score]:
    """Return the validation scores that can be compared with the newest one, by checkpoint.

    Raises:
        UserError: one is damaged.
    """
    found, unnamed = {}, unnamed_metric(run)
    for step in steps(run):
        with contextlib.suppress(FileNotFoundError), _readable_scores(run):
            saved = read_json(run, step, "metrics")
            _check(run, step, {"metrics": _is_intact(saved, "metrics")})
            found[step] = Score(saved.get("metric", unnamed), float(saved["score"]), saved.get("loss"), saved.get("signature"))
    found = {step: score for step, score in found.items() if math.isfinite(score.value)}  # earlier versions wrote -inf for NaN
    return {step: score for step, score in found.items() if score.kind == found[max(found)].kind}


def unnamed_metric(run: Path) -> str:
    """Return what a score is of that names no metric: earlier versions did not save it."""
    return run_directory.setting(run, "validation.metric") if (run / run_directory.CONFIG).exists() else cfg.Validation().metric


def best_step(run: Path) -> int | None:
    """Return the checkpoint with the best validation score, of equal ones the earliest, or the newest checkpoint if none has a score."""
    scored = scores(run)
    return max(scored, key=lambda step: (scored[step].rank, -step)) if scored else max(steps(run), default=None)


def restore_params(run: Path, abstract_params: Any, step: int, averaged: bool) -> Any:
    """Return the parameters that decoding uses, layers unstacked: the EMA if the run keeps one.

    Raises:
        UserError: no such checkpoint, or a damaged one.
    """
    if step not in steps(run):
        raise errors.UserError(f"{run} has no checkpoint {step}; it has {', '.join(map(str, steps(run))) or 'none yet'}")
    name = "ema" if averaged else "params"
    stored = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, at_least_float32(x.dtype), sharding=x.sharding), abstract_params)
    with contextlib.closing(open_manager(run, read_only=True)) as manager:
        found, _ = restore(manager, run, step, {name: stored if averaged else abstract_params})
    return cast_like(abstract_params, found[name])


_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


@contextlib.contextmanager
def disk_errors(run: Path):
    """A full or read-only disk is the user's to mend: one sentence. TensorStore hides the system's error number in a ValueError's text."""
    try:
        yield
    except (OSError, ValueError) as error:
        hidden = re.search(r"os_error_code='(\d+)'", str(error))
        number = int(hidden[1]) if hidden else getattr(error, "errno", None)
        if number not in _DISK:
            raise
        raise errors.UserError(
            f"{getattr(error, 'filename', None) or run} cannot be written ({os.strerror(number)}): mend that, "
            f"then `jaxnmt resume {run}` goes on from the last whole checkpoint"
        ) from error
