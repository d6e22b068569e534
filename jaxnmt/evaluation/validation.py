"""The translations and BLEU of a validation, as `jaxnmt evaluate --split validation` would give them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from jaxnmt import config as cfg
from jaxnmt.data.tokenizer import Tokenizer
from jaxnmt.decoding.translator import Translator
from jaxnmt.evaluation.scores import score
from jaxnmt.evaluation.test_sets import join
from jaxnmt.models.seq2seq import Seq2Seq


class ValidationTranslator:
    """Translates and scores validation pairs; keeps its compiled searches from one validation to the next."""

    def __init__(self) -> None:
        self._translator: Translator | None = None

    def __call__(
        self,
        experiment: cfg.Experiment,
        model: Seq2Seq,
        tokenizer: Tokenizer,
        params: Any,
        pairs: Sequence[tuple[str, str]],
        languages: tuple[str, str],
    ) -> tuple[list[str], float]:
        """-> (best translation of each source, BLEU), with a beam of `validation.beam_size`."""
        if self._translator is None:
            self._translator = Translator(model, params, tokenizer, experiment.data.max_length)
        self._translator.params = params
        decoding = dataclasses.replace(experiment.decoding, beam_size=experiment.validation.beam_size, n_best=1)
        hypotheses = [best[0].text for best in self._translator.translate([source for source, _ in pairs], decoding)]
        references = [target for _, target in pairs]
        if tokenizer.pretokenized:
            references = [join(reference, experiment.tokenizer.joiner) for reference in references]
        return hypotheses, score(hypotheses, references, tokenizer.pretokenized, languages).bleu
