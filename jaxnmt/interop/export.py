"""Write a run in a format of other software, check that it translates alike there, and describe it: `jaxnmt export`."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxnmt.errors import UserError
from jaxnmt.interop.card import card
from jaxnmt.interop.check import SENTENCES, Agreement, agreement, sentences_of
from jaxnmt.interop.folders import check_new, new_folder
from jaxnmt.interop.formats import Format, format_of
from jaxnmt.io import files
from jaxnmt.parallel.log import say, warn

if TYPE_CHECKING:
    from jaxnmt.run import Run

CARD = "README.md"


def export_model(run: Run, out: str | pathlib.Path, to: str, data: str | Sequence[str] = (), sentences: int = SENTENCES) -> list[Agreement]:
    """Write a run to a new folder in another format, if it translates there as here.

    Sentences of the run's validation are translated, greedily and with a beam of 5, by the format's own software where it is installed.

    Args:
        run: the run, with the checkpoint and the type of weights that it was loaded with.
        out: the folder to make. It gets the model's files and a model card, README.md, or is not made at all.
        to: the format: "adapter", "ctranslate2", "marian", "onnx", "pegasus", "safetensors" or "stablehlo".
        data: other sentences to check with, written as `data.test`.
        sentences: how many of them are translated at most.

    Returns:
        How many sentences had the same tokens, for each search; empty if the format's software is not installed.

    Raises:
        UserError: the format cannot hold the model, the folder exists or cannot be written, or the translations differ.
    """
    chosen, out = format_of(to), files.to_path(out)
    if problem := chosen.refusal(run):
        raise UserError(f"--to {to} cannot hold {run.folder}: {problem}")
    check_new(out)
    if not out.absolute().parent.is_dir():
        raise UserError(f"{out} cannot be made: there is no folder {out.parent}")
    with new_folder(out) as temporary:
        chosen.write(run, temporary)
        name, found = _checked(chosen, run, temporary, (data,) if isinstance(data, str) and data else tuple(data), sentences)
        files.write(temporary / CARD, card(run, to, out.name, chosen.usage(run), name, found))
    say(f"{out} has {run.checkpoint} of {run.folder} in the format {to}")
    return found


def _checked(chosen: Format, run: Run, folder: pathlib.Path, data: Sequence[str], sentences: int) -> tuple[str, list[Agreement]]:
    """Return the name of the software that has checked the files of a folder, and what it found."""
    runtime = chosen.runtime(run, folder)
    if runtime is None:
        if chosen.NEEDS:
            warn(f"not checked: the format's own software is not installed ({chosen.NEEDS}, then repeat the command)")
        return "", []
    found = agreement(run, runtime, sentences_of(run, data, sentences))
    say(f"checked with {runtime.name}, sentences with the same tokens: {'; '.join(map(str, found))}")
    return runtime.name, found
