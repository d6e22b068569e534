"""What a run decodes with: its translator, and what aligns, scores and predicts labels. JAX is imported when one of them is needed."""

from __future__ import annotations

import copy
import functools
import pkgutil
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from jaxnmt.config import Decoding, Input, checks
from jaxnmt.config.tasks import require
from jaxnmt.errors import UserError
from jaxnmt.parallel import compiler, log
from jaxnmt.training.trained import TrainedRun

if TYPE_CHECKING:
    from jaxnmt.decoding.alignments import Aligner
    from jaxnmt.decoding.marked_translator import MarkedTranslator
    from jaxnmt.decoding.predictor import Predictor
    from jaxnmt.decoding.scoring import Scorer
    from jaxnmt.decoding.translator import Translator


class DecodingRun(TrainedRun):
    """A trained run whose parts for decoding are made when they are first used; they serve `Run` and the commands."""

    @functools.cached_property
    def translator(self) -> Translator:
        """Translates many lines with given decoding settings."""
        require(self.config.task, "translate", self.folder)
        self._read_ahead()
        compiler.check()  # starts JAX with the right flags, and a missing device is reported before a damaged checkpoint
        limit, kept_by = self.config.data.max_length, self._cache_key
        kind = pkgutil.resolve_name(self.config.task.translator)
        return kind(*self._decoding_form, self.tokenizer, limit, make_lexicon=self._lexicon, cache_key=kept_by)

    @functools.cached_property
    def _decoding_form(self) -> tuple[Any, Any]:
        """The model as it decodes, and its parameters. Kept programs do not need an unrolled one to be built."""
        import jax

        from jaxnmt.models.deferred import DeferredModel
        from jaxnmt.models.parameters import for_decoding, is_scanned, stack_layers

        if is_scanned(for_decoding(self.config.model)):
            model = self._built(for_decoding)
            layouts = self._layouts(model, model.shapes) if jax.device_count() > 1 else None
            stacked = jax.jit(stack_layers, out_shardings=layouts)(self.params)
            del self.params  # which is read again if it is asked for: two copies might not fit
            return model, stacked
        return DeferredModel(lambda: self.model, self._cache_key) if self._cache_key else self.model, self.params

    @functools.cached_property
    def _adapted_params(self) -> Callable[[Any], Any]:
        """Returns the parameters of `_decoding_form` with an `interop.adapter_files.Adapter`.

        Those of the adapter that was used last are kept. The parameters that it does not change are not copied.
        """
        from jaxnmt.models.parameters import for_decoding, is_scanned

        def adapted(adapter: Any) -> Any:
            params = self._decoding_form[1]
            log.say(f"with the adapter {adapter.place}")
            return adapter.applied(params, is_scanned(for_decoding(self.config.model)))

        return functools.lru_cache(maxsize=1)(adapted)

    @functools.cached_property
    def predictor(self) -> Predictor:
        """Predicts the labels of many texts."""
        task = require(self.config.task, "predict", self.folder)
        self._read_ahead()
        compiler.check()
        from jaxnmt.decoding.predictor import Predictor

        limit = self.config.data.max_length
        return Predictor(*self._decoding_form, self.tokenizer, task.labels, limit, cache_key=self._cache_key)

    def _lexicon(self) -> Any:
        from jaxnmt.decoding import lexicon

        return lexicon.of_run(self.folder, self.config, self.tokenizer)

    @functools.cached_property
    def aligner(self) -> Aligner:
        """Aligns translations with their sources."""
        return self.translator.aligner

    @functools.cached_property
    def scorer(self) -> Scorer:
        """Scores given translations of many lines."""
        from jaxnmt.decoding.scoring import Scorer

        return Scorer(self.translator, self.config.decoding)

    def translator_of(self, given: Input) -> Translator | MarkedTranslator:
        """Return the translator for this kind of input.

        Raises:
            UserError: the model has no attention, and `given.format` is html.
        """
        translator = self.translator
        if given.max_input:
            trained = self.config.data.max_length
            translator = copy.copy(translator)  # shares the compiled searches
            translator.max_length = int(min(given.max_input, max(trained, getattr(self.config.model, "longest_input", given.max_input))))
        if given.format == "text" and not given.protect:
            return translator
        from jaxnmt.decoding.marked_translator import MarkedTranslator

        try:
            aligner = self.aligner
        except UserError:
            if given.format == "html":
                raise
            aligner = None
        return MarkedTranslator(translator, aligner, given.format, given.protect)

    def decoding(self, changes: Mapping[str, Any]) -> Decoding:
        """Return the run's decoding settings with other values for some fields.

        Raises:
            UserError: a field does not exist, or its value is invalid.
        """
        try:
            return self._checked_decoding(**changes)
        except TypeError:  # a value that has no hash, which is refused
            return self._checked_decoding.__wrapped__(**changes)

    @functools.cached_property
    def _checked_decoding(self) -> Any:
        """Returns settings as `decoding` does. To check them takes as long as a short translation; 1 and 1.0 are not the same."""

        @functools.lru_cache(maxsize=64, typed=True)
        def checked(**changes: Any) -> Decoding:
            return checks.with_settings(self.config, {f"decoding.{name}": value for name, value in changes.items()}).decoding

        return checked
