"""The text that a run is bound to: the fingerprints in its `data.json`. What its first session read, every later one must read too."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jaxnmt import config
from jaxnmt.data.prepared import Prepared, cache_folder
from jaxnmt.data.sources import sources_of
from jaxnmt.errors import UserError
from jaxnmt.io import files

RECORD = "data.json"


def read(run: Path) -> dict[str, Any]:
    """Return `Prepared.fingerprints` of the data that a run began with; {} if it has not begun."""
    path = run / RECORD
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def bind(run: Path, data: Prepared, begun: bool, is_leader: bool) -> Prepared:
    """Write what a run is trained on to its `data.json`. If the run has `begun`, which a checkpoint proves, refuse other data.

    Args:
        run: the run's folder.
        data: what this session has prepared.
        begun: whether the run has a checkpoint.
        is_leader: this process writes; the others compare.

    Returns:
        The data. Languages that its files' names do not tell are those that the run recorded.

    Raises:
        UserError: the text, tokenizer or cleaning is not what the run began with, or what process 0 has.
    """
    before = read(run)
    source, target = (now or then for now, then in zip(data.languages, before.get("languages") or data.languages, strict=True))
    now = data.fingerprints | {"languages": (source, target)}
    unlike = not before or not same(before, now)
    if unlike and not is_leader:
        raise UserError(f"{run / RECORD} is missing or is of other text: all processes must see the same files")
    if unlike and before and begun:
        raise UserError(f"text, tokenizer or cleaning are not what {run} was trained on: restore the data, or start a new run with --run")
    if is_leader:
        files.write(run / RECORD, json.dumps(now, indent=2, sort_keys=True))
    return dataclasses.replace(data, fingerprints=now, languages=(source, target))


def languages(run: Path, data: config.Data) -> tuple[str, str]:
    """Return the codes of a run's source and target language, from its settings or as recorded when it began; "" if unknown."""
    source, target = read(run).get("languages", ("", ""))
    return data.source_language or source, data.target_language or target


def same(before: dict, now: dict) -> bool:
    """Return whether two preparations' `fingerprints` are of the same text, tokenizer, cleaning and weights."""
    equal = [before[key] == now[key] for key in ("fingerprint", "tokenizer")]
    equal += [_texts(before[part]) == _texts(now[part]) for part in ("train", "validation")]
    return all(equal)


def moved(experiment: config.Experiment, fingerprints: dict, parts: Iterable[str]) -> list[str]:
    """Return the fields of `parts` ("train", "validation"), such as "data.train", whose sources hold the text of `fingerprints`.

    Raises:
        UserError: a source cannot be read.
    """

    def now(part: str) -> list[tuple[str, float]]:
        sources = sources_of(experiment, part, cache_folder(experiment.data))
        return [(source.fingerprint(), source.weight if part == "train" else 1.0) for source in sources]

    return [f"data.{part}" for part in parts if now(part) == _texts(fingerprints[part])]


def _texts(sources: Sequence[dict]) -> list[tuple[str, float]]:
    """Return fingerprints and weights, without names; validation sources have no weight of their own in `data.json`."""
    return [(source["fingerprint"], source.get("weight", 1.0)) for source in sources]
