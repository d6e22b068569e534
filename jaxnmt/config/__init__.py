"""What a run is: frozen dataclasses, loaded by name or path, overridden by typed flags, saved as JSON. Nothing here imports JAX."""

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
    "Validation",
    "constraint",
    "replace",
]
