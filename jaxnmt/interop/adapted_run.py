"""A run that decodes with a low-rank adapter: several of them over one base share its parameters and its compiled programs."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxnmt.errors import UserError
from jaxnmt.run import Run

if TYPE_CHECKING:
    from jaxnmt.data.tokenizer import Tokenizer
    from jaxnmt.decoding.alignments import Aligner
    from jaxnmt.decoding.predictor import Predictor
    from jaxnmt.decoding.scoring import Scorer
    from jaxnmt.decoding.translator import Translator
    from jaxnmt.interop.adapter_files import Adapter
    from jaxnmt.models.seq2seq import Seq2Seq


def with_adapter(run: Run, adapter: str | Path) -> Run:
    """Return a run that decodes with an adapter over this run's parameters. All else, such as its decoding settings, is the base's.

    Adapters of one base share its parameters and compiled programs. In memory are the base's parameters, and the adapted kernels of the
    adapter that was used last; to use another one reads its factors and adds them to the base's kernels.

    Args:
        run: the base, with weights as they were trained.
        adapter: a folder that `export_model(run, folder, "adapter")` made, or a run that was fine-tuned from this one by `training.lora`,
            of which the best checkpoint is used.

    Raises:
        UserError: the adapter is damaged, or belongs to another run or checkpoint.
    """
    from jaxnmt.interop.adapter_files import open_adapter  # which imports NumPy

    if type(run) is not Run:
        raise UserError(f"an adapter is added to the parameters of one run, and {run.folder} is open with others: give the run itself")
    if run.weights != "trained":
        raise UserError(f"an adapter is added to parameters as they were trained: leave out weights {run.weights}")
    found = open_adapter(adapter)
    found.fit.check(found.place, run)
    return AdaptedRun(run, found)


class AdaptedRun(Run):
    """A run that decodes with an adapter, see `with_adapter`.

    Attributes:
        base: the run whose parameters and programs it shares.
        adapter: the adapter.
    """

    def __init__(self, base: Run, adapter: Adapter) -> None:
        """Use a run that is open already."""
        super().__init__(base.folder, base.pinned, trusted=True)
        self.config, self.base, self.adapter = base.config, base, adapter

    @functools.cached_property
    def _found(self) -> Any:
        """The base's checkpoint with the adapter, which identify kept translations."""
        found = self.base._found
        return found._replace(name=f"{found.name} with the adapter {self.adapter.place}", checksum=found.checksum ^ self.adapter.identity)

    @property
    def tokenizer(self) -> Tokenizer:
        """The base's."""
        return self.base.tokenizer

    @property
    def model(self) -> Seq2Seq:
        """The base's."""
        return self.base.model

    @property
    def _decoding_form(self) -> tuple[Any, Any]:
        return self.base._decoding_form[0], self.base._adapted_params(self.adapter)

    @property
    def params(self) -> Any:
        """The parameters that decoding uses, with the adapter."""
        from jaxnmt.models.parameters import for_decoding, is_scanned, unstack_layers

        params = self._decoding_form[1]
        return unstack_layers(params) if is_scanned(for_decoding(self.config.model)) else params

    # Each of these shares the base's compiled programs. None is kept: it would keep the parameters of this adapter in memory.

    @property
    def translator(self) -> Translator:
        """Translates many lines with given decoding settings."""
        return self.base.translator.with_params(self._decoding_form[1])

    @property
    def predictor(self) -> Predictor:
        """Predicts the labels of many texts."""
        return self.base.predictor.with_params(self._decoding_form[1])

    @property
    def aligner(self) -> Aligner:
        """Aligns translations with their sources."""
        return self.translator.aligner

    @property
    def scorer(self) -> Scorer:
        """Scores given translations of many lines."""
        return self.base.scorer.with_params(self._decoding_form[1])
