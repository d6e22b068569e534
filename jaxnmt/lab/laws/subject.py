"""What the laws test: a configuration's model at its full size, over small vocabularies and random sentences; and a few training steps."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnmt import config as cfg
from jaxnmt.data.batching import PlannedBatch
from jaxnmt.data.corpus import in_memory
from jaxnmt.data.labels import Numbers
from jaxnmt.data.loader import assemble
from jaxnmt.data.objectives import Objective, objective_of, unchanged
from jaxnmt.data.packing import Shape
from jaxnmt.models.layers import DropoutKey
from jaxnmt.models.parameters import for_decoding, is_scanned, stack_layers, unscanned
from jaxnmt.models.seq2seq import Seq2Seq, build_model
from jaxnmt.parallel.sharding import make_mesh, to_mesh
from jaxnmt.training.state import TrainState, shardings_of
from jaxnmt.training.step import TrainPrograms

SOURCE_VOCAB, TARGET_VOCAB = 23, 29  # of models whose embeddings are not all one
FIRST_WORD = 4  # the ids before it are special
ROUNDING = 1e-4
"""Largest difference between two orders of the same float32 sums, in logits, or relative to the largest gradient."""

SHAPE = Shape(8, 9, 8)  # of a training step

NUMBERS = Numbers((FIRST_WORD + TARGET_VOCAB) / 2, (TARGET_VOCAB - FIRST_WORD) / 4)  # as which a task of numbers reads target words

Pair = tuple[list[int], list[int]]


class Verdict(NamedTuple):
    """Whether a law holds (None: it does not apply), and what was measured or why it does not apply."""

    holds: bool | None
    measured: str


def apart(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the absolute differences of two arrays, which may be infinite at the same places."""
    with np.errstate(invalid="ignore"):
        return np.where(left == right, 0, np.abs(left - right))


def close(difference: float, bound: float = ROUNDING, what: str = "largest difference") -> Verdict:
    """Return a verdict that holds if a difference is at most `bound`, and not NaN."""
    return Verdict(bool(difference <= bound), f"{what} {difference:.1g}, at most {bound:g} allowed")


def distance(left: Any, right: Any) -> float:
    """Return the largest relative difference of two pytrees of one structure.

    A leaf's differences are divided by its largest number, or by a hundredth of the largest number of all leaves if that is larger: some
    gradients are nothing but rounding.
    """
    left, right = jax.device_get((left, right))
    largest = max(np.abs(x).max() for x in jax.tree.leaves(right))
    scaled = jax.tree.map(lambda a, b: np.abs(a - b).max() / max(np.abs(b).max(), 0.01 * largest), left, right)
    return float(np.max(jax.tree.leaves(scaled)))  # numpy's max propagates NaN


def random_pairs(count: int, seed: int = 0, shortest: int = 2, longest: int = 6) -> list[Pair]:
    """Return random (source ids, target ids), without start and end."""
    random = np.random.default_rng(seed)
    side = lambda vocab: random.integers(FIRST_WORD, vocab, random.integers(shortest, longest + 1)).tolist()  # noqa: E731
    return [(side(SOURCE_VOCAB), side(TARGET_VOCAB)) for _ in range(count)]


def batch_of(
    pairs: Sequence[Pair],
    rows: Sequence[Sequence[int]],
    source: int,
    target: int,
    packed: bool = False,
    objective: Objective = unchanged,
    vectors: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Return the arrays of a batch of `source` and `target` positions; its row r holds the pairs numbered `rows[r]`."""
    row = np.array([r for r, members in enumerate(rows) for _ in members], np.int32)
    index = np.array([i for members in rows for i in members], np.int64)
    planned = PlannedBatch(0, Shape(len(rows), source, target), packed, row, np.zeros_like(row), index)
    return assemble(planned, [in_memory(pairs, vectors=vectors)], objective)


def sources(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return what a search reads of a batch."""
    return {name: x for name, x in batch.items() if name.startswith("encoder_input_")}


def model_of(config: Any, target_vocab: int = TARGET_VOCAB, task: cfg.Task = cfg.Translation()) -> Seq2Seq:  # noqa: B008  it is frozen
    """Return the model with another source than target vocabulary, if its embeddings and its task allow that."""
    shared = not task.pairs or (getattr(config, "tie_embeddings", "") == "all" and not task.is_label)
    return build_model(config, target_vocab if shared else SOURCE_VOCAB, target_vocab, task)


class _Tokens:
    """What an objective asks of a tokenizer: every token is a word."""

    target_vocab_size = len(NUMBERS)

    def target_begins(self) -> np.ndarray:
        return np.ones(TARGET_VOCAB, bool)


def one_pass(model: Seq2Seq, params: Any, batch: Any) -> jax.Array:
    """Return what a model predicts without a search: teacher-forced logits (B, T, V), or the result of `predict` (B, 1, labels)."""
    if model.task.is_label:
        return model.apply(params, "predict", batch)[:, None]
    return model.decode(params, model.encode(params, batch), batch)


class WithoutDropout(Seq2Seq):
    """A model that ignores its dropout key."""

    def __init__(self, model: Seq2Seq):
        super().__init__(model.module, model.target_vocab)

    def apply(self, params, method: str, *args, **options):
        """Call one of the module's methods, without the key."""
        return super().apply(params, method, *(None if isinstance(x, DropoutKey) else x for x in args), **options)


class Subject:
    """A model that the laws test.

    Attributes:
        config: the model's configuration, in float32, so that rounding does not hide mistakes.
        task: what it predicts.
        name: the configuration's class.
        labels: their kind, as `config.Classification.labels`; "" for other tasks.
        packs: whether a row may hold several pairs.
        model: as it trains; with params.
        flat_model: with its layers one by one; with flat_params, the same parameters.
        decoder: as it decodes; with decoder_params, the same parameters.
        experiment: a run of this model, for the laws about training.
    """

    def __init__(self, config: Any, task: cfg.Task = cfg.Translation()):  # noqa: B008  it is frozen
        self.config, self.task = dataclasses.replace(config, dtype="float32") if hasattr(config, "dtype") else config, task
        self.name, self.packs = type(config).__name__, getattr(config, "packs", False) and task.packs
        self.labels = task.labels if isinstance(task, cfg.Classification) else ""
        configs = self.config, unscanned(self.config), for_decoding(self.config)
        self.model, self.flat_model, self.decoder = (model_of(each, task=task) for each in configs)
        self._logits, self._predict = (jax.jit(functools.partial(one_pass, model)) for model in (self.model, self.decoder))
        # Rounding may take a ReLU past zero, and Adam's first steps follow a gradient's sign, however small it is. At a high learning rate,
        # rounding on eight devices that differs from rounding on one would soon show in the loss.
        changes = {"schedule.name": "constant", "schedule.learning_rate": 1e-4, "schedule.warmup_steps": 2, "training.ema_decay": 0.9}
        self.experiment = cfg.replace(cfg.Experiment(task=task, model=self.config), **changes)
        tokens: Any = _Tokens()
        self._objective = objective_of(self.experiment.task, tokens, self.experiment.training.seed)

    def batch(
        self, pairs: Sequence[Pair], rows: Sequence[Sequence[int]], source: int, target: int, packed: bool = False
    ) -> dict[str, np.ndarray]:
        """Return `batch_of` of the task's examples, which random pairs are made into."""
        if not self.task.pairs:
            pairs = [(text, text) for text, _ in pairs]
        elif self.task.is_label:
            pairs = [(text, self._label_ids(self.label(words))) for text, words in pairs]
        vectors = None
        if isinstance(self.task, cfg.Captioning):
            pairs = [([number], words) for number, (_, words) in enumerate(pairs)]
            random, shape = np.random.default_rng(7), (len(pairs), *self.task.vector_shape)
            pixels = random.integers(0, 256, shape, np.uint8)
            vectors = pixels if self.task.source == "pictures" else random.standard_normal(shape, np.float32)
        return batch_of(pairs, rows, source, target, packed, self._objective, vectors)

    def label(self, words: Sequence[int]) -> list[int]:
        """Make a label of random target words, in the form that `labels_found` returns."""
        return sorted(set(words)) if self.labels == "several" else list(words[:1])

    def _label_ids(self, label: list[int]) -> list[int]:
        return NUMBERS.encode([str(label[0])])[0] if self.labels == "number" else label

    def labels_found(self, params: Any, batch: dict[str, np.ndarray]) -> list[list[int]]:
        """Return the labels that the decoder predicts."""
        values_BV = np.asarray(self._predict(params, batch))[:, 0]
        if self.labels == "number":
            return [[round(float(NUMBERS.text(value)))] for value in values_BV[:, 0]]
        if self.labels == "several":
            return [(FIRST_WORD + np.flatnonzero(values_V > 0.5)).tolist() for values_V in values_BV]
        return (FIRST_WORD + values_BV.argmax(1, keepdims=True)).tolist()

    def batch_of_step(self, step: int, shape: Shape = SHAPE) -> dict[str, np.ndarray]:
        """Return the random examples of a step; the last row is empty, as in a batch that is padded."""
        pairs = random_pairs(shape.rows - 1, 100 + step, 1, min(shape.source, shape.target) - 2)
        return self.batch(pairs, [*([i] for i in range(shape.rows - 1)), []], shape.source, shape.target)

    @functools.cached_property
    def flat_params(self) -> Any:
        """Return fresh parameters, each moved a little: a bias at zero, or a scale at one, would hide that the model forgets it."""
        random = np.random.default_rng(0)

        def move(x):
            spread = min(float(x.std()) or 0.2, 0.2)
            return jnp.asarray(x + spread * random.standard_normal(x.shape, np.float32))

        key = jax.random.key(0, impl="unsafe_rbg")  # its bits come from one instruction: compiled in a fraction of the time
        return jax.tree.map(move, jax.device_get(jax.jit(self.flat_model.init)(key)))

    @functools.cached_property
    def params(self) -> Any:
        return jax.jit(stack_layers)(self.flat_params) if is_scanned(self.config) else self.flat_params

    @property
    def decoder_params(self) -> Any:
        return self.params if is_scanned(for_decoding(self.config)) else self.flat_params

    def logits(self, batch: dict[str, np.ndarray], params: Any = None) -> np.ndarray:
        """Return teacher-forced logits without padding ids, (B, T, V); for tasks with labels the result of `predict`, (B, 1, labels)."""
        return np.asarray(self._logits(self.params if params is None else params, batch))[..., :TARGET_VOCAB]


def shape_of(arrays: dict[str, np.ndarray]) -> Shape:
    """Return the shape of a batch's arrays."""
    (rows, source), (_, target) = arrays["encoder_input_tokens"].shape, arrays["decoder_input_tokens"].shape
    return Shape(rows, source, target)


class Practice:
    """Training of a model, with its step compiled for some shapes.

    Attributes:
        abstract: shapes, types and layout of the state.
    """

    def __init__(self, model: Seq2Seq, experiment: cfg.Experiment, shapes: Sequence[Shape] = (SHAPE,)):
        self.model, self.experiment = model, experiment
        self.mesh = make_mesh(experiment.mesh)
        self.programs = TrainPrograms(model, experiment, self.mesh)
        self.programs.compile(shapes, packed=False)
        self.abstract = self.programs.abstract

    def fresh(self, lr_scale: float = 1.0) -> TrainState:
        """Return the state before the first step; `lr_scale` multiplies the learning rate."""
        state = self.programs.fresh(self.experiment.training)
        scale = jax.device_put(np.float32(lr_scale), self.abstract.lr_scale.sharding)
        return dataclasses.replace(state, lr_scale=scale)

    def own(self, state: TrainState) -> TrainState:
        """Return a copy laid out like `abstract`: a step donates its arrays, and those of a checkpoint reader must not be donated."""
        return jax.jit(lambda s: jax.tree.map(jnp.copy, s), out_shardings=shardings_of(self.abstract))(state)

    def run(self, state: TrainState, batches: Iterable[dict[str, np.ndarray]]) -> tuple[TrainState, list[float]]:
        """Return the state after a step on each batch, and the mean loss of each."""
        sums: list[Any] = []
        for arrays in batches:
            state, metrics = self.programs(state, shape_of(arrays), to_mesh(arrays, self.mesh))
            sums.append(metrics.sums)
        return state, [float(x.loss) / float(x.tokens) for x in jax.device_get(sums)]
