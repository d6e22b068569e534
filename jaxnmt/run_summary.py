"""What `jaxnmt runs show` prints."""

from __future__ import annotations

import json
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
    changed = {name: value for name, _, value in leaves(experiment) if value != ()}
    width = max(map(len, changed))
    settings = [f"  {name:<{width}}  {' '.join(value) if isinstance(value, tuple) else value}" for name, value in changed.items()]
    steps = sorted((int(folder.name) for folder in (run / "checkpoints").glob("[0-9]*") if folder.name.isdigit()), reverse=True)
    kept = ", ".join(map(str, steps)) or "none"
    return "\n".join([f"{run}: {type(experiment.model).__name__}, {_progress(run)}", f"checkpoints: {kept}", "settings:", *settings])


def _progress(run: pathlib.Path) -> str:
    """The last known value of every metric, in one line."""
    latest: dict[str, Any] = {}
    path = run / "metrics.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            latest |= json.loads(line)
        except ValueError:  # a line that a killed process left half-written
            continue
    numbers = {name: value for name, value in latest.items() if isinstance(value, int | float) and name != "step"}
    steps = run_directory.read(run).training.steps
    shown = "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
    return f"step {latest.get('step', 0):,} of {steps:,}  {shown}".rstrip()
