"""Verbs that test the classic claims about models: probe gradients, recall, steptime."""

from __future__ import annotations

import dataclasses
import pathlib

from jaxnmt.cli.verbs.drawing import drawable, publish
from jaxnmt.config import NonNegative, Positive
from jaxnmt.config.fields import PositiveIntegers
from jaxnmt.errors import UserError
from jaxnmt.lab.probes.subjects import subjects
from jaxnmt.parallel import compiler
from jaxnmt.parallel.log import say


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


def gradients(first: str, others: list[str], options: Gradients) -> None:
    """Draw how far gradients reach: the norm of the first target word's loss, differentiated by the encoder's state n steps before the end.

    A config's model is measured as initialized, a run's as trained. For a model that is not recurrent, the word's vector takes the place of
    the state.

    Examples:
      jaxnmt probe gradients quickstart
      jaxnmt probe gradients phrases/rnn_fixed phrases/lstm_fixed phrases/gru_bahdanau quickstart --width 128
      jaxnmt probe gradients runs/rnn runs/lstm --distance 100 --output trained.svg
    """
    drawable(options.output)
    chosen = subjects([first, *others], options.width, runs=True)
    from jaxnmt.lab import figures
    from jaxnmt.lab.probes import gradients as probe

    compiler.check()
    at, lines = probe.distances(options.distance), {}
    for label, subject in chosen.items():
        lines[label] = probe.line(at, probe.measure(label, subject, at, options.samples))
        say(f"{label}: measured")
    svg = figures.chart(lines, probe.TITLE, probe.X, probe.Y, log_x=True, log_y=True)
    publish(options.output, {".svg": svg, ".csv": figures.lines_csv(lines)}, probe.table(lines))


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


def recall(first: str, others: list[str], options: Recall) -> None:
    """Train models to repeat a word read n steps ago, all with one budget, and draw their accuracy on other sentences against n.

    If it is interrupted or killed, the same command resumes. Later commands with the same budget and file add their models to the chart.

    Examples:
      jaxnmt probe recall phrases/rnn_fixed phrases/lstm_fixed phrases/gru_bahdanau quickstart
      jaxnmt probe recall phrases/rnn_fixed --distances 1 2 5 10 20 --steps 300 --output rnn.svg
      jaxnmt probe recall phrases/rnn_fixed phrases/lstm_fixed --apart --steps 300 --output apart.svg
    """
    distances = tuple(sorted(set(options.distances)))
    drawable(options.output)
    models = {label: subject.model for label, subject in subjects([first, *others], options.width).items()}
    from jaxnmt.lab import figures
    from jaxnmt.lab.probes import recall as probe

    compiler.check()
    budget = probe.Budget(options.steps, options.batch_size, options.learning_rate)
    path = pathlib.Path(options.output).with_suffix(".csv")
    cells = probe.measure(models, distances, not options.apart, budget, options.seeds, path, say)
    svg = figures.chart(probe.lines(cells), probe.title(cells), probe.X, probe.Y, log_x=True)
    publish(options.output, {".svg": svg}, probe.table(cells))


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


def steptime(first: str, others: list[str], options: Steptime) -> None:
    """Measure a training step against length: seconds, target tokens per second, and the share of the device's peak rate.

    Batches have no padding, and the same number of tokens for every length. Measure on an idle computer.

    Examples:
      jaxnmt probe steptime phrases/lstm_luong quickstart
      jaxnmt probe steptime rnn_fixed gru_bahdanau transformer_small --lengths 16 64 256 --tokens 4096 --output speed.svg
    """
    lengths = sorted(set(options.lengths))
    if options.tokens < max(lengths):
        raise UserError(f"--tokens is {options.tokens}; it must be the largest of --lengths or more ({max(lengths)})")
    drawable(options.output)
    models = {label: subject.model for label, subject in subjects([first, *others], options.width).items()}
    from jaxnmt.lab import figures
    from jaxnmt.lab.probes import steptime as probe

    compiler.check()
    timings = []
    for timing in probe.measure(models, lengths, options.tokens, options.run_time):
        timings.append(timing)
        say(f"{timing.model}, length {timing.length}: {1000 * timing.step_s:,.1f} ms a step")
    files = {".csv": figures.to_csv(probe.Timing._fields, timings)}
    for kind, suffix in (("time", ".svg"), ("utilisation", "-utilisation.svg")):
        files[suffix] = figures.chart(probe.lines(timings, kind), probe.TITLES[kind], probe.X, probe.Y[kind], log_x=True)
    publish(options.output, files, probe.table(timings))
