"""The verbs that exchange models with other software: export, import."""

from __future__ import annotations

import dataclasses

from jaxnmt.cli.verbs.common import NoOptions
from jaxnmt.config import Positive
from jaxnmt.interop.check import SENTENCES
from jaxnmt.run import Checkpoint, Run, Weights


@dataclasses.dataclass(frozen=True)
class Export:
    to: str = ""
    """The format: adapter (of a run that LoRA has fine-tuned), ctranslate2, marian, onnx, pegasus, safetensors or stablehlo."""
    data: tuple[str, ...] = ()
    """Sentence pairs to check with instead of the run's validation, written as `data.test`: --data a.en a.de."""
    sentences: Positive[int] = SENTENCES
    """Sentences to check with at most."""
    checkpoint: Checkpoint = "best"
    """A step, or best, latest, or average (made by `jaxnmt runs average`)."""
    weights: Weights = "trained"
    """int8: a quarter of the size, to ctranslate2 only; trained: as they are."""


def export(run: str, out: str, options: Export) -> None:
    """Write a run to the new folder OUT in a format of other software, with a model card.

    The export is refused unless the format's own software, where it is installed, translates validation sentences to the same tokens as
    the run does, greedily and with a beam of 5: 99 % of them.

    Examples:
      jaxnmt export runs/quickstart en-fr --to pegasus
      jaxnmt export runs/quickstart en-fr --to safetensors --checkpoint average
      jaxnmt export runs/quickstart en-fr --to ctranslate2 --weights int8
      jaxnmt export runs/quickstart en-fr --to stablehlo
      jaxnmt export runs/quickstart en-fr --to onnx
      jaxnmt export runs/lora formal --to adapter
    """
    from jaxnmt.interop.export import export_model  # which imports NumPy

    export_model(Run(run, options.checkpoint, weights=options.weights), out, options.to, options.data, options.sentences)


def import_(folder: str, run: str, options: NoOptions) -> None:
    """Make the run RUN of a Hugging Face model of the kinds Marian (every OPUS-MT model), Pegasus, M2M100 or NLLB.

    FOLDER has config.json, model.safetensors or the files of its index, and the tokenizer's files. Nothing in it is executed; weights in
    other files are refused.
    A folder that `jaxnmt export --to ctranslate2` has written comes back too.

    Examples:
      jaxnmt import opus-mt-en-fr runs/opus
      jaxnmt import nllb-200-distilled-600M runs/nllb
    """
    from jaxnmt.interop.importing import import_model

    import_model(folder, run)
