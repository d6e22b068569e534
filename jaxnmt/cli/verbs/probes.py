"""Verbs that put the classic claims about models to the test: probe gradients, recall, steptime."""

from __future__ import annotations

import dataclasses
import pathlib

from jaxnmt.cli.verbs.common import say
from jaxnmt.cli.verbs.drawing import at_least, drawable, write
from jaxnmt.config import NonNegative, Positive
from jaxnmt.lab.probes.subjects import subjects
from jaxnmt.parallel import compiler


@dataclasses.dataclass(frozen=True)
class Gradients:
    distance: Positive[int] = 1000
    """The furthest word's steps to the end of the source."""
    samples: Positive[int] = 8
    """Random sentences, with fresh parameters each where the model is not trained."""
    width: NonNegative[int] = 0
    """Width to give every config's model, to compare at one size; 0: each as it is configured."""
    output: str = "gradients.svg"
    """File to draw to; the numbers go beside it, as .csv."""


def gradients(first: str, others: list[str], options: Gradients) -> None:
    """Draw how far a gradient reaches back: the norm of the first target word's loss, differentiated by the encoder's state n steps before.

    A config's model is measured as it is initialised, a run's as it is trained. A model that is not recurrent has no such state: its word's
    vector stands for it.

    Examples:
      jaxnmt probe gradients quickstart
      jaxnmt probe gradients phrases/rnn_fixed phrases/lstm_fixed phrases/gru_bahdanau quickstart --width 128
      jaxnmt probe gradients runs/rnn runs/lstm --distance 100 --output trained.svg
    """
    drawable(options.output)
    asked = subjects([first, *others], options.width, runs=True)
    from jaxnmt.lab import figures, tables
    from jaxnmt.lab.probes import gradients as probe

    compiler.check()
    at, lines = probe.distances(options.distance), {}
    for label, subject in asked.items():
        lines[label] = probe.line(at, probe.measure(label, subject, at, options.samples))
        say(f"{label}: measured")
    svg = figures.chart(lines, probe.TITLE, probe.X, probe.Y, log_x=True, log_y=True)
    write(options.output, {".svg": svg, ".csv": figures.table(lines)})
    tables.show([probe.table(lines)])


@dataclasses.dataclass(frozen=True)
class Recall:
    distances: tuple[int, ...] = (1, 3, 10, 30, 100, 300, 1000)
    """How many steps ago the word was seen."""
    apart: bool = False
    """Train a model for each distance, on it alone, instead of one on all of them."""
    steps: Positive[int] = 100
    """Training steps for each distance."""
    batch_size: Positive[int] = 16
    """Sentences of a step."""
    learning_rate: Positive[float] = 3e-3
    """Adam's peak rate (cosine schedule)."""
    seeds: Positive[int] = 3
    """Models of each kind, with seeds 1, 2, …"""
    width: NonNegative[int] = 64
    """Width to give every config's model; 0: each as it is configured."""
    output: str = "recall.svg"
    """File to draw to; the numbers go beside it, as .csv, and what that holds already is not trained again."""


def recall(first: str, others: list[str], options: Recall) -> None:
    """Train models to say a word that they saw n steps ago, all with one budget, and draw their accuracy on other sentences against n.

    Killed or interrupted, the same command goes on. Later commands with the same budget and file add their models to the chart.

    Examples:
      jaxnmt probe recall phrases/rnn_fixed phrases/lstm_fixed phrases/gru_bahdanau quickstart
      jaxnmt probe recall phrases/rnn_fixed --distances 1 2 5 10 20 --steps 300 --output rnn.svg
      jaxnmt probe recall phrases/rnn_fixed phrases/lstm_fixed --apart --steps 300 --output apart.svg
    """
    distances = tuple(sorted(set(options.distances)))
    at_least("--distances", min(distances, default=0), 1)
    drawable(options.output)
    asked = subjects([first, *others], options.width)
    from jaxnmt.lab import figures, tables
    from jaxnmt.lab.probes import recall as probe

    compiler.check()
    models, budget = (
        {label: subject.model for label, subject in asked.items()},
        probe.Budget(options.steps, options.batch_size, options.learning_rate),
    )
    path = pathlib.Path(options.output).with_suffix(".csv")
    cells = probe.measure(models, distances, not options.apart, budget, options.seeds, path, say)
    write(options.output, {".svg": figures.chart(probe.lines(cells), probe.title(cells), probe.X, probe.Y, log_x=True)})
    tables.show([probe.table(cells)])


@dataclasses.dataclass(frozen=True)
class Steptime:
    lengths: tuple[int, ...] = (16, 32, 64, 128, 256, 512)
    """Tokens of each sentence, on both sides."""
    tokens: int = 2048
    """Target tokens of a batch, whatever the length."""
    run_time: NonNegative[float] = 2.0
    """Seconds to repeat each step, compiling not counted."""
    width: NonNegative[int] = 0
    """Width to give every config's model, to compare at one size; 0: each as it is configured."""
    output: str = "steptime.svg"
    """File to draw the time to; utilisation goes beside it, as -utilisation.svg, and the numbers as .csv."""


def steptime(first: str, others: list[str], options: Steptime) -> None:
    """Measure a training step against length: seconds, target tokens a second, and the share of the device's peak rate that is used.

    Batches have no padding, and as many tokens whatever the length. Measure on a computer that does nothing else.

    Examples:
      jaxnmt probe steptime phrases/lstm_luong quickstart
      jaxnmt probe steptime rnn_fixed gru_bahdanau transformer_small --lengths 16 64 256 --tokens 4096 --output speed.svg
    """
    lengths = sorted(set(options.lengths))
    at_least("--lengths", min(lengths, default=0), 1)
    at_least("--tokens", options.tokens, max(lengths))
    drawable(options.output)
    asked = subjects([first, *others], options.width)
    from jaxnmt.lab import figures, tables
    from jaxnmt.lab.probes import steptime as probe

    compiler.check()
    timings = []
    for timing in probe.measure({label: subject.model for label, subject in asked.items()}, lengths, options.tokens, options.run_time):
        timings.append(timing)
        say(f"{timing.model}, length {timing.length}: {1000 * timing.step_s:,.1f} ms a step")
    texts = {}
    for kind, suffix in (("time", ".svg"), ("utilisation", "-utilisation.svg")):
        drawn = probe.lines(timings, kind)
        texts[suffix] = figures.chart(drawn, probe.TITLES[kind], probe.X, probe.Y[kind], log_x=True)
    write(options.output, texts | {".csv": figures.numbers(probe.Timing._fields, timings)})
    tables.show([probe.table(timings)])
