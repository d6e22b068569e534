"""What a run has trained: its model, and the parameters of the checkpoint that is asked for."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp

from jaxnmt import config as cfg
from jaxnmt import errors
from jaxnmt.config import files as config_files
from jaxnmt.data.tokenizer import Tokenizer, load_tokenizer
from jaxnmt.io.literal_paths import LiteralPath
from jaxnmt.models.layout import unscanned
from jaxnmt.models.seq2seq import Seq2Seq, build_model
from jaxnmt.parallel.sharding import make_mesh, replicated
from jaxnmt.runs import directory as run_directory
from jaxnmt.training import checkpoint as checkpoints
from jaxnmt.training.checkpoint import best_step, disk_errors, recorded_checksum, restore_params, steps
from jaxnmt.training.checksum import checksum


class Trained(NamedTuple):
    """A run's model, layers unstacked; `params` are shapes only until `load` has read them."""

    experiment: cfg.Experiment
    tokenizer: Tokenizer
    model: Seq2Seq
    params: Any
    checkpoint: str


def open_run(run: Path) -> Trained:
    """A run's model without its parameters: these are ShapeDtypeStructs, whole on each device (of all processes)."""
    experiment, tokenizer = config_files.read(run / "config.json"), load_tokenizer(run / "tokenizer")
    model = build_model(unscanned(experiment.model), tokenizer.source_vocab_size, tokenizer.target_vocab_size)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0]) if jax.device_count() == 1 else replicated(make_mesh(cfg.Mesh()))
    return Trained(
        experiment, tokenizer, model, jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), model.shapes), ""
    )


def load(run: Path, checkpoint: int | str = "best") -> Trained:
    """A run's model with the parameters that decoding uses (the moving average where the run keeps one), whatever mesh it was trained on.

    Args:
        checkpoint: a step, "best" (by validation.metric), "latest", or "average" (what `jaxnmt runs average` wrote).

    Raises:
        UserError: the run has no checkpoint yet, not this one, or it is damaged.
    """
    step = _step(run, checkpoint)
    trained = open_run(run)
    if step is None:
        params, name = _restore_average(run, trained.params)
    else:
        params, name = restore_params(run, trained.params, step, averaged=trained.experiment.training.ema_decay > 0), f"checkpoint {step}"
    return trained._replace(params=params, checkpoint=name)


def identify(run: Path, checkpoint: int | str = "best") -> tuple[str, int | None, int | str]:
    """What `load` would read: the checkpoint's name, and the checksum of its parameters, without reading them; and what asks for this one
    whatever is written meanwhile.

    Raises:
        UserError: the run has no checkpoint yet, or not this one.
    """
    step = _step(run, checkpoint)
    if step is None:
        record = _average_record(run)
        return _average_name(record), record["checksum"], "average"
    if step not in steps(run):
        raise errors.UserError(f"{run} has no checkpoint {step}; it has {', '.join(map(str, steps(run)))}")
    averaged = run_directory.setting(run, "training.ema_decay") > 0
    return f"checkpoint {step}", recorded_checksum(run, step, averaged), step


def average_folder(run: Path) -> LiteralPath:
    """Return the folder of a run's average: `params`, and `average.json` with their checksum and the steps that went in."""
    return checkpoints.folder(run).with_name(run_directory.AVERAGE)


def _step(run: Path, checkpoint: int | str) -> Any:
    """The step that a checkpoint's name means; None for the average."""
    found = steps(run)
    if not found:
        raise errors.UserError(f"{run} has no checkpoint yet: train it first, or wait for the first one to be written")
    if checkpoint == "average":
        return None
    return best_step(run) if checkpoint == "best" else found[-1] if checkpoint == "latest" else checkpoint


def _average_record(run: Path) -> dict[str, Any]:
    """`average.json`: the steps that went in, and the checksum."""
    folder = average_folder(run)
    if not folder.is_dir():
        raise errors.UserError(f"{run} has no average: make one with `jaxnmt runs average {run}`")
    with _readable(run, folder):
        record = json.loads((folder / "average.json").read_text())
        return {"steps": record["steps"], "checksum": record["checksum"]}


def _average_name(record: dict[str, Any]) -> str:
    return f"average of checkpoints {', '.join(map(str, record['steps']))}"


def _restore_average(run: Path, abstract: Any) -> tuple[Any, str]:
    record, folder = _average_record(run), average_folder(run)
    with _readable(run, folder), disk_errors(run), ocp.StandardCheckpointer() as reader:
        params = reader.restore(folder / "params", abstract)
        if int(checksum(params)) == record["checksum"]:
            return params, _average_name(record)
    raise errors.UserError(f"{folder} is damaged: its params are not what was written; make it anew with `jaxnmt runs average {run}`")


@contextlib.contextmanager
def _readable(run: Path, folder: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, OSError) as error:
        mend = f"make it anew with `jaxnmt runs average {run}`"
        raise errors.UserError(f"{folder} cannot be read ({errors.first_line(error)[:200]}): {mend}") from error
