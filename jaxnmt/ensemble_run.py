"""Several runs that translate as one."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from jaxnmt.config import Denoising, Input, Translation
from jaxnmt.errors import UserError
from jaxnmt.run import Run

if TYPE_CHECKING:
    from jaxnmt.decoding.marked_translator import MarkedTranslator
    from jaxnmt.decoding.scoring import Scorer
    from jaxnmt.decoding.translator import Translator


def ensemble(first: Run, *others: Run, weights: Sequence[float] = (), space: Literal["probability", "log"] = "probability") -> Run:
    """Return a run that predicts each word with several runs together. All else, such as its decoding settings, is the first run's.

    Args:
        first, others: runs of any models, with equal target vocabularies. Each reads the source with its own tokenizer.
        weights: of the runs, in this order, relative to each other; empty: all are equal.
        space: "probability": average probabilities; "log": average log-probabilities and normalise them.

    Raises:
        UserError: the target vocabularies differ, or the weights are not one for each run, 0 or more.
    """
    return EnsembleRun((first, *others), tuple(weights), space)


class EnsembleRun(Run):
    """Several runs that translate as one, see `ensemble`. All but its translations is the first run's.

    Attributes:
        runs: the members.
    """

    def __init__(self, runs: tuple[Run, ...], weights: tuple[float, ...], space: Literal["probability", "log"]):
        """Open the first run again, and check that the others go with it."""
        first, *others = runs
        super().__init__(first.folder, first._asked, trusted=True, weights=first.weights)  # it is open already
        self.runs, self._weights, self._space = runs, weights, space
        for run in runs:
            if isinstance(run, EnsembleRun):
                raise UserError(f"{run.folder} is an ensemble already: name all its runs, and the others, in one call of `ensemble`")
        for other in others:
            if found := first.tokenizer.target_difference(other.tokenizer):
                index, one, another = found
                raise UserError(
                    f"{first.folder} and {other.folder} have different target vocabularies (token {index} is {one!r} in the first and "
                    f"{another!r} in the second): an ensemble needs runs that were trained with the same tokenizer"
                )
        for run in runs:
            if not isinstance(task := run.config.task, Translation | Denoising):
                raise UserError(f"{run.folder} was trained for the task {type(task).__name__}: an ensemble is of runs that translate")
        usable = all(math.isfinite(weight) and weight >= 0 for weight in weights) and any(weights)
        if weights and not (usable and len(weights) == len(runs)):
            raise UserError(
                f"the weights of an ensemble of {len(runs)} runs are {' '.join(f'{weight:g}' for weight in weights)}: "
                "give one for each run, the first run's first, each 0 or more and not all 0"
            )

    @functools.cached_property
    def translator(self) -> Translator:
        """Translates with all members."""
        from jaxnmt.decoding.ensemble import EnsembleTranslator

        return EnsembleTranslator([run.translator for run in self.runs], self._weights, self._space)

    def translator_of(self, given: Input) -> Translator | MarkedTranslator:
        """Return the translator for this kind of input.

        Raises:
            UserError: as for one run; or `max_input` is given.
        """
        if given.max_input:
            raise UserError("max_input is for one run: an ensemble's runs read data.max_length tokens each")
        return super().translator_of(given)

    @property
    def scorer(self) -> Scorer:
        """Raise a UserError."""
        raise UserError("an ensemble does not score given translations: score them with each run")

    def translations(self, sources: Sequence[str], **decoding: Any) -> list[str]:
        """Return the best translation of each sentence. They are not kept, since they are not one run's."""
        return [best.text for best in self.translate(sources, **decoding | {"n_best": 1})]
