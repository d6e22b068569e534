"""The formats that `jaxnmt export` writes: a module for each, or an object in one, loaded when it is used."""

from __future__ import annotations

import dataclasses
import pkgutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from jaxnmt.config import Decoding
from jaxnmt.errors import UserError
from jaxnmt.io import files

if TYPE_CHECKING:
    from jaxnmt.run import Run

FORMATS = {
    "adapter": "jaxnmt.interop.adapter",
    "ctranslate2": "jaxnmt.interop.ctranslate2",
    "marian": "jaxnmt.interop.transformers_formats:MARIAN",
    "onnx": "jaxnmt.interop.onnx",
    "pegasus": "jaxnmt.interop.transformers_formats:PEGASUS",
    "safetensors": "jaxnmt.interop.plain",
    "stablehlo": "jaxnmt.interop.stablehlo",
}
"""The module of each format, or `module:object`."""


class Source(NamedTuple):
    """A sentence to translate.

    Attributes:
        text: the sentence.
        ids: its tokens in the run's source vocabulary, without the end token.
        pieces: the same tokens as the vocabulary spells them.
        limit: the largest number of tokens of its translation, EOS included.
    """

    text: str
    ids: Sequence[int]
    pieces: Sequence[str]
    limit: int


class Runtime(Protocol):
    """Translates with the format's own software.

    Attributes:
        name: the software and its version, such as "transformers 5.24.0".
        decoding: fields of `config.Decoding` with which a run searches as this software does, such as {"length_normalization": "average"}.
        least: the share of sentences whose tokens must be the same; below it an export is refused.
        is_float32: whether it computes in float32 although `model.dtype` is bfloat16, or the run's weights are int8.
    """

    name: str
    decoding: Mapping[str, Any]
    least: float
    is_float32: bool

    def translate(self, sources: Sequence[Source], beam_size: int) -> list[list[str]]:
        """Return the target tokens of each translation as the run's vocabulary spells them, without the end token. 1: greedy search."""


class Format(Protocol):
    """What a format offers.

    Attributes:
        NEEDS: the command that installs what `runtime` needs; "" if no other software is needed.
    """

    NEEDS: str

    def refusal(self, run: Run) -> str | None:
        """Return why the format cannot hold a run, and which format can; None if it can. JAX is not started."""

    def write(self, run: Run, folder: Path) -> None:
        """Write the files of a run into an empty folder."""

    def runtime(self, run: Run, folder: Path) -> Runtime | None:
        """Open the files of a folder with the format's own software; None if it is not installed."""

    def usage(self, run: Run) -> str:
        """Return the part of the model card that says how the files are used, in Markdown."""


def plain_search(**changes: Any) -> dict[str, Any]:
    """Return fields of `Decoding` for `Runtime.decoding`: the defaults, which use no rule of ours that others lack, with some changed.

    The length limits stay the run's own: each `Source` has its limit.
    """
    kept = ("beam_size", "n_best", "batch_size", "max_length_ratio", "max_length_extra")
    return {field.name: field.default for field in dataclasses.fields(Decoding) if field.name not in kept} | changes


def format_of(name: str) -> Format:
    """Return a format.

    Raises:
        UserError: there is no such format.
    """
    if name not in FORMATS:
        raise UserError(f"--to {name or 'is missing'}: choose one of {', '.join(sorted(FORMATS))}")
    return cast("Format", pkgutil.resolve_name(FORMATS[name]))


def save_tokenizer(run: Run, folder: Path) -> None:
    """Write tokenizer/, and for other software `source.spm` and `target.spm` if both vocabularies are SentencePiece models."""
    run.tokenizer.save(folder / "tokenizer")
    for side, (model, _) in run.tokenizer.subwords.items():
        files.write(folder / f"{side}.spm", model)
