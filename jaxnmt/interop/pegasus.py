"""The format `pegasus`: Hugging Face's PegasusForConditionalGeneration, the class there that has pre-norm layers and sinusoidal positions.

Its tokenizer is a MarianTokenizer, which reads SentencePiece models of any kind.
"""

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
    """Return why a PegasusForConditionalGeneration cannot hold a run, and which format can; None if it can."""
    return next(_problems(run), None)


def _problems(run: Run) -> Iterator[str]:
    yield from transformers_files.problems(run)
    model = transformers_files.model_of(run)
    if model.norm_order == "post":
        yield "it has pre-norm layers only, and model.norm_order is post: --to marian holds it"
    if model.tie_embeddings != "all":
        tie = f"model.tie_embeddings is {model.tie_embeddings}"
        yield f"it has one table for source, target and output, and {tie}: {transformers_files.OTHERWISE}"


def write(run: Run, folder: Path) -> None:
    """Write config.json, generation_config.json, model.safetensors and the files of a MarianTokenizer."""
    transformers_files.write(run, folder, "pegasus")
