"""Laws: statements that must be true of every model, ours or a user's own, each with a function that tests it.

A law tests a `Subject`: the model at its configured size over a vocabulary of a few dozen ids, with random sentences. It needs no tokenizer
and no text, and writes only to a temporary folder.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax

from jaxnmt import config as cfg
from jaxnmt.errors import UserError, first_line
from jaxnmt.lab.laws import gradients, predictions, training
from jaxnmt.lab.laws.subject import Subject, Verdict


class Law(NamedTuple):
    """A statement that must be true of every model, and the function that tests it."""

    says: str
    ask: Callable[[Subject], Verdict]


LAWS = {
    "causal": Law("no later target word changes an earlier prediction", predictions.causal),
    "padding": Law("padding changes no prediction, and every source word changes one", predictions.padding),
    "neighbours": Law("pairs packed into one row do not see each other", predictions.neighbours),
    "cached": Law("decoding step by step gives the logits of the teacher-forced pass", predictions.cached),
    "greedy": Law("a beam of one is greedy: it takes the best word of the teacher-forced pass at each step", predictions.greedy),
    "beam": Law("a beam's scores are those of the teacher-forced pass", predictions.beam),
    "alone": Law("a translation does not depend on its batch, its shape or padding", predictions.alone),
    "scanned": Law("scanned layers have the gradients of unrolled ones", gradients.scanned),
    "packed": Law("packed rows have the gradients of single ones", gradients.packed),
    "accumulated": Law("a batch in parts has the gradient of the whole", gradients.accumulated),
    "compiled": Law("compiled programs give the numbers of single operations and of float64", gradients.compiled),
    "compiles": Law("every shape is compiled once for training and once for decoding", training.compiles),
    "resume": Law("N steps equal k steps, a save, a restore and N - k steps", training.resume),
    "devices": Law("eight devices reach the loss of one, and one device restores their checkpoint", training.devices),
    "overfit": Law("a handful of pairs is learnt to the letter", training.overfit),
    "reversal": Law("reversing a sequence is learnt", training.reversal),
}


def ask(law: str, subject: Subject) -> Verdict:
    """Test one law. It fails if the module raises an error.

    Raises:
        UserError: the model cannot be built, or the disk has no space for a checkpoint.
    """
    try:
        with jax.default_matmul_precision("float32"):
            return LAWS[law].ask(subject)
    except UserError:
        raise
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return Verdict(False, f"{type(error).__name__}: {first_line(error)} ({place.filename}, line {place.lineno})")


def check(experiment: cfg.Experiment, names: Sequence[str] = ()) -> Iterator[tuple[str, Verdict]]:
    """Yield (law, verdict) for an experiment's model and task: of the laws in `names`, or of all laws."""
    subject = Subject(experiment.model, experiment.task)
    for name in names or LAWS:
        yield name, ask(name, subject)
