"""Options of comparisons, charts and probes, and the models that are named on the command line. Imports nothing heavy."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

from jaxnmt import UserError, load_config
from jaxnmt.config import NonNegative, Positive, constraint
from jaxnmt.config import checks as config_checks
from jaxnmt.config.fields import PositiveIntegers
from jaxnmt.evaluation.tokenization import METRICS, MetricName, Tokenize
from jaxnmt.run import Checkpoint
from jaxnmt.runs import directory as run_directory

WIDTHS = {"emb_dim": 1, "hidden_dim": 1, "encoder_dim": 1, "mlp_dim": 4}
"""The fields of a model that set its width, each as a multiple of `--width`."""

_STUDY_RUN = re.compile(r"(?P<variant>[^/]+)/(?P<seed>seed-\d+)(/run)?/?$")


def labels(names: Sequence[str]) -> tuple[str, ...]:
    """Return names of files, runs or configs short enough for a table: the last part of each path, if these are distinct.

    A study's run, `runs/VARIANT/seed-N/run`, is its VARIANT, or VARIANT/seed-N if a variant has several.
    """
    last = [pathlib.PurePath(name).name.removesuffix(".py") or name for name in names]
    runs = [_STUDY_RUN.search(name) for name in names]
    for groups in (("variant",), ("variant", "seed")):
        short = tuple("/".join(run[group] for group in groups) if run else name for name, run in zip(last, runs, strict=True))
        if len(set(short)) == len(names):
            return short
    return tuple(names)


@dataclasses.dataclass(frozen=True)
class Systems:
    """Options for systems on one test set: runs, or files of translations."""

    source: str = ""
    """File of source sentences; when empty, with --reference empty too, the first run's test sentences."""
    reference: tuple[str, ...] = ()
    """File of their reference translations, or several files, one for each reference."""
    split: Literal["test", "validation"] = "test"
    """The runs' own sentences to translate."""
    checkpoint: Checkpoint = "best"
    """Of the runs: a step, or best, latest, or average (made by `jaxnmt runs average`)."""
    beam_size: NonNegative[int] = 0
    """Of the runs; 0: as in each run's settings."""
    pretokenized: bool = False
    """The text of --reference and of the files is already split by spaces: BLEU counts words as they are (tokenize=none)."""
    target_language: str = ""
    """Code of the references' language; when empty, the suffix of the file's name (test.de: de), or the run's."""
    tokenize: Tokenize = ""
    """BLEU's tokenizer, by sacreBLEU's name; when empty, chosen by the references' script and language."""


@dataclasses.dataclass(frozen=True)
class Compare(Systems):
    test: Literal["paired-bootstrap", "approximate-randomisation"] = "paired-bootstrap"
    """Paired test against the baseline."""
    samples: NonNegative[int] = 0
    """Resamples or trials; 0: sacreBLEU's 1,000 resamples or 10,000 trials."""
    metrics: tuple[MetricName, ...] = METRICS
    """Metrics with intervals and tests."""
    baselines: tuple[Literal["lead", "extractive"], ...] = ()
    """Further systems, of the sources alone: lead, the first words; extractive, the first words of the sentence that is most like the whole
    source (its words weighed by TF-IDF)."""
    baseline_words: NonNegative[int] = 0
    """Number of words of --baselines; 0: as many as a reference has on average."""
    html: str = ""
    """File for a page with the tables and the sentences that differ most."""
    json: str = ""
    """File for all numbers."""
    other: str = ""
    """System whose sentences the page shows beside the baseline's; when empty, the first after the baseline."""
    examples: NonNegative[int] = 50
    """Maximum number of losses, and of gains, on the page."""


@dataclasses.dataclass(frozen=True)
class Curves:
    against: Literal["epoch", "step", "tokens", "minutes"] = "epoch"
    """The x axis: epochs, steps, target tokens, or minutes of training (without compiling, validating and saving)."""
    metric: Literal["bleu", "loss"] = "bleu"
    """The validation metric."""
    output: str = "curves.svg"
    """File for the chart; its numbers are written beside it, as .csv."""


@dataclasses.dataclass(frozen=True)
class Length(Systems):
    output: str = "length.svg"
    """File for the chart; its numbers are written beside it, as .csv."""
    bins: Positive[int] = 8
    """Points of a line, each for about the same number of sentences."""
    by: Literal["run", "variant"] = "run"
    """One line per run, or per variant of a study (runs/VARIANT/seed-N), with a band over seeds."""


@dataclasses.dataclass(frozen=True)
class Contrast:
    output: str = "contrast.svg"
    """File for the chart; its numbers are written beside it, as .csv, and pairs made by rules as .tsv."""
    pairs: str = ""
    """TSV file of pairs: source, right translation, wrong translation, distance; when empty, --rules makes them."""
    rules: str = ""
    """TOML file of rules, a language with shipped rules (de), or grammar: draw pairs over 0 to 30 words from the embedded corpus's grammar.
    When empty, grammar for runs tested on `phrases/...`, and the run's target language for others."""
    only: tuple[str, ...] = ()
    """Names of the rules to use (de: possessive, relative); when empty, all."""
    data: tuple[str, ...] = ()
    """Sentences to make pairs from: sources as in data.test; when empty, the first run's test and validation sentences."""
    count: Positive[int] = 1100
    """Pairs for each distance from the grammar; 1,100 give at most 3 points of error (95 %)."""
    checkpoint: Checkpoint = "best"
    """A step, or best, latest, or average (made by `jaxnmt runs average`)."""


@dataclasses.dataclass(frozen=True)
class Confusion:
    output: str = "confusion.svg"
    """File for the matrix; its numbers are written beside it, as .csv."""
    split: Literal["test", "validation"] = "test"
    """Which of the run's own texts."""
    data: tuple[str, ...] = ()
    """Other texts: sources, written as for data.test."""
    most: Annotated[int, constraint("at least 2", lambda value: value >= 2)] = 24
    """Rows and columns: the most frequent labels, and one for all others."""
    checkpoint: Checkpoint = "best"
    """A step, or best, latest, or average (made by `jaxnmt runs average`)."""


@dataclasses.dataclass(frozen=True)
class Cloze:
    language: str = ""
    """Language of the sentences (en, fr, de, es, tr); when empty, that of the runs' text."""
    distances: PositiveIntegers = (2, 3, 4, 6, 8, 10, 12, 15, 20, 25, 30)
    """Numbers of words between the country and the gap."""
    count: Positive[int] = 500
    """Sentences for each distance; 500 give at most 4.4 points of error (95 %)."""
    output: str = "cloze.svg"
    """File for the chart; its numbers are written beside it, as .csv, and the sentences as .tsv."""
    checkpoint: Checkpoint = "best"
    """A step, or best, latest, or average (made by `jaxnmt runs average`)."""


@dataclasses.dataclass(frozen=True)
class Pointing:
    language: str = ""
    """Language of the captions (en, fr, de, es, tr); when empty, each run's."""
    split: Literal["train", "validation", "test", "novel"] = "test"
    """Pictures to look at: those of validation and test show new pairs of things, those of novel new things."""
    count: Positive[int] = 500
    """Number of pictures."""
    output: str = "pointing.svg"
    """File for the figure; its numbers are written beside it, as .csv."""
    checkpoint: Checkpoint = "best"
    """A step, or best, latest, or average (made by `jaxnmt runs average`)."""


@dataclasses.dataclass(frozen=True)
class Text:
    lines: Positive[int] = 30_000
    """Number of sentences, or of pairs."""
    split: Literal["train", "validation"] = "train"
    """The split; its values and those of the probe's sentences do not occur in the other."""
    output: str = ""
    """File to write, whole or not at all; stdout if empty or -."""


@dataclasses.dataclass(frozen=True)
class Embeddings:
    output: str = "embeddings"
    """Folder for the figures and their numbers."""
    words: tuple[str, ...] = ()
    """Words to draw with their neighbours; when empty, the most frequent of the run's test sentences."""
    side: Literal["source", "target"] = "source"
    """Side of the words."""
    neighbours: Positive[int] = 8
    """Neighbours of a word."""
    word: str = ""
    """A word to follow through the encoder's layers in several --sentences."""
    sentences: tuple[str, ...] = ()
    """Two or more source sentences with that word: the first is compared with each of the others."""
    checkpoint: Checkpoint = "best"
    """A step, or best, latest, or average (made by `jaxnmt runs average`)."""


@dataclasses.dataclass(frozen=True)
class Gates:
    output: str = "gates.svg"
    """File for the chart; its numbers are written beside it, as .csv."""
    checkpoint: Checkpoint = "best"
    """A step, or best, latest, or average (made by `jaxnmt runs average`)."""


@dataclasses.dataclass(frozen=True)
class Gradients:
    distance: Positive[int] = 1000
    """Largest distance of a word from the end of the source, in steps."""
    samples: Positive[int] = 8
    """Number of random sentences; an untrained model gets new parameters for each."""
    width: NonNegative[int] = 0
    """Width of all configs' models, to compare at one size; 0: as configured."""
    output: str = "gradients.svg"
    """File for the chart; its numbers are written beside it, as .csv."""


@dataclasses.dataclass(frozen=True)
class Recall:
    distances: PositiveIntegers = (1, 3, 10, 30, 100, 300, 1000)
    """Numbers of steps since the word was read."""
    apart: bool = False
    """Train one model per distance instead of one on all of them."""
    steps: Positive[int] = 100
    """Training steps for each distance."""
    batch_size: Positive[int] = 16
    """Sentences per step."""
    learning_rate: Positive[float] = 3e-3
    """Peak learning rate of Adam (cosine schedule)."""
    seeds: Positive[int] = 3
    """Number of models of each kind, with seeds 1, 2, …"""
    width: NonNegative[int] = 64
    """Width of all configs' models; 0: as configured."""
    output: str = "recall.svg"
    """File for the chart; its numbers are kept beside it, as .csv; models that are already in it are not trained again."""


@dataclasses.dataclass(frozen=True)
class Steptime:
    lengths: PositiveIntegers = (16, 32, 64, 128, 256, 512)
    """Tokens of each sentence, on both sides."""
    tokens: Positive[int] = 2048
    """Target tokens per batch, whatever the length."""
    run_time: NonNegative[float] = 2.0
    """Seconds to repeat each step, without compiling."""
    width: NonNegative[int] = 0
    """Width of all configs' models, to compare at one size; 0: as configured."""
    output: str = "steptime.svg"
    """File for the chart of times; that of utilisation is written beside it, as -utilisation.svg, and the numbers as .csv."""


class Subject(NamedTuple):
    """A model's configuration, and the folder of the run that trained it (None: untrained)."""

    model: Any
    run: pathlib.Path | None = None


def subjects(names: Sequence[str], width: int = 0, runs: bool = False) -> dict[str, Subject]:
    """Return models by label: the name of the config or run, or the full path if two names are the same.

    Args:
        names: configs, by shipped name or path, and with `runs` also folders of runs.
        width: the width of all models (`resized`); 0: as configured.

    Raises:
        UserError: a config does not exist, fails or is invalid; a name is given twice; a width is given for a run.
    """
    if len(set(names)) < len(names):
        raise UserError(f"{Counter(names).most_common(1)[0][0]} is given twice; each model is one line")
    return {label: _subject(name, width, runs) for label, name in zip(labels(names), names, strict=True)}


def _subject(name: str, width: int, runs: bool) -> Subject:
    if (folder := run_directory.folder(name)).is_dir():
        if not runs:
            raise UserError(f"{name} is a folder, and this probe trains its models itself: give a config, by shipped name or path")
        if width:
            raise UserError(f"--width {width} cannot change the trained model of {name}: leave --width out, or give configs only")
        return Subject(run_directory.read(name).model, folder)
    experiment = load_config(name)
    if width:
        experiment = dataclasses.replace(experiment, model=resized(name, experiment.model, width))
    config_checks.validate(experiment)
    return Subject(experiment.model)


def resized(name: str, model: Any, width: int) -> Any:
    """Return a model with states and vectors of size `width`, and feed-forward layers four times as wide.

    Raises:
        UserError: it has none of the fields `WIDTHS`.
    """
    changes = {field.name: WIDTHS[field.name] * width for field in dataclasses.fields(model) if field.name in WIDTHS}
    if not changes:
        raise UserError(f"--width {width}: the model of {name} has none of the fields {', '.join(WIDTHS)}; use --width 0")
    return dataclasses.replace(model, **changes)
