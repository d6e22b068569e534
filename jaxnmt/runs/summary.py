"""The summaries that `jaxnmt runs show` prints."""

from __future__ import annotations

import pathlib
from typing import Any

from jaxnmt.config.files import tupled
from jaxnmt.errors import UserError
from jaxnmt.runs import directory


def show(path: pathlib.Path) -> str:
    """Return a run's summary, or a table of the runs in a folder, without executing a run's code.

    Raises:
        UserError: the path is not a run and holds none.
    """
    if (path / directory.CONFIG).exists():
        return _summary(path)
    runs = directory.find_runs(path)
    if not runs:
        raise UserError(f"{path} is not a run and holds none" if path.exists() else f"{path} does not exist")
    width = max(len(run.name) for run in runs)
    return "\n".join(f"{run.name:<{width}}  {_progress(run)}" for run in runs)


def _summary(run: pathlib.Path) -> str:
    settings = directory.settings(run)
    values = {name: tupled(value) for name, value in _leaves(settings).items() if value not in ([], "") and name != "model.type"}
    width = max(map(len, values), default=0)
    shown = [f"  {name:<{width}}  {' '.join(map(str, value)) if isinstance(value, tuple) else value}" for name, value in values.items()]
    checkpoints = ", ".join(map(str, directory.checkpoints(run))) or "none"
    validations = [f"  step {record['step']:,}: {_numbers(record)}" for record in directory.read_metrics(run, "validation")]
    model = str(_leaves(settings).get("model.type", "")).rpartition(":")[2]
    return "\n".join(
        [f"{run}: {model}, {_progress(run)}"]
        + [f"checkpoints: {checkpoints}"]
        + (["validations:", *validations] if validations else [])
        + ["settings:", *shown]
    )


def _leaves(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested objects by their dotted names."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= _leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def _progress(run: pathlib.Path) -> str:
    """Return the steps done, the last training figures and the best validation, in one line."""
    records, steps = directory.read_metrics(run), directory.settings(run)["training"]["steps"]
    step = max([0, *directory.checkpoints(run), *(record["step"] for record in records)])
    parts = [f"step {step:,} of {steps:,}"]
    if training := [record for record in records if record["kind"] == "train"]:
        parts.append(f"loss {_number(training[-1]['loss'])}")
    if best := [record for record in records if record["kind"] == "validation" and record["best"]]:
        parts.append(f"best validation at step {best[-1]['step']:,}: {_numbers(best[-1])}")
    return ", ".join(parts)


def _numbers(record: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_number(record[name])}" for name in ("bleu", "loss", "perplexity") if name in record)


def _number(value: float | None) -> str:
    return "NaN" if value is None else f"{value:.4g}"
