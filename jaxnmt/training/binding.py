"""The text that a run is bound to: what its first session read, every later one must read too."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from jaxnmt.data import identity
from jaxnmt.data.prepared import Prepared
from jaxnmt.errors import UserError
from jaxnmt.io import files
from jaxnmt.parallel import distributed


def bind(run: Path, data: Prepared, begun: bool) -> Prepared:
    """Remember what a run is trained on, in its `data.json`; once it has `begun`, which a checkpoint proves, refuse anything else.

    Returns:
        The data; their languages, where their files' names do not tell them (any more), as the run remembers them.

    Raises:
        UserError: other text, tokenizer or cleaning than the run began with, or than process 0 has.
    """
    path, before = run / identity.RECORD, identity.read(run)
    source, target = (now or then for now, then in zip(data.languages, before.get("languages") or data.languages, strict=True))
    now = data.fingerprints | {"languages": (source, target)}
    same = bool(before) and identity.same(before, now)
    if not same and not distributed.is_leader():
        raise UserError(f"{path} is not there, or tells of other text than this process has: all must see the same files")
    if not same and before and begun:
        raise UserError(
            f"the training text, tokenizer or cleaning is not what {run} was trained on (its data.json tells): "
            "restore the data, or start a new run with --run"
        )
    if distributed.is_leader():
        files.write(path, json.dumps(now, indent=2, sort_keys=True))
    return dataclasses.replace(data, fingerprints=now, languages=(source, target))
