"""A model that is built when it is first used. No flax here."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from jaxnmt.parallel import kept

if TYPE_CHECKING:
    from jaxnmt.models.seq2seq import Seq2Seq


class DeferredModel:
    """A `Seq2Seq` that is built when it is first used: a translation by kept programs never uses it."""

    def __init__(self, build: Callable[[], Seq2Seq], cache_key: tuple[object, ...] = ()):
        """Defer `build`; `cache_key` identifies the model, as `StagedSearch` takes it, or is empty: then nothing is kept."""
        self._build, self._cache_key = functools.cache(build), cache_key

    @functools.cached_property
    def step_weights(self) -> Any:
        """The model's `step_weights`, without building it if they are kept."""
        return kept.json_of(lambda: self._build().step_weights, "step weights", self._cache_key)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # copying asks for these before the model can be built
            raise AttributeError(name)
        return getattr(self._build(), name)
