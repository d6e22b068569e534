"""Compare the translations of exported files with those of their run, by the format's own software."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from jaxnmt import config as cfg
from jaxnmt.errors import UserError
from jaxnmt.interop.formats import Runtime, Source

if TYPE_CHECKING:
    from jaxnmt.run import Run

SENTENCES = 200
"""Default for the number of sentences that check an export."""
BEAMS = (1, 5)
"""The beam sizes of the searches that are compared; 1: greedy."""


class Agreement(NamedTuple):
    """How many sentences have the same tokens in both translations.

    Attributes:
        beam_size: of the search; 1: greedy.
        same: the number of sentences with the same tokens.
        sentences: the number of sentences.
    """

    beam_size: int
    same: int
    sentences: int

    def __str__(self) -> str:
        return f"{'greedy' if self.beam_size == 1 else f'beam {self.beam_size}'}: {self.same:,} of {self.sentences:,}"


def sentences_of(run: Run, data: Sequence[str], most: int) -> list[str]:
    """Return sentences to check a run's export with: of its validation, or of `data`, written as `data.test`.

    Empty sentences and those that the model reads in parts are left out.

    Raises:
        UserError: no such sentences exist, or they cannot be read.
    """
    found = run.test_set("validation", data).sources if data or run.config.data.train or run.config.data.validation else []
    longest = run.config.data.max_length - 1
    lengths = map(len, run.tokenizer.encode_source(found))
    kept = [text for text, length in zip(found, lengths, strict=True) if 0 < length <= longest][:most]
    if not kept:
        raise UserError(f"{run.folder} has no validation sentences to check the export with: name sentence pairs with --data a.en a.de")
    return kept


def in_float32(run: Run) -> Run:
    """Return the run in float32, with int8 weights dequantised.

    Other software rounds bfloat16 and int8 activations differently, so that translations could not be compared.
    """
    is_float32 = getattr(run.config.model, "dtype", "float32") == "float32"
    if is_float32 and run.weights != "int8":
        return run
    from jaxnmt.models.int8 import as_float32
    from jaxnmt.run import Run

    same = Run(run.folder, run.pinned, trusted=True)  # it is open already
    if not is_float32:
        same.config = cfg.replace(same.config, **{"model.dtype": "float32"})
    same.params = as_float32(run.params)
    return same


def agreement(run: Run, runtime: Runtime, sentences: Sequence[str]) -> list[Agreement]:
    """Return how many sentences both translate to the same tokens, for each of `BEAMS`.

    Raises:
        UserError: they are fewer than `runtime.least` of them.
    """
    from jaxnmt.decoding.batches import output_limit

    found, settings = [], run.decoding(dict(runtime.decoding))
    run = in_float32(run) if runtime.is_float32 else run
    ids = run.tokenizer.encode_source(sentences)
    limits = [output_limit(len(each), settings) for each in ids]
    pieces = map(run.tokenizer.source_pieces, ids)
    sources = [Source(*each) for each in zip(sentences, ids, pieces, limits, strict=True)]
    for beam_size in BEAMS:
        ours = run.translate(sentences, **runtime.decoding, beam_size=beam_size, n_best=1)
        theirs = runtime.translate(sources, beam_size)
        same = [list(one.tokens) == list(other) for one, other in zip(ours, theirs, strict=True)]
        found.append(Agreement(beam_size, sum(same), len(same)))
        if sum(same) < runtime.least * len(same):
            first = same.index(False)
            one, other = (" ".join(tokens[first]) for tokens in ([each.tokens for each in ours], theirs))
            raise UserError(
                f"the exported files translate differently, {found[-1]} sentences alike, {runtime.least:.1%} are needed; "
                f"of {sentences[first]!r} {run.folder} makes {one!r} and {runtime.name} {other!r}; nothing was kept: please report it"
            )
    return found
