"""A translator whose search is CTranslate2's."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxnmt import config as cfg
from jaxnmt.data.special_tokens import EOS
from jaxnmt.decoding.batches import output_limit
from jaxnmt.decoding.translator import Translation, Translator
from jaxnmt.errors import UserError
from jaxnmt.interop import ctranslate2
from jaxnmt.interop.engine import searching
from jaxnmt.models.deferred import DeferredModel
from jaxnmt.parallel.log import say

if TYPE_CHECKING:
    from jaxnmt.decoding.alignments import Aligner
    from jaxnmt.decoding.rules import Rules, TokenRules
    from jaxnmt.run import Run


class EngineTranslator(Translator):
    """Text in, text out; CTranslate2 searches."""

    def __init__(self, run: Run, use_export: Callable[[Callable[[Path], Any]], Any]) -> None:
        """Translate by an export of a run. The run's own parameters are read if words are to be aligned, and not before.

        Args:
            run: the run.
            use_export: calls a function with the export's folder, and returns its result.
        """
        nothing = np.zeros(())  # in the place of the parameters
        super().__init__(DeferredModel(lambda: run.model), nothing, run.tokenizer, run.config.data.max_length)  # type: ignore[arg-type]
        self._run, self._use_export = run, use_export
        self._ids = {piece: index for index, piece in enumerate(ctranslate2.pieces_of(run.tokenizer, "target"))}

    @functools.cached_property
    def _engine(self) -> ctranslate2.CTranslate2:
        engine = self._use_export(lambda folder: ctranslate2.CTranslate2(folder, self._run.weights == "int8"))
        say(f"translating by {engine.name}, which searches with length_normalization average, and patience 1 instead of inf")
        return engine

    @property
    def aligner(self) -> Aligner:  # type: ignore[override]
        """Aligns translations with their sources, by the run itself."""
        return self._run.aligner

    def warm(self, decoding: cfg.Decoding) -> int:
        """Open the model. Returns 0: nothing is compiled."""
        assert self._engine
        return 0

    def stream(self, line: str, decoding: cfg.Decoding, number: int = 1, rules: Rules | None = None) -> Iterator[str]:
        """Raise a UserError."""
        raise UserError("--engine ctranslate2 gives whole translations: leave out --stream, or --engine")

    def _search_all(
        self, decoding: cfg.Decoding, sentences: Sequence[list[int]], rules: Sequence[TokenRules] = ()
    ) -> list[list[Translation]]:
        """Translate sentences. Returns the results in the order given."""
        if rules:
            raise UserError("--engine ctranslate2 has no prefixes, constraints, forbidden phrases and alternatives: leave them out")
        settings = searching(decoding)
        sources = [(self.tokenizer.source_pieces(ids), output_limit(len(ids), settings)) for ids in sentences]
        found = self._engine.search(
            sources,
            beam_size=settings.beam_size,
            patience=settings.patience,
            num_hypotheses=settings.n_best,
            length_penalty=settings.length_penalty,
            no_repeat_ngram_size=settings.no_repeat_ngram_size,
            disable_unk=settings.unk == "forbid",
            min_decoding_length=settings.min_length,
            max_batch_size=settings.batch_size,
        )
        ids_of = lambda pieces: [*(self._ids[piece] for piece in pieces), EOS]  # noqa: E731
        return [
            [self._translation(source, ids_of(pieces), score) for pieces, score in zip(*each, strict=True)]
            for source, each in zip(sentences, found, strict=True)
        ]
