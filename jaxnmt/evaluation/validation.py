"""Validation BLEU: translates and scores the validation sentences for the training loop."""

from __future__ import annotations

import dataclasses
import pkgutil
from collections.abc import Callable
from typing import Any

import jax

from jaxnmt.data.vocabulary import stays_split
from jaxnmt.decoding.predictor import Predictor
from jaxnmt.decoding.translator import Translator
from jaxnmt.evaluation.scores import bleu
from jaxnmt.evaluation.test_sets import by_picture, without_gaps
from jaxnmt.evaluation.tokenization import choose
from jaxnmt.parallel import log
from jaxnmt.parallel.sharding import is_sharded, mesh_of, replicated
from jaxnmt.training.loop import Trainer


class ValidationTranslator:
    """Translates with one translator for a whole run, so that its searches are compiled once.

    If the script of the references decides how BLEU splits them, it says so once.

    Attributes:
        signature: sacreBLEU's signature of the last validation's BLEU.
    """

    def __init__(self) -> None:
        self.signature = self._tokenize = ""
        self._translator: Translator | None = None
        self._predictor: Predictor | None = None
        self._lay_out: Callable[[Any], Any] | None = None

    def __call__(self, trainer: Trainer, params: Any) -> tuple[list[str], float]:
        """Return translations of the validation sentences, and their BLEU, as `jaxnmt evaluate --split validation` computes it, but with
        validation.beam_size.

        Args:
            trainer: its experiment, its decoder and its data are used.
            params: the decoder's.
        """
        config, data, tokenizer = trainer.config, trainer.data, trainer.data.tokenizer
        if self._translator is None:
            quiet = lambda line: None  # noqa: E731  the same sentences are too long at every validation; `evaluate` says so
            kind = pkgutil.resolve_name(config.task.translator)
            self._translator = translator = kind(trainer.decoder, params, tokenizer, config.data.max_length, warn=quiet)
            if config.task.vectors:
                from jaxnmt.data import pictures  # which imports a library that other tasks do not need

                translator.read = pictures.kept
        # A deep model gathers its parameters layer by layer: a replicated copy might not fit beside the training state.
        self._translator.params = params if trainer.decoder.can_gather else self._replicated(params)
        decoding = dataclasses.replace(config.decoding, beam_size=config.validation.beam_size, n_best=1, shortlist=0)
        pairs = [(source, tokenizer.readable(target)) for source, target in data.validation]
        sources, *targets = zip(*pairs, strict=True)
        names: Any = sources
        references: Any = targets
        if config.task.vectors:
            names, captions = by_picture(pairs)
            references = without_gaps(captions)
        candidates = self._translator.translate(names, decoding)
        self._translator.params = None  # training needs the memory
        hypotheses = [best.text for best, *_ in candidates]
        if not self._tokenize:
            split_text = "none" if stays_split(tokenizer.pretokenized, tokenizer.joiner) else ""
            chosen = choose(data.languages[1], targets[0], split_text)
            self._tokenize = chosen.name
            if chosen.note:
                log.say(chosen.note)
        score = bleu(hypotheses, references, self._tokenize)
        self.signature = score.signature
        if config.task.vectors:
            made = dict(zip(names, hypotheses, strict=True))
            hypotheses = [made[name] for name in sources]
        return hypotheses, score.value

    def predict(self, trainer: Trainer, params: Any) -> list[str]:
        """Return the labels of the validation texts, for `__call__`'s arguments, if the run predicts labels."""
        config, data = trainer.config, trainer.data
        if self._predictor is None:
            settings: Any = config.task.labels, config.data.max_length, lambda line: None  # type: ignore[attr-defined]
            self._predictor = Predictor(trainer.decoder, params, data.tokenizer, *settings)
        self._predictor.params = self._replicated(params)
        found = self._predictor.predict([source for source, _ in data.validation], config.decoding.batch_size)
        self._predictor.params = None
        return [each.label for each in found]

    def _replicated(self, params: Any) -> Any:
        """Return the parameters replicated on each device, as `translate` has them: sharded ones would be gathered again for each batch."""
        mesh = mesh_of(params)
        if mesh is None or not is_sharded(params):
            return params
        if self._lay_out is None:
            self._lay_out = jax.jit(lambda tree: tree, out_shardings=replicated(mesh))
        return self._lay_out(params)
