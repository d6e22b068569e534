"""The mean of a run's newest checkpoints: beside them, never in their place."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxnmt.errors import UserError
from jaxnmt.io import files
from jaxnmt.io.literal_paths import LiteralPath
from jaxnmt.training.checkpoint import disk_errors, restore_params, steps
from jaxnmt.training.checksum import checksum
from jaxnmt.training.trained import average_folder, open_run


def average(run: Path, last: int) -> str:
    """Write the mean of the parameters that decoding uses (the moving average where the run keeps one), summed in float64.

    Args:
        last: how many of the newest checkpoints.

    Returns:
        What was done, in a sentence.

    Raises:
        UserError: there are fewer checkpoints, one is damaged, or the disk is full.
    """
    found = steps(run)
    if len(found) < last:
        kept = f"keeps {len(found)} checkpoint{'s' * (len(found) != 1)}" if found else "has no checkpoint yet"
        less = f", or average --last {len(found)}" if len(found) > 1 else ""
        raise UserError(f"{run} {kept}, fewer than --last {last}: train with --checkpoints.keep-latest {last}{less}")
    chosen, trained = found[-last:], open_run(run)
    total = jax.tree.map(lambda x: np.zeros(x.shape, np.float64), trained.params)
    for step in chosen:
        params = restore_params(run, trained.params, step, averaged=trained.experiment.training.ema_decay > 0)
        total = jax.tree.map(lambda sum, x: sum + np.asarray(x, np.float64), total, params)
    mean = jax.tree.map(lambda sum, x: jax.device_put((sum / last).astype(x.dtype), x.sharding), total, trained.params)
    with disk_errors(run):
        _write(average_folder(run), mean, chosen)
    return (
        f"averaged checkpoints {', '.join(map(str, chosen))} into {run / 'average'}; "
        f"`jaxnmt translate {run} --checkpoint average` uses it, and evaluate likewise"
    )


def _write(folder: LiteralPath, params, chosen: list[int]) -> None:
    """Write an average beside the old one and put it in its place when it is whole; in a bucket, where no folder can be moved, in its
    place."""
    new, old = folder.with_name("average.new"), folder.with_name("average.old")
    if files.in_bucket(folder):
        new = folder
    for left_over in (new, old):
        left_over.rmtree(missing_ok=True)
    try:
        with ocp.StandardCheckpointer() as writer:
            writer.save(new / "params", params)
        files.write(new / "average.json", json.dumps({"steps": chosen, "checksum": int(checksum(params))}))
        if new != folder:
            if folder.exists():
                folder.rename(old)
            files.replace(new, folder)
    finally:
        for left_over in {new, old} - {folder}:
            left_over.rmtree(missing_ok=True)
