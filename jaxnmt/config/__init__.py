"""The settings of a run: frozen dataclasses, loaded by name or path, overridden by flags, saved as JSON. Nothing here imports JAX."""

from jaxnmt.config.constraints import NonNegative, Positive, Rate, Share, constraint
from jaxnmt.config.experiment import (
    Batching,
    Checkpoints,
    Cleaning,
    Data,
    Decoding,
    Experiment,
    Logging,
    Mesh,
    Model,
    Optimizer,
    Schedule,
    Tokenizer,
    Training,
    Validation,
    replace,
)
from jaxnmt.config.models import Recurrent, Transformer
from jaxnmt.errors import UserError  # which the `build` of a model of the user's own may raise

__all__ = [
    "Batching",
    "Checkpoints",
    "Cleaning",
    "Data",
    "Decoding",
    "Experiment",
    "Logging",
    "Mesh",
    "Model",
    "NonNegative",
    "Optimizer",
    "Positive",
    "Rate",
    "Recurrent",
    "Schedule",
    "Share",
    "Tokenizer",
    "Training",
    "Transformer",
    "UserError",
    "Validation",
    "constraint",
    "replace",
]
