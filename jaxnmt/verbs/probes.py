"""Verbs that put the classic claims about models to the test: probe gradients."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping

from jaxnmt import text_streams
from jaxnmt.analysis.probes.subjects import subjects
from jaxnmt.config import UserError
from jaxnmt.verbs.common import say


@dataclasses.dataclass(frozen=True)
class Gradients:
    distance: int = 1000
    """The furthest word's steps to the end of the source."""
    samples: int = 8
    """Random sentences, with fresh parameters each where the model is not trained."""
    width: int = 0
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
    at_least("--distance", options.distance, 1)
    at_least("--samples", options.samples, 1)
    _drawable(options.output)
    asked = subjects([first, *others], options.width, runs=True)
    from jaxnmt.analysis import figures, tables
    from jaxnmt.analysis.probes import gradients as probe
    from jaxnmt.training.programs import use_compilation_cache

    use_compilation_cache()
    at, lines = probe.distances(options.distance), {}
    for label, subject in asked.items():
        lines[label] = probe.line(at, probe.measure(label, subject, at, options.samples))
        say(f"{label}: measured")
    svg = figures.chart(lines, probe.TITLE, probe.X, probe.Y, log_x=True, log_y=True)
    _write(options.output, {".svg": svg, ".csv": figures.table(lines)})
    tables.show([probe.table(lines)])


def at_least(flag: str, value: int, least: int) -> None:
    if value < least:
        raise UserError(f"{flag} expects a whole number of {least} or more, not {value}")


def _drawable(output: str) -> None:
    path = pathlib.Path(output)
    if path.suffix != ".svg":
        raise UserError(f"--output {output}: the chart is an SVG; give a name that ends in .svg")
    if not path.absolute().parent.is_dir():
        raise UserError(f"--output {output} cannot be written: there is no folder {path.parent}")


def _write(output: str, files: Mapping[str, str]) -> None:
    """Write texts beside each other, by suffix."""
    for suffix, text in files.items():
        name = str(pathlib.Path(output).with_suffix("")) + suffix
        with text_streams.writer(name) as write:
            write(text.removesuffix("\n"))
        say(f"written: {name}")
