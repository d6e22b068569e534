"""Tasks: what an example consists of, and what the model predicts. `Experiment.task` is one of these dataclasses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from jaxnmt.config.fields import NonNegative, Positive, Rate
from jaxnmt.errors import UserError


@dataclass(frozen=True)
class Task:
    """A source, a target, and how the target is predicted; this says it without importing JAX.

    Attributes:
        pairs: an example is a pair. Otherwise it is one text, which serves as source and as target.
        is_label: the target is a label or a number, not text.
        vectors: the source is a picture or a feature vector, not text.
        packs: several examples may share a row.
        searches: the target is found by a search, word by word.
        sides: "source" and "target", or the one that text fills; padding is measured there.
        metrics: what `validation.metric` may be.
        head: the class that implements the task on our models, as `package:Class`; "": the model itself does.
        translator: the class that turns lines into text, as `package:Class`.
    """

    pairs: ClassVar[bool] = True
    is_label: ClassVar[bool] = False
    vectors: ClassVar[bool] = False
    packs: ClassVar[bool] = True
    searches: ClassVar[bool] = True
    sides: ClassVar[tuple[str, ...]] = ("source", "target")
    translator: ClassVar[str] = "jaxnmt.decoding.translator:Translator"

    @property
    def metrics(self) -> tuple[str, ...]:
        return "loss", "accuracy", "bleu"

    @property
    def head(self) -> str:
        return ""

    @property
    def is_scored(self) -> bool:
        """Whether what the model says of test sentences is compared with references; if not, its loss is all."""
        return self.is_label or "bleu" in self.metrics


@dataclass(frozen=True)
class Translation(Task):
    """A text to a text: translation, summarisation."""


@dataclass(frozen=True)
class Classification(Task):
    """A text to a label: the encoder, a pooling of its states, and an output layer over the labels. Batches must be in buckets."""

    is_label = True
    packs = False
    searches = False
    sides = ("source",)

    labels: Literal["one", "several", "number"] = "one"
    """The kind of target. one: one label; several: independent labels, separated by commas; number: a real number, trained with
    the squared error."""
    pooling: Literal["mean", "last", "attention"] = "mean"
    """What the output layer reads. mean: the mean of the encoder's states; last: the state at the end of the text; attention: their mean,
    weighted by how well they match a trained vector (Lin et al. 2017, with one row)."""
    class_weights: Literal["none", "balanced"] = "none"
    """Weight of an example in the loss. balanced: inversely proportional to how often its label occurs."""

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("loss",) if self.labels == "number" else ("loss", "accuracy")

    @property
    def head(self) -> str:
        return "jaxnmt.models.heads:" + {"one": "Classifier", "several": "LabelSets", "number": "Regressor"}[self.labels]

    def problems(self) -> Iterator[str]:
        if self.class_weights != "none" and self.labels != "one":
            yield f"task.class_weights {self.class_weights} is for one label a text, and task.labels is {self.labels}: set it to none"


@dataclass(frozen=True)
class MaskedLanguage(Task):
    """The encoder alone predicts hidden words of a text (BERT, Devlin et al. 2019)."""

    pairs = False
    searches = False
    sides = ("source",)
    metrics = ("loss", "accuracy")
    head = "jaxnmt.models.heads:MaskedEncoder"

    rate: Rate[float] = 0.15
    """Share of tokens that are predicted. Of these, 8 in 10 are hidden, 1 in 10 is replaced by another and 1 in 10 is left."""
    whole_words: bool = True
    """Hide all pieces of a word, or single pieces."""

    def problems(self) -> Iterator[str]:
        if self.rate == 0:
            yield "task.rate is 0, so that no token would be predicted: set it above 0"


@dataclass(frozen=True)
class Denoising(Task):
    """The encoder–decoder restores a text from a copy in which spans are hidden (BART, Lewis et al. 2020)."""

    pairs = False
    metrics = ("loss", "accuracy")

    rate: Rate[float] = 0.3
    """Share of tokens that are hidden."""
    span: Positive[float] = 3.0
    """Mean length of a hidden span in tokens, 1 or more. The unknown token replaces the whole span."""

    def problems(self) -> Iterator[str]:
        if self.span < 1 or self.rate > self.span / (self.span + 1):
            yield (
                f"task.rate {self.rate:g} of the tokens cannot be hidden in spans of {self.span:g} with a token between two of them: "
                "lower task.rate, or set task.span higher, and to 1 or more"
            )


@dataclass(frozen=True)
class Language(Task):
    """One text, predicted word by word without a source: a language model."""

    pairs = False
    sides = ("target",)
    metrics = ("loss", "accuracy")
    head = "jaxnmt.models.heads:LanguageModel"
    translator = "jaxnmt.decoding.continuation:Continuation"


@dataclass(frozen=True)
class Captioning(Task):
    """A picture, or a vector of its features, to a text (Vinyals et al. 2015, Xu et al. 2015). Batches must be in buckets.

    Sources are `pictures.tsv` (picture TAB caption) and the embedded `scenes/en:train`. A picture is named by its file, relative to the
    TSV, or as an entry of an array, `pictures.npz#17`.
    """

    vectors = True
    packs = False
    sides = ("target",)
    translator = "jaxnmt.decoding.captioner:Captioner"

    source: Literal["pictures", "vectors"] = "pictures"
    """pictures: in colour, cut to squares; vectors: the numbers of `vectors` in an .npz file."""
    size: Positive[int] = 48
    """pictures: pixels of a side, to which they are scaled; vectors: how many numbers they have."""
    regions: Literal["convolution", "patches"] = "convolution"
    """How a picture becomes the regions that a decoder attends to. convolution: small convolutions (Xiao et al. 2021); patches: a linear
    map of each region's pixels (ViT, Dosovitskiy et al. 2021). Both add a vector for the place."""
    patch: Positive[int] = 8
    """Pixels of a region's side."""
    attention_penalty: NonNegative[float] = 0.0
    """Recurrent with attention: weight of the doubly stochastic term, which makes a caption look at all regions (Xu et al. 2015)."""

    @property
    def vector_shape(self) -> tuple[int, ...]:
        """The shape of the array that one source is read as."""
        return (self.size,) if self.source == "vectors" else (self.size, self.size, 3)

    @property
    def vector_dtype(self) -> str:
        """Its type."""
        return "float32" if self.source == "vectors" else "uint8"

    def problems(self) -> Iterator[str]:
        if self.source == "pictures" and self.size % self.patch:
            yield f"task.size {self.size} is not divisible by task.patch {self.patch}: regions are squares of whole pixels"
        if self.source == "pictures" and self.regions == "convolution" and self.patch & (self.patch - 1):
            yield f"task.regions convolution halves the picture, so task.patch must be a power of two, not {self.patch}"


TASKS: tuple[type[Task], ...] = (Translation, Captioning, Classification, MaskedLanguage, Denoising, Language)


def require(task: Task, use: Literal["translate", "predict"], run: object) -> Any:
    """Return the task of a run that is to translate, or to predict labels.

    Raises:
        UserError: it was trained for something else.
    """
    can = {"translate": task.searches, "predict": task.is_label}
    if can[use]:
        return task
    instead = next((f": use `jaxnmt {verb} {run}`" for verb, is_able in can.items() if is_able), "")
    lack = "does not translate" if use == "translate" else "predicts no labels"
    raise UserError(f"{run} was trained for the task {type(task).__name__}, which {lack}{instead}")
