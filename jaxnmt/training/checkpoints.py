"""A run's checkpoints: written by Orbax, layers unstacked, parameters apart from optimizer state, each item with a checksum.

    RUN/checkpoints/STEP/   params, ema (if training.ema_decay > 0), optimizer; progress and, if it was validated, metrics (JSON)
    RUN/average/            params, average.json: the mean of several checkpoints

Orbax lists a step only when it is complete. The checksums find bits that flip afterwards. Orbax removes nothing: `Checkpoints` removes a
checkpoint after it has read a newer one back.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import tree as orbax_tree

from jaxnmt import config as cfg
from jaxnmt.errors import UserError, first_line
from jaxnmt.io import files
from jaxnmt.parallel import distributed
from jaxnmt.parallel.numbers import at_least_float32
from jaxnmt.training.checksums import checksum
from jaxnmt.training.lora import adapted_kernels
from jaxnmt.training.progress import Progress, Score
from jaxnmt.training.saved import CheckpointReader, crc
from jaxnmt.training.state import TrainState, widen
from jaxnmt.training.storage import remove, with_orbax
from jaxnmt.training.tuning import join, part_of


class Checkpoints(CheckpointReader, contextlib.AbstractContextManager):
    """Finds, restores, saves and averages the checkpoints of a run.

    With several processes, all of them call the methods that read or write arrays, in the same order.

    Raises:
        UserError: a checkpoint is missing, damaged, or cannot be written. Every method raises it.
    """

    def __init__(self, run: Path, keep: cfg.Checkpoints | None = None):
        """Open the checkpoints of a run's folder; `keep` says which ones stay when one is saved, None that none will be saved."""
        super().__init__(run)
        self._keep = keep or cfg.Checkpoints()
        # The step that is being saved, and the shapes that must be read back.
        self._unproven: tuple[int, dict[str, Any]] | None = None
        if keep:
            self.scores()  # reports damage in our words before Orbax reads them
            self._manager = self._open()

    @with_orbax
    def _open(self) -> ocp.CheckpointManager:
        # Without best_fn no metrics are saved.
        options = ocp.CheckpointManagerOptions(cleanup_tmp_directories=True, best_fn=lambda metrics: metrics["score"])
        return ocp.CheckpointManager(self.folder, options=options)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind:  # another process may not be on its way here: agree on nothing
            self._manager.close()
        else:
            self.close()

    # ---- reading

    @with_orbax
    def restore(self, step: int, like: TrainState) -> tuple[TrainState, Progress]:
        """Return the training state (layers unstacked) and the progress of a step; `like`: ShapeDtypeStructs of the state."""
        sums = self._sums(step)
        found = {name: self._read(self.folder / str(step) / name, item, sums.get(name)) for name, item in _items(like).items()}
        return _state(found, like), self.progress(step)

    @with_orbax
    def adapters(self, step: int, like: TrainState) -> tuple[Any, Any]:
        """Return the adapters of a step that decoding uses (those of the EMA if the run keeps one), and the kernels without them."""
        place, sums = self.folder / str(step) / "optimizer", self._sums(step)
        found = self._read(place, _items(like)["optimizer"], sums.get("optimizer"))["lora"]
        return found.get("ema", found["params"]), found["kernels"]

    # ---- writing

    @with_orbax
    def save(self, state: TrainState, progress: Progress, score: Score | None) -> None:
        """Wait for the last save, then start to write a checkpoint in the background. The layers of `state` are unstacked."""
        self.wait()
        step, items = int(state.step), _items(state)
        with distributed.leader_first("save a checkpoint"):
            self._check_space(items)
        sums = {name: checksum(item) for name, item in items.items()}
        record = _summed("progress", dataclasses.asdict(progress) | {"step": step}, sums)
        arrays = {name: ocp.args.StandardSave(item) for name, item in items.items()}
        metrics = score and _summed("metrics", dataclasses.asdict(score) | {"score": score.value, "step": step}, {})
        begun = self._manager.save(step, args=ocp.args.Composite(**arrays, progress=ocp.args.JsonSave(record)), metrics=metrics)
        if not begun:  # Orbax refuses without an error
            raise UserError(f"{self._run} has a checkpoint after step {step}: another process trains it, or its folder was changed")
        self._unproven = step, {name: _shapes(item) for name, item in items.items()}

    @with_orbax
    def wait(self) -> None:
        """Wait until the last save is on disk, read it back, then remove the checkpoints that are no longer kept."""
        self._manager.wait_until_finished()
        if self._unproven is None:
            return
        (step, shapes), self._unproven = self._unproven, None
        with distributed.leader_first("read the new checkpoint back"):
            if distributed.is_leader():
                self._prove(step, shapes)
                self._remove_old()

    @with_orbax
    def close(self) -> None:
        """Finish the last save, as `wait` does, and close the files."""
        self.wait()
        self._manager.close()

    def _check_space(self, items: dict[str, Any]) -> None:
        if files.in_bucket(self._run):  # which is never full
            return
        needed = 1.1 * sum(leaf.nbytes for leaf in jax.tree.leaves(items)) + 2**20  # and some for metadata
        free = shutil.disk_usage(self._run).free
        if free < needed:
            raise UserError(
                f"{self._run}: the disk has {free / 2**20:,.0f} MiB left and a checkpoint takes {needed / 2**20:,.0f}: "
                f"free some space, then `jaxnmt resume {self._run}` resumes from the last checkpoint"
            )

    def _prove(self, step: int, shapes: dict[str, Any]) -> None:
        """Read back what makes a checkpoint complete, as another process would: Orbax was seen to finish one that nobody can read."""
        folder = self.folder / str(step)
        try:
            if step not in self.steps():
                raise FileNotFoundError("it is not listed as complete")
            self._record(step, "progress")
            for item, expected in shapes.items():
                if _shapes(ocp.StandardCheckpointHandler().metadata(folder / item).tree) != expected:
                    raise ValueError(f"its {item} are not what was saved")
        except Exception as error:  # Orbax's and TensorStore's have no class in common
            raise UserError(
                f"checkpoint {step} of {self._run} was written and cannot be read back ({first_line(error)[:200]}): the older ones are "
                f"kept; check the disk and remove {folder}, then `jaxnmt resume {self._run}` resumes from the one before"
            ) from error

    def _remove_old(self) -> None:
        """Remove the checkpoints that are neither among the latest nor among the best."""
        best = self._ranked()[: self._keep.keep_best]
        for step in self.steps()[: -self._keep.keep_latest]:
            if step not in best:
                remove(self.folder / str(step))

    # ---- the average

    @with_orbax
    def average(self, last: int, like: Any) -> list[int]:
        """Write the mean of the parameters that decoding uses, summed in float64. Returns the steps that went in.

        Args:
            last: how many of the newest checkpoints.
            like: ShapeDtypeStructs of the parameters, layers unstacked.
        """
        steps = self.steps()[-last:]
        if len(steps) < last:
            more = f"train with --checkpoints.keep-latest {last}, or average fewer"
            raise UserError(f"{self._run} keeps {len(steps)} checkpoints, fewer than --last {last}: {more}")
        total = jax.tree.map(lambda x: np.zeros(x.shape, np.float64), like)
        for step in steps:
            total = jax.tree.map(lambda sum, x: sum + np.asarray(x, np.float64), total, self.params(self.find(step), like))
        mean = jax.tree.map(lambda sum, x: jax.device_put((sum / last).astype(x.dtype), x.sharding), total, like)
        self._write_average(mean, {"steps": steps, "checksum": checksum(mean)})
        return steps

    def _write_average(self, params: Any, record: dict[str, Any]) -> None:
        """Write an average beside the old one and rename it when it is whole; in a bucket, where no folder can be renamed, in its place."""
        place = self._average
        new, old = (place if files.in_bucket(place) else place.with_name("average.new")), place.with_name("average.old")
        new.rmtree(missing_ok=True)
        old.rmtree(missing_ok=True)
        try:
            with ocp.StandardCheckpointer() as writer:
                writer.save(new / "params", params)
            files.write(new / "average.json", json.dumps(record))
            if new != place:
                if place.exists():  # which takes no time, unlike removing it
                    place.rename(old)
                files.replace(new, place)
        finally:
            if new != place:
                new.rmtree(missing_ok=True)
                old.rmtree(missing_ok=True)


def _summed(item: str, record: dict[str, Any], arrays: dict[str, int]) -> dict[str, Any]:
    """Return a JSON record with the checksums of the arrays and its own."""
    return record | {"checksums": arrays | {item: crc(record)}}


def _items(state: TrainState) -> dict[str, Any]:
    """Return what a checkpoint holds as arrays.

    Decoding reads `params` or `ema` alone: all of the model's parameters, into which adapters are merged. The adapters themselves, and the
    kernels without them, are with the optimizer's state.
    """
    optimizer = {"step": state.step, "opt_state": state.opt_state, "lr_scale": state.lr_scale, "bad_steps": state.bad_steps}
    if state.start is not None:
        optimizer["start"] = state.start
    if state.scale:
        adapters = {"params": state.params} | ({} if state.ema is None else {"ema": state.ema})
        optimizer["lora"] = adapters | {"kernels": adapted_kernels(state.frozen, state.params)}
    wide = dataclasses.replace(state, frozen=jax.tree.map(_wide, state.frozen))
    ema = {} if state.ema is None else {"ema": wide.model_params(state.ema)}
    return {"params": state.model_params(state.params), "optimizer": optimizer} | ema


def _wide(x: Any) -> Any:
    """Return an array, or a ShapeDtypeStruct, as the EMA holds it."""
    if isinstance(x, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(x.shape, at_least_float32(x.dtype), sharding=x.sharding)
    return widen(x)


def _state(items: dict[str, Any], like: TrainState) -> TrainState:
    """Undo `_items`."""
    optimizer = dict(items["optimizer"])
    if like.scale:
        adapters = optimizer.pop("lora")
        frozen = join(items["params"], adapters.pop("kernels"))
        return dataclasses.replace(like, **optimizer, **adapters, frozen=frozen)
    params: dict[str, Any] = {name: items[name] for name in ("params", "ema") if name in items}
    if like.frozen is not None:
        params = {name: part_of(tree, like.params) for name, tree in params.items()}
        params["frozen"] = part_of(items["params"], like.frozen)
    return dataclasses.replace(like, **optimizer, **params)


def _shapes(tree: Any) -> dict[Any, Any]:
    """Return shape and dtype of each array of a tree, or of its metadata on disk."""
    leaves = orbax_tree.to_flat_dict(tree).items()
    return {path: (tuple(leaf.shape), str(leaf.dtype)) for path, leaf in leaves if hasattr(leaf, "shape")}
