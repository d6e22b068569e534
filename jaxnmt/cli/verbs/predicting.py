"""Verbs of runs that predict labels, or caption pictures: predict, and what draws them."""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING

from jaxnmt.cli.verbs.common import leader_writer
from jaxnmt.cli.verbs.drawing import drawable, publish
from jaxnmt.config import NonNegative, Positive
from jaxnmt.config.tasks import require
from jaxnmt.errors import UserError
from jaxnmt.io import streams
from jaxnmt.lab.options import Confusion, Pointing, labels
from jaxnmt.parallel import distributed
from jaxnmt.parallel.log import say
from jaxnmt.run import Checkpoint, Run, Weights
from jaxnmt.runs import directory

if TYPE_CHECKING:
    from jaxnmt.decoding.predictor import Prediction

WINDOW = 16
"""Batches of lines that are read at a time, and whose lines are grouped by length."""


@dataclasses.dataclass(frozen=True)
class Predict:
    input: str = ""
    """File of texts, one a line, plain or compressed; stdin if empty or -."""
    output: str = ""
    """File to write, whole or not at all; stdout if empty or -."""
    checkpoint: Checkpoint = "best"
    """A step, or best, latest, or average (made by `jaxnmt runs average`)."""
    weights: Weights = "trained"
    """int8: a quarter of the memory; bfloat16: for GPUs and TPUs; trained: as they are."""
    top: NonNegative[int] = 0
    """Write this many labels, the most probable first, or all labels if there are fewer; 0: only the prediction."""
    batch_size: Positive[int] = 64
    """Texts read together."""


def checked(run: str, options: Predict) -> None:
    """Check that the run predicts labels, and the options.

    Raises:
        UserError: it does not, or --top is given and it predicts numbers.
    """
    task = require(directory.read(run).task, "predict", run)
    if options.top and task.labels == "number":
        raise UserError(f"--top is for labels, and {run} predicts numbers: leave it out")


def predict(run: str, options: Predict) -> None:
    """Predict the label of each text, one a line, in their order: from stdin to stdout, or files.

    A line of output is `label TAB probability`, repeated for each of --top labels. With several labels a text, it has the labels that
    apply, and it is empty if no label applies.
    Of numbers it is the number.

    Examples:
      echo "a tool that reads mail" | jaxnmt predict runs/topics
      jaxnmt predict runs/topics --top 3 --input texts.txt --output labels.tsv
    """
    checked(run, options)
    distributed.initialize()
    with distributed.leader_first("read the input"):
        lines = streams.line_batches(options.input, options.batch_size * WINDOW) if distributed.is_leader() else iter(())
    predictor, done = Run(run, options.checkpoint, weights=options.weights).predictor, 0
    with leader_writer(options.output) as write:
        for window in distributed.from_leader("lines", lines):
            for prediction in predictor.predict(window, options.batch_size, done + 1):
                write(_line(prediction, options.top))
            done += len(window)
            say(f"{done:,} texts read")


def _line(prediction: Prediction, top: int) -> str:
    if not prediction.labels:
        return prediction.label
    chosen = dict(itertools.islice(prediction.probabilities.items(), top)) if top else prediction.chosen
    return "\t".join(f"{label}\t{probability:.4f}" for label, probability in chosen.items())


def probe_confusion(run: str, options: Confusion) -> None:
    """Draw the confusion matrix of a run that predicts labels: which label the texts of each label get.

    Examples:
      jaxnmt probe confusion runs/topics
      jaxnmt probe confusion runs/topics --split validation --most 10 --output topics.svg
    """
    drawable(options.output)
    from jaxnmt.lab.probes import confusion

    publish(options.output, *confusion.report(*confusion.read(Run(run, options.checkpoint), options.split, options.data), options.most))


def probe_pointing(first: str, others: list[str], options: Pointing) -> None:
    """Measure where runs look when they caption the embedded scenes: the share of attention inside the true region of the word being said.

    The true caption is given; its words speak of things, whose places are known.

    Examples:
      jaxnmt probe pointing runs/scenes runs/scenes_attention
      jaxnmt probe pointing runs/scenes_tr --split validation --output images/pointing.svg
    """
    drawable(options.output)
    names = [first, *others]
    runs = [Run(name, options.checkpoint) for name in names]
    from jaxnmt.lab.probes import pointing

    found = pointing.measure(dict(zip(labels(names), runs, strict=True)), options)
    publish(options.output, *pointing.report(found, options.split))
