"""Choose the translator of a task."""

from __future__ import annotations

from jaxnmt.config import Captioning, Language, Task
from jaxnmt.decoding.translator import Translator


def translator_of(task: Task) -> type[Translator]:
    """Return the class that turns lines into what the task's model writes of them."""
    if isinstance(task, Captioning):
        from jaxnmt.decoding.captioner import Captioner

        return Captioner
    if isinstance(task, Language):
        from jaxnmt.decoding.continuation import Continuation

        return Continuation
    return Translator
