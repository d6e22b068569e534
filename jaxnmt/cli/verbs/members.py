"""What the verbs translate with: a run, with an adapter or with other runs, or a run by another engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

from jaxnmt.config import checks
from jaxnmt.ensemble_run import ensemble
from jaxnmt.errors import UserError
from jaxnmt.interop.adapted_run import with_adapter
from jaxnmt.interop.engine import Engine, searching, with_engine
from jaxnmt.run import Checkpoint, Run, Weights
from jaxnmt.runs import directory


@dataclasses.dataclass(frozen=True)
class Members:
    weights: Weights = "trained"
    """int8: a quarter of the memory, faster on CPUs with AVX512-VNNI or AMX; bfloat16: for GPUs and TPUs; trained: as they are."""
    adapter: str = ""
    """Adapter of RUN to decode with: a folder of `jaxnmt export --to adapter`, or a run that LoRA has fine-tuned from RUN."""
    ensemble: tuple[str, ...] = ()
    """Folders of further runs with the same target vocabulary, of any models: all predict each word together."""
    ensemble_weights: tuple[float, ...] = ()
    """Weights of RUN and of the runs of --ensemble, in this order; when empty, all are equal."""
    ensemble_space: Literal["probability", "log"] = "probability"
    """What is averaged: probabilities, or log-probabilities."""
    engine: Engine = "jaxnmt"
    """What searches. ctranslate2: CTranslate2, on this computer's CPU, with --weights int8 in int8; the run is exported once and checked,
    and the export is kept in its folder."""


def check(run: str, options: Any) -> None:
    """Check the run and the decoding options of a command.

    Args:
        options: `Members` that also have `checkpoint` and `decoding`.

    Raises:
        UserError: it is not a run, settings contradict each other, or the runs of --ensemble do not go with it.
    """
    checks.validate(dataclasses.replace(directory.read(run), decoding=options.decoding))
    for flag, is_given in (("weights", options.ensemble_weights), ("space", options.ensemble_space != "probability")):
        if is_given and not options.ensemble:
            raise UserError(f"--ensemble-{flag} has no effect without --ensemble: name the other runs with --ensemble")
    if options.engine != "jaxnmt":
        searching(options.decoding)
        if options.adapter:
            raise UserError(f"--engine {options.engine} reads no adapters: give the fine-tuned run itself as RUN, without --adapter")
        if options.ensemble:
            raise UserError(f"--engine {options.engine} is for one run: leave out --ensemble")
    if options.ensemble or options.adapter:
        opened(run, options)


def opened(run: str, options: Any, checkpoints: Sequence[Checkpoint] = ()) -> Run:
    """Open the run of a command, with its adapter and the runs of --ensemble, at these checkpoints or as the options say.

    For `options` see `check`.
    """
    folders = (run, *options.ensemble)
    each = zip(folders, checkpoints or [options.checkpoint] * len(folders), strict=True)
    first, *others = (Run(folder, checkpoint, weights=options.weights) for folder, checkpoint in each)
    first = with_adapter(first, options.adapter) if options.adapter else first
    if others:
        return ensemble(first, *others, weights=options.ensemble_weights, space=options.ensemble_space)
    return with_engine(first, options.engine)
