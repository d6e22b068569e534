"""The public names and where they are defined. Type checkers, the documentation and `__init__.py` read this file."""

from jaxnmt.config import (
    Batching,
    Captioning,
    Checkpoints,
    Classification,
    Cleaning,
    Data,
    Decoding,
    Denoising,
    Experiment,
    Init,
    Language,
    Logging,
    Lora,
    MaskedLanguage,
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
from jaxnmt.config.files import load_config
from jaxnmt.decoding.alignments import Alignment
from jaxnmt.decoding.predictor import Prediction
from jaxnmt.decoding.scoring import ScoredPair
from jaxnmt.decoding.translation import Translation
from jaxnmt.ensemble_run import ensemble
from jaxnmt.errors import Diverged, Stopped, Unreachable, UserError
from jaxnmt.evaluation.scores import Estimate, MetricResult, Score, Scores
from jaxnmt.evaluation.test_sets import TestSet
from jaxnmt.interop.adapted_run import with_adapter
from jaxnmt.interop.check import Agreement
from jaxnmt.interop.engine import with_engine
from jaxnmt.interop.export import export_model
from jaxnmt.interop.importing import import_model
from jaxnmt.lab.ablations.study import Budget, Study
from jaxnmt.run import Run, load
from jaxnmt.training.hooks import Hook, Profile
from jaxnmt.training_run import train

__version__: str

__all__ = [
    "Agreement",
    "Alignment",
    "Batching",
    "Budget",
    "Captioning",
    "Checkpoints",
    "Classification",
    "Cleaning",
    "Data",
    "Decoding",
    "Denoising",
    "Diverged",
    "Estimate",
    "Experiment",
    "Hook",
    "Init",
    "Language",
    "Logging",
    "Lora",
    "MaskedLanguage",
    "Mesh",
    "MetricResult",
    "Optimizer",
    "Prediction",
    "Profile",
    "Recurrent",
    "Run",
    "Schedule",
    "Score",
    "ScoredPair",
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
    "ensemble",
    "export_model",
    "import_model",
    "load",
    "load_config",
    "replace",
    "train",
    "with_adapter",
    "with_engine",
]
