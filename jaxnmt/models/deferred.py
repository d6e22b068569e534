"""A model that is built when it is first used. No flax here."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxnmt.models.seq2seq import Seq2Seq


class DeferredModel:
    """A `Seq2Seq` that is built when it is first used: a translation by kept programs never uses it."""

    def __init__(self, build: Callable[[], Seq2Seq]):
        """Defer `build`."""
        self._build = functools.cache(build)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # copying asks for these before the model can be built
            raise AttributeError(name)
        return getattr(self._build(), name)
