"""Validation BLEU: translates and scores the validation sentences for the training loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax

from jaxnmt.config import Experiment
from jaxnmt.data.tokenizer import Tokenizer
from jaxnmt.decoding.translator import Translator
from jaxnmt.evaluation.scores import bleu
from jaxnmt.evaluation.tokenization import choose, of_split_text
from jaxnmt.models.seq2seq import Seq2Seq
from jaxnmt.parallel import log
from jaxnmt.parallel.sharding import mesh_of, replicated


class ValidationTranslator:
    """Translates with one translator for a whole run, so that its searches are compiled once.

    Args:
        say: is called with a line for people, once, if the script of the references decides how BLEU splits them.

    Attributes:
        signature: sacreBLEU's signature of the last validation's BLEU.
    """

    def __init__(self, say: Callable[[str], None] = log.say) -> None:
        self.signature = ""
        self._say, self._tokenize = say, ""
        self._translator: Translator | None = None
        self._lay_out: Callable[[Any], Any] | None = None

    def __call__(
        self,
        experiment: Experiment,
        model: Seq2Seq,
        tokenizer: Tokenizer,
        params: Any,
        pairs: Sequence[tuple[str, str]],
        languages: tuple[str, str],
    ) -> tuple[list[str], float]:
        """Return translations of the source sides, and their BLEU against the target sides, as `jaxnmt evaluate --split validation` does
        it, with validation.beam_size.

        Args:
            params: layers unstacked.
            pairs: validation sentences and their references.
            languages: codes of source and target.
        """
        if self._translator is None:
            quiet = lambda line: None  # noqa: E731  the same sentences are too long at every validation; `evaluate` says so
            self._translator = Translator(model, params, tokenizer, experiment.data.max_length, warn=quiet)
        self._translator.params = self._whole(params)
        decoding = dataclasses.replace(experiment.decoding, beam_size=experiment.validation.beam_size, n_best=1)
        candidates = self._translator.translate([source for source, _ in pairs], decoding)
        self._translator.params = None  # training needs the memory
        hypotheses = [best.text for best, *_ in candidates]
        references = [tokenizer.readable(target) for _, target in pairs]
        if not self._tokenize:
            chosen = choose(languages[1], references, of_split_text(tokenizer.pretokenized, tokenizer.joiner))
            self._tokenize = chosen.name
            if chosen.note:
                self._say(chosen.note)
        score = bleu(hypotheses, [references], self._tokenize)
        self.signature = score.signature
        return hypotheses, score.value

    def _whole(self, params: Any) -> Any:
        """Return the parameters replicated on each device, as `translate` has them: sharded ones would be gathered again for each batch."""
        mesh = mesh_of(params)
        if mesh is None or all(leaf.is_fully_replicated for leaf in jax.tree.leaves(params)):
            return params
        if self._lay_out is None:
            self._lay_out = jax.jit(lambda tree: tree, out_shardings=replicated(mesh))
        return self._lay_out(params)
