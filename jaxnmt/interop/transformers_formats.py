"""The formats `marian` and `pegasus`, Hugging Face's classes for Transformers with sinusoidal positions.

`marian` is MarianMTModel, which every OPUS-MT model has, with post-norm layers; `pegasus` is PegasusForConditionalGeneration, with pre-norm
layers. The tokenizer of both is a MarianTokenizer, which reads SentencePiece models of any kind.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from jaxnmt.interop import transformers_files

if TYPE_CHECKING:
    from jaxnmt.run import Run


class TransformersFormat:
    """One of the two, as `formats.Format`.

    Args:
        kind: "marian" or "pegasus".
    """

    NEEDS = transformers_files.NEEDS
    runtime = staticmethod(transformers_files.runtime)
    usage = staticmethod(transformers_files.usage)

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def refusal(self, run: Run) -> str | None:
        """Return why the class cannot hold a run, and which format can; None if it can."""
        return next(self._problems(run), None)

    def _problems(self, run: Run) -> Iterator[str]:
        yield from transformers_files.problems(run)
        model = transformers_files.model_of(run)
        own, other = ("post", "pegasus") if self.kind == "marian" else ("pre", "marian")
        if model.norm_order != own:
            holds = f"--to {other} holds it" if other == "marian" or model.tie_embeddings == "all" else transformers_files.OTHERWISE
            yield f"it has {own}-norm layers only, and model.norm_order is {model.norm_order}: {holds}"
        if self.kind == "pegasus" and model.tie_embeddings != "all":
            tie = f"model.tie_embeddings is {model.tie_embeddings}"
            yield f"it has one table for source, target and output, and {tie}: {transformers_files.OTHERWISE}"

    def write(self, run: Run, folder: Path) -> None:
        """Write config.json, generation_config.json, model.safetensors and the files of a MarianTokenizer."""
        transformers_files.write(run, folder, self.kind)


MARIAN, PEGASUS = TransformersFormat("marian"), TransformersFormat("pegasus")
