"""jaxnmt: a JAX/Flax trainer for neural machine translation, from the plain RNN to the Transformer.

What is listed in `__all__` is public and documented in docs/python.md; everything else is private and may change. Importing the package
imports neither JAX nor any other module of it: a name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxnmt.config import (
        Batching,
        Checkpoints,
        Cleaning,
        Data,
        Decoding,
        Experiment,
        Logging,
        Mesh,
        Optimizer,
        Recurrent,
        Schedule,
        Tokenizer,
        Training,
        Transformer,
        Validation,
        replace,
    )
    from jaxnmt.decoding.alignments import Alignment
    from jaxnmt.decoding.translator import Translation
    from jaxnmt.errors import Diverged, Stopped, Unreachable, UserError
    from jaxnmt.evaluation.scores import Estimate, MetricResult, Score, Scores
    from jaxnmt.evaluation.test_sets import TestSet
    from jaxnmt.lab.ablations.study import Budget, Study
    from jaxnmt.run import Run, load, load_config, train
    from jaxnmt.training.hooks import Hook, Profile

__version__ = "0.1.0"

__all__ = [
    "Alignment",
    "Batching",
    "Budget",
    "Checkpoints",
    "Cleaning",
    "Data",
    "Decoding",
    "Diverged",
    "Estimate",
    "Experiment",
    "Hook",
    "Logging",
    "Mesh",
    "MetricResult",
    "Optimizer",
    "Profile",
    "Recurrent",
    "Run",
    "Schedule",
    "Score",
    "Scores",
    "Stopped",
    "Study",
    "TestSet",
    "Tokenizer",
    "Training",
    "Transformer",
    "Translation",
    "Unreachable",
    "UserError",
    "Validation",
    "load",
    "load_config",
    "replace",
    "train",
]

# Where public names are found, in the order in which they are looked up: modules that import JAX come last.
_MODULES = (
    *("errors", "config", "run", "lab.ablations.study", "evaluation.scores", "evaluation.test_sets"),
    *("decoding.translator", "decoding.alignments", "training.hooks"),
)


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in _MODULES:
            found = vars(importlib.import_module(f"jaxnmt.{module}"))
            if name in found:
                return found[name]
    raise AttributeError(f"module 'jaxnmt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
