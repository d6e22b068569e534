"""Writing a run's checkpoints, and removing old ones once a newer one has been read back."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import tree as orbax_tree

from jaxnmt import config as cfg
from jaxnmt import errors
from jaxnmt.io import files
from jaxnmt.io.literal_paths import LiteralPath
from jaxnmt.parallel import distributed
from jaxnmt.runs import directory as run_directory
from jaxnmt.training import checkpoint
from jaxnmt.training.checkpoint import disk_errors, folder, steps
from jaxnmt.training.checksum import checksum
from jaxnmt.training.progress import Progress, Score
from jaxnmt.training.state import TrainState


class _Saved(NamedTuple):
    """A checkpoint that was given to Orbax and has not been read back."""

    step: int
    items: dict[str, Any]  # what `_read_back` must return of each


class CheckpointStore:
    """Saves and restores a run's training state; keeps the latest and the best.

    With several processes, all of them call the same methods in the same order.
    """

    def __init__(self, run: Path, config: cfg.Checkpoints):
        self._run, self._config = run, config
        self._saved: _Saved | None = None
        by_score = {"best_fn": lambda metrics: metrics["score"]}  # without it Orbax saves no score
        self._manager = checkpoint.open_manager(run, cleanup_tmp_directories=True, **by_score)

    def __enter__(self) -> CheckpointStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind:  # another process may not be on its way here: agree on nothing
            with disk_errors(self._run):
                self._manager.close()
        else:
            self.close()

    def latest(self) -> int | None:
        """Return the newest complete step."""
        return self._manager.latest_step()

    def save(self, state: TrainState, progress: Progress, score: Score | None) -> None:
        """Start writing a checkpoint in the background. `state` has its layers unstacked.

        Raises:
            UserError: there is no room for it; or the one before could not be written, or not be read back.
        """
        self.wait()
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        items = _items(state)
        with distributed.leader_first("save a checkpoint"):
            _check_space(self._run, items)
        record = dataclasses.asdict(progress) | {"step": step}
        record["checksums"] = {name: int(checksum(item)) for name, item in items.items()} | {"progress": checkpoint.record_sum(record)}
        arguments = {name: ocp.args.StandardSave(item) for name, item in items.items()}
        with disk_errors(self._run):
            begun = self._manager.save(
                step,
                args=ocp.args.Composite(**arguments, progress=ocp.args.JsonSave(record)),
                metrics=None if score is None else _metrics(step, score),
            )
        if not begun:  # Orbax refuses in silence
            raise errors.UserError(f"{self._run} has a checkpoint after step {step}: another process trains it, or its folder was changed")
        self._saved = _Saved(step, {"progress": _text(record)} | {name: _shapes(item) for name, item in items.items()})

    def restore(self, step: int, abstract: TrainState) -> tuple[TrainState, Progress]:
        """Return the state (layers unstacked, laid out like `abstract`) and progress of a step.

        Raises:
            UserError: the checkpoint is damaged.
        """
        found, record = checkpoint.restore(self._manager, self._run, step, _items(abstract))
        progress = Progress.read(record, checkpoint.unnamed_metric(self._run))
        return TrainState(params=found["params"], ema=found.get("ema"), **found["optimizer"]), progress

    def wait(self) -> None:
        """Wait until the last checkpoint is on disk, read it back, and only then remove those that are kept no longer.

        Raises:
            UserError: it could not be written, or is not found complete; the older ones are still there.
        """
        with disk_errors(self._run):
            self._manager.wait_until_finished()
        saved, self._saved = self._saved, None
        if saved is None:
            return
        with distributed.leader_first("read the new checkpoint back"):
            if distributed.is_leader():
                _prove(self._run, saved)
                with disk_errors(self._run):
                    self._collect()

    def close(self) -> None:
        """Finish writing, as `wait` does, and release everything."""
        self.wait()
        self._manager.close()

    def _collect(self) -> None:
        """Remove the checkpoints that are neither among the latest nor among the best."""
        found, scored = steps(self._run), checkpoint.scores(self._run)
        best = sorted(scored, key=lambda step: (scored[step].rank, -step), reverse=True)[: self._config.keep_best]
        for step in found[: -max(self._config.keep_latest, 1)]:
            if step not in best:
                _remove(folder(self._run) / str(step))


def _metrics(step: int, score: Score) -> dict[str, Any]:
    record = dataclasses.asdict(score) | {"score": score.value, "step": step}  # by "score" Orbax knows the best
    return record | {"checksums": {"metrics": checkpoint.record_sum(record)}}


def _items(state: TrainState) -> dict[str, Any]:
    """Return what a checkpoint holds as arrays; decoding reads `params` or `ema` alone."""
    optimizer = {"step": state.step, "opt_state": state.opt_state, "lr_scale": state.lr_scale, "bad_steps": state.bad_steps}
    return {"params": state.params, "optimizer": optimizer} | ({} if state.ema is None else {"ema": state.ema})


def _check_space(run: Path, items: dict[str, Any]) -> None:
    """Refuse before anything is written what would end half-written."""
    if files.in_bucket(run):  # which is never full
        return
    needed = 1.1 * sum(leaf.nbytes for leaf in jax.tree.leaves(items)) + 2**20  # and some for metadata
    free = shutil.disk_usage(run).free
    if free < needed:
        raise errors.UserError(
            f"{run}: the disk has {free / 2**20:,.0f} MiB left and a checkpoint takes {needed / 2**20:,.0f}: "
            f"free some space, then `jaxnmt resume {run}` goes on from the last checkpoint"
        )


def _shapes(tree: Any) -> dict[Any, Any]:
    """Return shape and dtype of each array of a tree, or of its metadata on disk."""
    leaves = orbax_tree.to_flat_dict(tree).items()
    return {path: (tuple(leaf.shape), str(leaf.dtype)) for path, leaf in leaves if hasattr(leaf, "shape")}


def _text(record: dict) -> str:
    """Return JSON that is the same before and after a record was saved."""
    return json.dumps(record, sort_keys=True)


def _prove(run: Path, saved: _Saved) -> None:
    """Read back what says that a checkpoint is complete, as another process would: Orbax was seen to finish one that nobody can read.

    Raises:
        UserError: the step is not listed, its progress is not what was saved, or an item has not the arrays that were saved.
    """
    problem = "" if saved.step in steps(run) else "it is not listed as complete"
    for item, expected in saved.items.items():
        try:
            if not problem and _read_back(run, saved.step, item) != expected:
                problem = f"its {item} is not what was saved"
        except Exception as error:  # Orbax's and TensorStore's have no class in common
            problem = f"its {item} cannot be read: {errors.first_line(error)[:200]}"
    if problem:
        raise errors.UserError(
            f"checkpoint {saved.step} of {run} was written and cannot be read back ({problem}): the older ones are kept; "
            f"check the disk and remove {folder(run) / str(saved.step)}, then `jaxnmt resume {run}` goes on from the one before"
        )


def _read_back(run: Path, step: int, item: str) -> Any:
    """Return the shapes and dtypes of an item, or the progress as text. Nothing here waits for another process."""
    if item == "progress":
        return _text(checkpoint.read_json(run, step, item))
    return _shapes(ocp.StandardCheckpointHandler().metadata(folder(run) / str(step) / item).tree)


def _remove(place: LiteralPath) -> None:
    """Remove a checkpoint so that no part of it passes for a whole one. If this process is killed, the next session removes the rest."""
    if files.in_bucket(place):
        (place / run_directory.COMMITTED).unlink()
    else:
        place = place.rename(place.with_name(f"{place.name}{ocp.utils.TMP_DIR_SUFFIX}removed"))
    with contextlib.suppress(OSError):  # an NFS server may hold a file back
        place.rmtree()
