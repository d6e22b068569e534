"""What a run is: frozen dataclasses, loaded by name or path, overridden by typed flags, saved as JSON.

Nothing here imports JAX, so that a typo is answered at once. The text under each field is what
`jaxnmt train CONFIG --help` prints.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from jaxnmt.config.models import Recurrent, Transformer


@dataclass(frozen=True)
class Cleaning:
    """Which training pairs are dropped before tokenisation. Validation and test pairs are never dropped."""

    max_characters: int = 2000
    """Drop a pair with a side longer than this many characters."""
    max_ratio: float = 9.0
    """Drop a pair whose longer side has more than this many times the characters of the shorter (sides under 20 characters pass)."""
    drop_duplicates: bool = True
    """Drop a pair that occurred before in the same source, both sides equal. A mixture keeps what several of its sources have."""


@dataclass(frozen=True)
class Data:
    """Where sentence pairs come from.

    A source is written as: two words `a.en a.de` (aligned files); `a.en,a.de` (the same as one word); `pairs.tsv` (source TAB target); or a
    dataset `name/config:split`, such as `multi30k/en-de:train`, `phrases/en-fr:train` or any TFDS translation dataset,
    `wmt14_translate/de-en:train[:90%]`. Files are plain or compressed (.gz, .xz, .bz2, .zst). Several sources make a mixture; `@3` after
    one is its weight.
    """

    train: tuple[str, ...] = ()
    """Training sources."""
    validation: tuple[str, ...] = ()
    """Validation sources; when empty, pairs are held out from the training sources."""
    test: tuple[str, ...] = ()
    """Test sources, for `jaxnmt evaluate`; when empty, the validation pairs serve."""
    source_language: str = ""
    """Language code of the source side; when empty, taken from the dataset's name or the file's suffix."""
    target_language: str = ""
    """Language code of the target side; when empty, taken from the dataset's name or the file's suffix."""
    held_out: int = 1000
    """Pairs held out for validation when none is given (at most a tenth of the corpus)."""
    max_length: int = 128
    """Drop a training pair with a side longer than this many tokens, the end token counted. Translation splits longer input there."""
    cleaning: Cleaning = field(default_factory=Cleaning)
    """Which training pairs are dropped."""
    cache: str = ""
    """Folder for prepared token ids; when empty, $JAXNMT_CACHE or ~/.cache/jaxnmt."""
    workers: int = 0
    """Processes that tokenise; 0: one per core."""


@dataclass(frozen=True)
class Tokenizer:
    """How text becomes token ids."""

    kind: Literal["unigram", "bpe", "words"] = "unigram"
    """unigram, bpe: SentencePiece on raw text; words: a plain vocabulary of text that is already split by spaces."""
    vocab_size: int = 8000
    """Tokens in the vocabulary, special ones included (words: at most this many; 0: all)."""
    joint: bool = True
    """One vocabulary for both languages (needed for tied embeddings), or one for each."""
    byte_fallback: bool = True
    """SentencePiece: spell unknown characters as bytes, so that nothing is unknown."""
    character_coverage: float = 1.0
    """SentencePiece: share of the text's characters that get a token of their own, 0.98 to 1."""
    model: tuple[str, ...] = ()
    """SentencePiece model file(s) to use instead of training: one if joint, else source and target."""
    joiner: str = "@@ "
    """words: how words are split into pieces, which are joined when text is put together again. "@@ " (any text): what stands between two
    pieces; ▁: what begins a word (SentencePiece); ￭: what joins to the side on which it stands (OpenNMT); empty: words are whole."""
    normalization: Literal["nfc", "none"] = "nfc"
    """Unicode form of all text, in training, translation and scoring: nfc: composed, so that an accented letter is one character; none: as
    it is. A run keeps the form of its tokenizer.json: none where it names none."""
    max_sentences: int = 1_000_000
    """Sentences of each side that the vocabulary is trained on, spread over the corpus."""


@dataclass(frozen=True)
class Batching:
    """Which pairs form which batch. A batch depends on the text, the seed and the step alone."""

    layout: Literal["packed", "buckets"] = "packed"
    """packed: several pairs share a row, told apart by segment ids; buckets: one pair a row, rows of similar length."""
    tokens: int = 4096
    """Target positions in a batch, padding included: rows times row length."""
    row_length: int = 64
    """packed: tokens in a row, on each side. Raised to data.max_length where that is longer."""
    max_shapes: int = 8
    """buckets: how many batch shapes may be compiled."""


@dataclass(frozen=True)
class Optimizer:
    """The update rule (optax)."""

    name: Literal["adam", "adamw", "adafactor", "lion", "muon"] = "adam"
    """Update rule."""
    beta1: float = 0.9
    """Decay of the first moment (adam, adamw, lion; muon's momentum is beta1 too)."""
    beta2: float = 0.98
    """Decay of the second moment (adam, adamw, the Adam in muon) or of the momentum (lion)."""
    epsilon: float = 1e-9
    """Added to the denominator (adam, adamw)."""
    weight_decay: float = 0.0
    """Decoupled weight decay of matrices (adamw, lion, muon, adafactor); norms, biases and vectors are spared."""
    clip_norm: float = 0.0
    """Scale the gradient down to this global norm; 0: off."""


@dataclass(frozen=True)
class Schedule:
    """Learning rate over steps."""

    name: Literal["noam", "cosine", "linear", "constant", "plateau"] = "noam"
    """After linear warm-up: inverse square root (noam); to final_ratio by cosine or line at the last step; constant; or cut when
    validation stalls (plateau)."""
    learning_rate: float = 1e-3
    """Peak learning rate, reached at the end of the warm-up."""
    warmup_steps: int = 1000
    """Steps of linear warm-up."""
    final_ratio: float = 0.0
    """cosine, linear: the last learning rate as a share of the peak."""
    plateau_factor: float = 0.5
    """plateau: multiply by this ..."""
    plateau_patience: int = 2
    """plateau: ... after this many validations without a better score."""


@dataclass(frozen=True)
class Training:
    """The loop."""

    steps: int = 10_000
    """Optimizer steps in all."""
    seed: int = 1
    """Seed of initialisation, batches and dropout."""
    label_smoothing: float = 0.1
    """Probability mass spread evenly over the vocabulary (Szegedy et al. 2016)."""
    accumulation: int = 1
    """Split each batch into this many parts and add up their gradients: less memory, the same update."""
    ema_decay: float = 0.0
    """Keep an exponential moving average of the parameters, and validate and decode with it; 0: off."""
    max_bad_steps: int = 5
    """Stop after this many steps in a row whose gradient is not finite (each is skipped and named)."""
    max_minutes: float = 0.0
    """Stop once the run has trained for so many minutes, in all its sessions, validating and compiling not counted; 0: no limit."""
    stuck_minutes: float = 20.0
    """Several processes: exit if no training step starts for this many minutes (validation and saving do not count); 0: never."""


@dataclass(frozen=True)
class Validation:
    """What is measured while training."""

    every: int = 1000
    """Steps between validations; 0: only at the end."""
    metric: Literal["loss", "bleu"] = "bleu"
    """What the best checkpoint, early stopping and the plateau schedule go by."""
    patience: int = 0
    """Stop after this many validations without a better score; 0: never. Needs validation.every above 0."""
    beam_size: int = 1
    """Beam of the validation's translations (1: greedy). `evaluate` uses decoding.beam_size."""
    samples: int = 4
    """Translations shown at each validation."""


@dataclass(frozen=True)
class Checkpoints:
    """What is kept on disk."""

    every: int = 1000
    """Steps between checkpoints; one is also written at each validation and at the end."""
    keep_latest: int = 2
    """Newest checkpoints to keep."""
    keep_best: int = 1
    """Best checkpoints to keep, by validation.metric."""


@dataclass(frozen=True)
class Logging:
    """What is reported."""

    every: int = 50
    """Steps between lines of metrics.jsonl, of plain progress, and of TensorBoard."""
    tensorboard: bool = True
    """Write TensorBoard events."""


@dataclass(frozen=True)
class Decoding:
    """How translations are searched for."""

    beam_size: int = 5
    """Hypotheses kept (1: greedy)."""
    length_penalty: float = 1.0
    """GNMT's alpha: scores are divided by ((5 + length) / 6) ** alpha (Wu et al. 2016, equation 14)."""
    max_length_ratio: float = 1.5
    """Translations are at most this many times the source's tokens ..."""
    max_length_extra: int = 20
    """... plus this many."""
    n_best: int = 1
    """Translations given for each sentence."""
    batch_size: int = 64
    """Sentences translated together."""


@dataclass(frozen=True)
class Mesh:
    """Devices as a grid; -1: all that are left."""

    data: int = -1
    """Copies of the model, each with its share of the batch's rows."""
    fsdp: int = 1
    """Devices that share the parameters, and split the batch too."""
    tensor: int = 1
    """Devices that share heads, MLP width and vocabulary."""
    slices: int = -1
    """Groups of devices with a slower network between them, over which only copies (data) are spread; -1: as the devices say."""


Model = Transformer | Recurrent  # or a dataclass of the user's own, with a method `build`


@dataclass(frozen=True)
class Experiment:
    """Everything that defines a run."""

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
    """`dataclasses.replace` that reaches inside: `replace(config, **{"model.dropout": 0.3})`.

    Raises:
        TypeError: no such field.
    """
    for path, value in changes.items():
        head, _, rest = path.partition(".")
        value = replace(getattr(config, head), **{rest: value}) if rest else value
        config = dataclasses.replace(config, **{head: value})
    return config
