"""The settings of a run: frozen dataclasses, loaded by name or path, overridden by flags, saved as JSON. Nothing here imports JAX."""

# `import X as X` makes X public to type checkers.
from jaxnmt.config.experiment import Batching as Batching
from jaxnmt.config.experiment import Checkpoints as Checkpoints
from jaxnmt.config.experiment import Cleaning as Cleaning
from jaxnmt.config.experiment import Data as Data
from jaxnmt.config.experiment import Decoding as Decoding
from jaxnmt.config.experiment import Experiment as Experiment
from jaxnmt.config.experiment import Logging as Logging
from jaxnmt.config.experiment import Mesh as Mesh
from jaxnmt.config.experiment import Model as Model
from jaxnmt.config.experiment import Optimizer as Optimizer
from jaxnmt.config.experiment import Schedule as Schedule
from jaxnmt.config.experiment import Tokenizer as Tokenizer
from jaxnmt.config.experiment import Training as Training
from jaxnmt.config.experiment import Validation as Validation
from jaxnmt.config.experiment import replace as replace
from jaxnmt.config.fields import NonNegative as NonNegative
from jaxnmt.config.fields import Positive as Positive
from jaxnmt.config.fields import Rate as Rate
from jaxnmt.config.fields import Share as Share
from jaxnmt.config.fields import constraint as constraint
from jaxnmt.config.models import Recurrent as Recurrent
from jaxnmt.config.models import Transformer as Transformer
from jaxnmt.errors import UserError as UserError  # which the `build` of a user's own model may raise
