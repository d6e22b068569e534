"""What `jaxnmt runs show` prints."""

from __future__ import annotations

import pathlib
from typing import Any

from jaxnmt import run_directory
from jaxnmt.config import UserError
from jaxnmt.config_files import leaves


def show(path: pathlib.Path) -> str:
    """A run's summary, or a table of the runs in a folder.

    Raises:
        UserError: the path is neither.
    """
    if (path / run_directory.CONFIG).exists():
        return _summary(path)
    runs = run_directory.find_runs(path)
    if not runs:
        raise UserError(f"{path} is not a run and holds none" if path.exists() else f"{path} does not exist")
    width = max(len(run.name) for run in runs)
    return "\n".join(f"{run.name:<{width}}  {_progress(run)}" for run in runs)


def _summary(run: pathlib.Path) -> str:
    experiment = run_directory.read(run)
    values = {name: value for name, _, value in leaves(experiment) if value not in ((), "")}
    width = max(map(len, values))
    settings = [f"  {name:<{width}}  {' '.join(map(str, value)) if isinstance(value, tuple) else value}" for name, value in values.items()]
    checkpoints = ", ".join(map(str, _checkpoints(run))) or "none"
    validations = [f"  step {record['step']:,}: {_numbers(record)}" for record in run_directory.read_metrics(run, "validation")]
    return "\n".join(
        [f"{run}: {type(experiment.model).__name__}, {_progress(run)}"]
        + [f"checkpoints: {checkpoints}"]
        + (["validations:", *validations] if validations else [])
        + ["settings:", *settings]
    )


def _progress(run: pathlib.Path) -> str:
    """Steps done, and the last training and the best validation figures, in one line."""
    records, experiment = run_directory.read_metrics(run), run_directory.read(run)
    step = max([0, *_checkpoints(run), *(record["step"] for record in records)])
    parts = [f"step {step:,} of {experiment.training.steps:,}"]
    if training := [record for record in records if record["kind"] == "train"]:
        parts.append(f"loss {_number(training[-1]['loss'])}")
    if best := [record for record in records if record["kind"] == "validation" and record["best"]]:
        parts.append(f"best validation at step {best[-1]['step']:,}: {_numbers(best[-1])}")
    return ", ".join(parts)


def _checkpoints(run: pathlib.Path) -> list[int]:
    return sorted(int(folder.name) for folder in (run / "checkpoints").glob("*") if folder.name.isdigit())


def _numbers(record: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_number(record[name])}" for name in ("bleu", "loss", "perplexity") if name in record)


def _number(value: float | None) -> str:
    return "no number" if value is None else f"{value:.4g}"
