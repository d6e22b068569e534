"""The settings of a run: frozen dataclasses, loaded by name or path, overridden by typed flags, saved as JSON.

Nothing here imports JAX, so that a typo is answered at once. The docstring under each field is its help text: `jaxnmt train CONFIG --help`
prints it with the field's constraint. The method `problems` of a dataclass says which of its fields contradict each other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

# `import X as X` makes X a public name of this module for type checkers.
from jaxnmt.config.decoding import Decoding as Decoding
from jaxnmt.config.decoding import Input as Input
from jaxnmt.config.fields import AxisSize, OnlyFor, attribute_of
from jaxnmt.config.fields import NonNegative as NonNegative
from jaxnmt.config.fields import Positive as Positive
from jaxnmt.config.fields import Rate as Rate
from jaxnmt.config.fields import Share as Share
from jaxnmt.config.fields import constraint as constraint
from jaxnmt.config.models import Recurrent as Recurrent
from jaxnmt.config.models import Transformer as Transformer
from jaxnmt.config.tasks import Captioning as Captioning
from jaxnmt.config.tasks import Classification as Classification
from jaxnmt.config.tasks import Denoising as Denoising
from jaxnmt.config.tasks import Language as Language
from jaxnmt.config.tasks import MaskedLanguage as MaskedLanguage
from jaxnmt.config.tasks import Task as Task
from jaxnmt.config.tasks import Translation as Translation
from jaxnmt.config.tuning import Lora as Lora
from jaxnmt.config.tuning import problems as tuning_problems
from jaxnmt.errors import UserError as UserError  # which the `build` of a user's own model may raise


@dataclass(frozen=True)
class Cleaning:
    """Which training pairs are dropped before tokenisation. Validation and test pairs are never dropped."""

    max_characters: Positive[int] = 2000
    """Drop a pair if a side is longer than this many characters."""
    max_ratio: Positive[float] = 9.0
    """Drop a pair if one side has more than this many times the characters of the other. Sides under 20 characters always pass."""
    drop_duplicates: bool = True
    """Drop a pair that occurred before in the same source, both sides equal. Different sources of a mixture may share pairs."""


@dataclass(frozen=True)
class Data:
    """Where sentence pairs come from.

    A source is written as: two words `a.en a.de` (aligned files); `a.en,a.de` (the same as one word); `pairs.tsv` (source TAB target); a
    file of translators (.tmx, .xlf, .xliff, .po, .mo); a .zip with two aligned files; a .parquet file or a folder of them, `folder:train`;
    or a dataset `name/config:split`, such as `multi30k/en-de:train`, `phrases/en-fr:train` or any TFDS translation dataset,
    `wmt14_translate/de-en:train[:90%]`. Files are plain or compressed (.gz, .xz, .bz2, .zst). Several sources form a mixture; `@3` after
    a source is its weight.
    """

    train: tuple[str, ...] = ()
    """Training sources."""
    validation: tuple[str, ...] = ()
    """Validation sources. If empty, pairs are held out from the training sources."""
    test: tuple[str, ...] = ()
    """Test sources for `jaxnmt evaluate`. If empty, the validation pairs are used."""
    source_language: str = ""
    """Language code of the source side. If empty, taken from the dataset's name, the file's suffix, or what a file of several languages
    has first. Chooses among the languages of a .tmx, .zip or .parquet file."""
    target_language: str = ""
    """Language code of the target side, likewise."""
    min_score: float | None = None
    """Leave out training pairs with a lower score: the third column of .tsv files, the column score of Parquet. None: ignore scores."""
    weigh_by_score: bool = False
    """Multiply the loss of each training pair's tokens by its score, at least 0. The batch's loss is divided by the sum of the tokens'
    weights, so that weight 2 counts as the pair twice. Pairs of other sources have weight 1."""
    held_out: NonNegative[int] = 1000
    """Training pairs held out for validation if data.validation is empty (at most a tenth of the corpus)."""
    max_length: Annotated[int, constraint("at least 2, a token and the end token", lambda value: value >= 2)] = 128
    """Drop a training pair if a side is longer than this many tokens, including the end token. Translation splits longer input."""
    cleaning: Cleaning = field(default_factory=Cleaning)
    """Which training pairs are dropped."""
    cache: str = ""
    """Folder for prepared token ids. If empty, $JAXNMT_CACHE or ~/.cache/jaxnmt."""
    workers: NonNegative[int] = 0
    """Processes that tokenise; 0: one per core."""

    def problems(self) -> Iterator[str]:
        if not self.validation and self.held_out == 0:
            yield "data.held_out is 0 and data.validation is empty, so there are no validation pairs: set one of them"


@dataclass(frozen=True)
class Tokenizer:
    """How text becomes token ids."""

    kind: Literal["unigram", "bpe", "words"] = "unigram"
    """unigram, bpe: SentencePiece on raw text; words: a plain vocabulary for text that is already split by spaces."""
    vocab_size: NonNegative[int] = 8000
    """Size of the vocabulary, including special tokens (words: at most this many; 0: all words)."""
    joint: bool = True
    """One vocabulary for both languages (required for model.tie_embeddings all), or one for each."""
    byte_fallback: bool = True
    """SentencePiece: spell unknown characters as bytes, so that no token is unknown."""
    character_coverage: Share[float] = 1.0
    """SentencePiece: share of the text's characters that get a token of their own, 0.98 to 1."""
    model: tuple[str, ...] = ()
    """SentencePiece model file(s) to use instead of training: one if joint, else source and target."""
    joiner: str = "@@ "
    """words: marker that shows how to join subwords into words. "@@ " (or any text): stands between two subwords of a word; ▁: begins a
    word (SentencePiece); ￭: joins to the side on which it stands (OpenNMT); empty: every token is a word."""
    normalization: Literal["nfc", "none"] = "nfc"
    """Unicode form of all text, in training, translation and scoring. nfc: composed, so that an accented letter is one character; none:
    unchanged. A run keeps the form that its tokenizer.json names; none if it names none."""
    max_sentences: Positive[int] = 1_000_000
    """Sentences of each side that train the vocabulary, sampled evenly from the corpus."""

    def problems(self) -> Iterator[str]:
        if self.model and self.kind == "words":
            yield f"tokenizer.model {' '.join(self.model)} is a SentencePiece model, which tokenizer.kind words cannot use"
        if self.model and len(self.model) != 2 - self.joint:
            yield f"tokenizer.model names {len(self.model)} file(s); it takes one if tokenizer.joint is True, else two, source and target"
        if self.kind == "words" and 0 < self.vocab_size <= 4:
            yield f"tokenizer.vocab_size is {self.vocab_size}; it must be above 4 (the special tokens), or 0 for all words"
        if self.kind == "words" or self.model:
            return
        if self.character_coverage < 0.98:
            yield f"tokenizer.character_coverage is {self.character_coverage:g}; SentencePiece takes 0.98 to 1"
        smallest = 4 + 256 * self.byte_fallback
        if self.vocab_size <= smallest:
            bytes_too = " and 256 bytes (tokenizer.byte_fallback)" if self.byte_fallback else ""
            yield f"tokenizer.vocab_size is {self.vocab_size}; it must be above {smallest}: it includes 4 special tokens{bytes_too}"


@dataclass(frozen=True)
class Batching:
    """How pairs are grouped into batches. A batch depends only on the text, the seed and the step."""

    layout: Literal["packed", "buckets"] = "packed"
    """packed: several pairs share a row, separated by segment ids; buckets: one pair per row, rows of similar length."""
    tokens: Positive[int] = 4096
    """Target positions in a batch, including padding: rows times row length."""
    row_length: Positive[int] = 64
    """packed: tokens in a row, on each side. Raised to data.max_length if that is longer."""
    max_shapes: Positive[int] = 8
    """buckets: how many batch shapes may be compiled."""


@dataclass(frozen=True)
class Optimizer:
    """The update rule (optax)."""

    name: Literal["adam", "adamw", "adafactor", "lion", "muon"] = "adam"
    """Update rule."""
    beta1: Annotated[Rate[float], OnlyFor(("adam", "adamw", "lion", "muon"))] = 0.9
    """Decay rate of the first moment (adam, adamw, lion) or of the momentum (muon)."""
    beta2: Annotated[Rate[float], OnlyFor(("adam", "adamw", "lion", "muon"))] = 0.98
    """Decay rate of the second moment (adam, adamw, the Adam inside muon) or of the momentum (lion)."""
    epsilon: Annotated[Positive[float], OnlyFor(("adam", "adamw"))] = 1e-9
    """Added to the denominator (adam, adamw)."""
    weight_decay: Annotated[NonNegative[float], OnlyFor(("adamw", "adafactor", "lion", "muon"))] = 0.0
    """Decoupled weight decay of matrices (adamw, lion, muon, adafactor). Norms, biases and vectors do not decay."""
    clip_norm: NonNegative[float] = 0.0
    """Clip the gradient to this global norm; 0: no clipping."""


@dataclass(frozen=True)
class Schedule:
    """The learning-rate schedule."""

    name: Literal["noam", "cosine", "linear", "constant", "plateau"] = "noam"
    """Shape after the linear warm-up. noam: inverse square root of the step; cosine, linear: decay to final_ratio at the last step;
    constant; plateau: cut when the validation score stalls."""
    learning_rate: Positive[float] = 1e-3
    """Peak learning rate, reached at the end of the warm-up."""
    warmup_steps: NonNegative[int] = 1000
    """Steps of linear warm-up."""
    final_ratio: Annotated[Share[float], OnlyFor(("cosine", "linear"))] = 0.0
    """cosine, linear: final learning rate, as a share of the peak."""
    plateau_factor: Annotated[Share[float], OnlyFor(("plateau",))] = 0.5
    """plateau: multiply the learning rate by this ..."""
    plateau_patience: Annotated[Positive[int], OnlyFor(("plateau",))] = 2
    """plateau: ... after this many validations without a better score."""

    def problems(self) -> Iterator[str]:
        if self.name == "noam" and self.warmup_steps == 0:
            yield "schedule.name noam needs schedule.warmup_steps above 0, not 0: its learning rate is relative to the end of the warm-up"


@dataclass(frozen=True)
class Training:
    """The training loop."""

    steps: Positive[int] = 10_000
    """Optimizer steps in total."""
    seed: Annotated[int, constraint("0 or more and below 4,294,967,296 (32 bits)", lambda value: 0 <= value < 2**32)] = 1
    """Seed of initialisation, batches and dropout."""
    label_smoothing: Rate[float] = 0.1
    """Probability mass spread evenly over the vocabulary (Szegedy et al. 2016)."""
    accumulation: Positive[int] = 1
    """Split each batch into this many parts and accumulate their gradients: less memory, the same update."""
    ema_decay: Rate[float] = 0.0
    """Decay of an exponential moving average (EMA) of the parameters, used to validate and decode; 0: no EMA."""
    max_bad_steps: Positive[int] = 5
    """Stop after this many steps in a row with a NaN or infinite gradient. Each such step is skipped and reported."""
    max_minutes: NonNegative[float] = 0.0
    """Stop after this many minutes of training in all sessions of the run, without validation and compilation; 0: no limit."""
    stuck_minutes: NonNegative[float] = 20.0
    """Several processes: exit if no training step starts for this many minutes (validation and saving do not count); 0: never."""
    freeze: tuple[str, ...] = ()
    """Parameters that stay as they are: regular expressions for their whole path or that of a module around them, such as
    source_embedding or encoder/layer_[0-3]."""
    rates: tuple[str, ...] = ()
    """Factors of the learning rate, as PATTERN=FACTOR, such as encoder=0.1. The first pattern that matches counts."""
    lora: Lora = field(default_factory=Lora)
    """Low-rank adapters (LoRA, Hu et al. 2021): a kernel W becomes W + alpha / rank A B, and only A and B are trained."""

    def problems(self) -> Iterator[str]:
        yield from tuning_problems(self.freeze, self.rates, self.lora)


@dataclass(frozen=True)
class Validation:
    """What is measured during training."""

    every: NonNegative[int] = 1000
    """Steps between validations; 0: only at the end."""
    metric: Literal["loss", "accuracy", "bleu"] = "bleu"
    """Score that decides the best checkpoint, early stopping and the plateau schedule. accuracy: the share of target tokens, or
    labels, that the model finds most probable, given those before them."""
    patience: NonNegative[int] = 0
    """Early stopping: stop after this many validations without a better score; 0: never. Needs validation.every above 0."""
    beam_size: Positive[int] = 1
    """Beam size of the translations at validation (1: greedy). `jaxnmt evaluate` uses decoding.beam_size."""
    samples: NonNegative[int] = 4
    """Translations shown at each validation."""

    def problems(self) -> Iterator[str]:
        if self.patience and self.every == 0:
            yield f"validation.patience {self.patience} needs validations, and validation.every is 0: set validation.every"


@dataclass(frozen=True)
class Checkpoints:
    """What is kept on disk."""

    every: Positive[int] = 1000
    """Steps between checkpoints. Each validation and the last step write a checkpoint too."""
    keep_latest: Positive[int] = 2
    """Latest checkpoints to keep."""
    keep_best: NonNegative[int] = 1
    """Best checkpoints to keep, by validation.metric."""


@dataclass(frozen=True)
class Logging:
    """What is reported."""

    every: Positive[int] = 50
    """Steps between records in metrics.jsonl, plain progress lines and TensorBoard points."""
    tensorboard: bool = True
    """Write TensorBoard events."""


@dataclass(frozen=True)
class Mesh:
    """The mesh of devices. One axis may be -1: it takes all devices that are left."""

    data: AxisSize[int] = -1
    """Size of the data axis: replicas of the model, each with its share of the batch's rows."""
    fsdp: AxisSize[int] = 1
    """Size of the fsdp axis: devices that shard the parameters, and the batch too."""
    tensor: AxisSize[int] = 1
    """Size of the tensor axis: devices that shard heads, MLP width and vocabulary."""
    slices: AxisSize[int] = -1
    """Number of slices joined by the slower network (DCN). Only the data axis spans slices. -1: detect."""

    def problems(self) -> Iterator[str]:
        left = [name for name in ("data", "fsdp", "tensor") if getattr(self, name) == -1]
        if len(left) > 1:
            yield f"mesh.{left[0]} and mesh.{left[1]} are both -1; only one axis can take all devices that are left"


@dataclass(frozen=True)
class Init:
    """Where a new run begins: with random parameters, or with those of another run. The optimizer always begins anew."""

    from_: Annotated[str, tyro.conf.arg(name="from")] = ""
    """Folder of a run. Its parameters that this model has too are taken. If empty, all are random."""
    only: Literal["all", "encoder", "decoder"] = "all"
    """What is taken. encoder: the encoder and the source's embeddings; decoder: everything else."""
    checkpoint: int | Literal["best", "latest", "average"] = "best"
    """A step, or best, latest, or average (made by `jaxnmt runs average`)."""
    vocabulary: Literal["keep", "map"] = "keep"
    """keep: the run's vocabulary. map: that of tokenizer.*: tokens that both have keep their vectors, and a new one begins as the mean of
    the tokens that spell it in the run's."""
    l2: NonNegative[float] = 0.0
    """L2 penalty on the distance of the trained parameters from where they began: half of this times the sum of the squares (L2-SP, Li et
    al. 2018). The reported loss does not include it."""

    def problems(self) -> Iterator[str]:
        if not self.from_ and self != Init():
            given = [f"init.{name} {value}" for name, value in vars(self).items() if value != getattr(Init(), name)]
            yield f"{' and '.join(given)} {'have' if len(given) > 1 else 'has'} no effect without init.from: name a run"


Model = Transformer | Recurrent  # or a dataclass of the user's own with a method `build`


@dataclass(frozen=True)
class Experiment:
    """Everything that defines a run."""

    task: Task = field(default_factory=Translation)
    init: Init = field(default_factory=Init)
    data: Data = field(default_factory=Data)
    tokenizer: Tokenizer = field(default_factory=Tokenizer)
    batching: Batching = field(default_factory=Batching)
    model: Model = field(default_factory=Transformer)
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    training: Training = field(default_factory=Training)
    validation: Validation = field(default_factory=Validation)
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    logging: Logging = field(default_factory=Logging)
    decoding: Decoding = field(default_factory=Decoding)
    mesh: Mesh = field(default_factory=Mesh)


def replace(config, **changes):
    """Return a copy of a dataclass with fields changed, also nested ones: `replace(config, **{"model.dropout": 0.3})`.

    Raises:
        TypeError: no such field.
    """
    for path, value in changes.items():
        head, _, rest = path.partition(".")
        head = attribute_of(head)
        value = replace(getattr(config, head), **{rest: value}) if rest else value
        config = dataclasses.replace(config, **{head: value})
    return config
