"""The text that a run is bound to, known by fingerprints (the run's `data.json`), wherever it lies."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jaxnmt import config
from jaxnmt.data.prepared import cache_folder
from jaxnmt.data.sources import open_sources

RECORD = "data.json"


def read(run: Path) -> dict[str, Any]:
    """What a run's record tells of its text, as `Prepared.fingerprints` was when it began; {} before that."""
    path = run / RECORD
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def languages(run: Path, data: config.Data) -> tuple[str, str]:
    """Codes of a run's source and target language: those of its settings, or else those that were found when it began; "" if unknown."""
    source, target = read(run).get("languages", ("", ""))
    return data.source_language or source, data.target_language or target


def same(before: dict, now: dict) -> bool:
    """Whether two preparations' `fingerprints` are of the same text, tokenizer, cleaning and weights."""
    return all(before[key] == now[key] for key in ("fingerprint", "tokenizer")) and all(
        _texts(before[part]) == _texts(now[part]) for part in ("train", "validation")
    )


def moved(experiment: config.Experiment, fingerprints: dict, parts: Iterable[str]) -> list[str]:
    """Of `parts` ("train", "validation") the fields, such as "data.train", whose sources hold the text that `fingerprints` tells of.

    Raises:
        UserError: a source cannot be read.
    """
    fields = []
    for part in parts:
        sources = open_sources(getattr(experiment.data, part), f"data.{part}", cache_folder(experiment.data))
        now = [(source.fingerprint(), source.weight if part == "train" else 1.0) for source in sources]
        if now == _texts(fingerprints[part]):
            fields.append(f"data.{part}")
    return fields


def _texts(sources: Sequence[dict]) -> list[tuple[str, float]]:
    """Fingerprints and weights, without names; validation sources have no weight of their own in `data.json`."""
    return [(source["fingerprint"], source.get("weight", 1.0)) for source in sources]
