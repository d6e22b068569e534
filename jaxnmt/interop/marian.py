"""The format `marian`: Hugging Face's MarianMTModel, which every OPUS-MT model has; post-norm Transformers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from jaxnmt.interop import transformers_files
from jaxnmt.interop.transformers_files import NEEDS as NEEDS
from jaxnmt.interop.transformers_files import runtime as runtime
from jaxnmt.interop.transformers_files import usage as usage

if TYPE_CHECKING:
    from jaxnmt.run import Run


def refusal(run: Run) -> str | None:
    """Return why a MarianMTModel cannot hold a run, and which format can; None if it can."""
    return next(_problems(run), None)


def _problems(run: Run) -> Iterator[str]:
    yield from transformers_files.problems(run)
    model = transformers_files.model_of(run)
    if model.norm_order == "pre":
        other = "--to pegasus holds it" if model.tie_embeddings == "all" else transformers_files.OTHERWISE
        yield f"it has post-norm layers only, and model.norm_order is pre: {other}"


def write(run: Run, folder: Path) -> None:
    """Write config.json, generation_config.json, model.safetensors and the files of a MarianTokenizer."""
    transformers_files.write(run, folder, "marian")
