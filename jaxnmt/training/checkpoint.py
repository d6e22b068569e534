"""Checkpoints: Orbax on disk, layers unstacked, parameters apart from optimizer state, each item with a checksum.

A step's folder holds `params`, `ema` (where one is kept), `optimizer` and `progress` (JSON). Orbax makes a step visible
only when it is whole; it does not notice a bit that flips afterwards, so the checksums do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import logging
import math
import os
import re
import shutil
import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from jaxnmt import config as cfg
from jaxnmt import whole_files
from jaxnmt.models.layers import mix
from jaxnmt.parallel import distributed
from jaxnmt.training.state import TrainState

for name in ("absl", "asyncio"):  # what fails in Orbax's threads is raised again in ours, as one error instead of thirty
    logging.getLogger(name).setLevel(logging.CRITICAL)


@dataclasses.dataclass
class Progress:
    """What training knows besides the arrays; all of it is saved, so that a resumed run is the same run.

    Attributes:
        best_score: best validation score so far (higher is better), and the step it was reached at.
        bar: best score at a multiple of `validation.every`, which patience and the plateau go by.
        stale: validations since then; `plateau_stale`: validations since the learning rate was last cut, or since then.
        seconds: of training, all sessions together; `unlogged`: of them, since the last log line.
        target_tokens, source_tokens: trained on so far.
        window: running sums of the log line that is being gathered.
    """

    best_score: float | None = None
    best_step: int = 0
    bar: float | None = None
    stale: int = 0
    plateau_stale: int = 0
    seconds: float = 0.0
    unlogged: float = 0.0
    target_tokens: int = 0
    source_tokens: int = 0
    window: dict[str, float] = dataclasses.field(default_factory=dict)


def folder(run: Path) -> Path:
    """Where a run's checkpoints lie."""
    return run / "checkpoints" if whole_files.in_bucket(run) else (run / "checkpoints").absolute()


@jax.jit
def checksum(tree: Any) -> jax.Array:
    """A uint32 that changes when any bit of any leaf does; the same for every mesh."""
    total = jnp.uint32(0)
    for number, leaf in enumerate(jax.tree.leaves(tree)):
        bits = leaf if leaf.dtype == jnp.uint32 else jax.lax.bitcast_convert_type(leaf, jnp.uint32)
        place = jnp.uint32(0)  # of each number in its leaf, row by row; the leaf keeps its shape, and so lies where it lay
        for axis, length in enumerate(leaf.shape):
            place = place * jnp.uint32(length) + jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis)
        total += (bits * (mix(place + jnp.uint32(number * 0x9E3779B1 % 2**32)) | jnp.uint32(1))).sum(dtype=jnp.uint32)
    return total


def _rank(metrics: dict) -> tuple[float, int]:
    """The best checkpoint is the greatest; of equals, the earlier."""
    return metrics["score"], -metrics["step"]


class CheckpointStore:
    """Saves and restores a run's training state; keeps the latest and the best."""

    def __init__(self, run: Path, config: cfg.Checkpoints):
        keep = policies.AnyPreservationPolicy(
            [
                policies.LatestN(max(config.keep_latest, 1)),
                policies.BestN(n=config.keep_best, get_metric_fn=_rank, keep_checkpoints_without_metrics=False),
            ]
        )
        self._run = run
        self._manager = _open(
            run,
            preservation_policy=keep,
            best_fn=_rank,  # without it Orbax drops the scores
            cleanup_tmp_directories=True,
            enable_async_checkpointing=True,
        )

    def latest(self) -> int | None:
        """The newest complete step."""
        return self._manager.latest_step()

    def save(self, state: TrainState, progress: Progress, score: float | None) -> None:
        """Start writing a checkpoint in the background. `state` has its layers unstacked.

        Raises:
            UserError: there is no room for it, or the one before could not be written.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        items = {"params": state.params, "optimizer": _optimizer_item(state)} | ({} if state.ema is None else {"ema": state.ema})
        with distributed.leader_first("save a checkpoint"):
            _check_space(self._run, items)
        record = dataclasses.asdict(progress) | {"step": step}
        record["checksums"] = {name: int(checksum(item)) for name, item in items.items()} | {"progress": _record_sum(record)}
        arguments = {name: ocp.args.StandardSave(item) for name, item in items.items()}
        with disk_errors(self._run):
            self._manager.save(
                step,
                args=ocp.args.Composite(**arguments, progress=ocp.args.JsonSave(record)),
                metrics=None if score is None else {"score": score, "step": step},
            )

    def restore(self, step: int, abstract: TrainState) -> tuple[TrainState, Progress]:
        """The state (layers unstacked, laid out like `abstract`) and progress of a step.

        Raises:
            UserError: the checkpoint is damaged.
        """
        items = {"params": abstract.params, "optimizer": _optimizer_item(abstract)} | (
            {} if abstract.ema is None else {"ema": abstract.ema}
        )
        found, record = _restore(self._manager, self._run, step, items)
        return TrainState(params=found["params"], ema=found.get("ema"), **found["optimizer"]), _progress(record)

    def wait(self) -> None:
        """Until what was saved is on disk."""
        with disk_errors(self._run):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Finish writing and let go."""
        self.wait()
        self._manager.close()


def _open(run: Path, **options: Any) -> ocp.CheckpointManager:
    """Orbax's manager; it reads the score of every checkpoint."""
    try:
        return ocp.CheckpointManager(folder(run), options=ocp.CheckpointManagerOptions(**options))
    except (ValueError, KeyError) as error:
        raise cfg.UserError(
            f"the score of a checkpoint of {run} cannot be read ({error}): remove the folder whose metrics are damaged from {folder(run)}"
        ) from error


def _record_sum(record: dict) -> int:
    """Checksum of a progress record but for its checksums."""
    return zlib.crc32(json.dumps({name: value for name, value in record.items() if name != "checksums"}, sort_keys=True).encode())


def _optimizer_item(state: TrainState) -> dict[str, Any]:
    return {"step": state.step, "opt_state": state.opt_state, "lr_scale": state.lr_scale, "bad_steps": state.bad_steps}


def _progress(record: dict) -> Progress:
    fields = {field.name for field in dataclasses.fields(Progress)}
    record = {"bar": record.get("best_score")} | record  # earlier versions had one for both
    return Progress(**{name: value for name, value in record.items() if name in fields})


def _restore(manager: ocp.CheckpointManager, run: Path, step: int, items: dict[str, Any]) -> tuple[dict[str, Any], dict]:
    arguments = {name: ocp.args.StandardRestore(item) for name, item in items.items()}
    instead = f"remove the folder {folder(run) / str(step)} to use an older one"
    try:
        found = manager.restore(step, args=ocp.args.Composite(**arguments, progress=ocp.args.JsonRestore()))
    except Exception as error:  # Orbax says so of lost data: nothing narrower
        raise cfg.UserError(f"checkpoint {step} of {run} cannot be read ({cfg.first_line(error)[:200]}); {instead}") from error
    record = found["progress"]
    sums = record.get("checksums", {})
    intact = {name: int(checksum(found[name])) == sums.get(name) for name in items}
    intact["progress"] = sums.get("progress") in (None, _record_sum(record))  # earlier versions had none
    for name in intact:
        if not intact[name]:
            raise cfg.UserError(f"checkpoint {step} of {run} is damaged: its {name} are not what was written; {instead}")
    return {name: found[name] for name in items}, record


def steps(run: Path) -> list[int]:
    """Complete checkpoints of a run, oldest first."""
    if not folder(run).is_dir():
        return []
    numbered = [path for path in folder(run).glob("*") if path.name.isdigit()]
    return sorted(int(path.name) for path in numbered if ocp.utils.is_checkpoint_finalized(path))  # in a bucket, a name says nothing


def read_progress(run: Path, step: int) -> Progress:
    """What training knew at a step."""
    with _reader(run) as manager:
        return _progress(_restore(manager, run, step, {})[1])


def recorded_checksum(run: Path, step: int, averaged: bool) -> int | None:
    """What `checksum` gave of the parameters that decoding uses when checkpoint `step` was written; they are not read."""
    with _reader(run) as manager:
        return _restore(manager, run, step, {})[1].get("checksums", {}).get("ema" if averaged else "params")


def scores(run: Path) -> dict[int, float]:
    """The validation score of each checkpoint that has one."""
    with _reader(run) as manager:
        found = {step: metrics["score"] for step in steps(run) if (metrics := manager.metrics(step))}
    return {step: score for step, score in found.items() if math.isfinite(score)}  # versions before wrote -inf where it was no number


def best_step(run: Path) -> int | None:
    """The checkpoint with the best validation score, or the newest where none has one."""
    scored = scores(run)
    return max(scored, key=lambda step: (scored[step], -step)) if scored else max(steps(run), default=None)


def restore_params(run: Path, abstract_params: Any, step: int, averaged: bool) -> Any:
    """The parameters that decoding uses, layers unstacked: the moving average where the run keeps one.

    Raises:
        UserError: no such checkpoint, or a damaged one.
    """
    if step not in steps(run):
        raise cfg.UserError(f"{run} has no checkpoint {step}; it has {', '.join(map(str, steps(run))) or 'none yet'}")
    name = "ema" if averaged else "params"
    with _reader(run) as manager:
        found, _ = _restore(manager, run, step, {name: abstract_params})
    return found[name]


@contextlib.contextmanager
def _reader(run: Path):
    manager = _open(run, read_only=True)
    try:
        yield manager
    finally:
        manager.close()


def _check_space(run: Path, items: dict[str, Any]) -> None:
    """Refuse before anything is written what would end half-written."""
    if whole_files.in_bucket(run):  # which is never full
        return
    needed = 1.1 * sum(leaf.nbytes for leaf in jax.tree.leaves(items)) + 2**20  # and some for metadata
    free = shutil.disk_usage(run).free
    if free < needed:
        raise cfg.UserError(
            f"{run}: the disk has {free / 2**20:,.0f} MiB left and a checkpoint takes {needed / 2**20:,.0f}: "
            f"free some space, then `jaxnmt resume {run}` goes on from the last checkpoint"
        )


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
        raise cfg.UserError(
            f"{getattr(error, 'filename', None) or run} cannot be written ({os.strerror(number)}): mend that, "
            f"then `jaxnmt resume {run}` goes on from the last whole checkpoint"
        ) from error
