"""The laws of the house, put to any model: a configuration of ours, or of the user's own with a module that offers the four functions.

Each law is a function of a `Subject`, the model as large as it is configured over a vocabulary of a few dozen ids, with data of its own:
no tokenizer, no text, no file but in a temporary folder.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax

from jaxnmt.errors import UserError, first_line
from jaxnmt.lab.laws import compiled, devices, layouts, learning, masks, training, translations
from jaxnmt.lab.laws.subject import Subject, Verdict


class Law(NamedTuple):
    """What must be true of every model, and the function that finds out."""

    says: str
    ask: Callable[[Subject], Verdict]


LAWS = {
    "causal": Law("no later target word changes an earlier prediction", masks.causal),
    "padding": Law("what padding is read as changes nothing, each word of the source something", masks.padding),
    "neighbours": Law("pairs packed into one row do not meet", masks.neighbours),
    "cached": Law("decoding step by step gives the logits of the teacher-forced pass", translations.cached),
    "greedy": Law("a beam of one is greedy: it takes the best word of the teacher-forced pass each time", translations.greedy),
    "beam": Law("a beam's scores are those of the teacher-forced pass", translations.beam),
    "alone": Law("a translation does not depend on its batch, its shape or padding", translations.alone),
    "scanned": Law("scanned layers have the gradients of unrolled ones", layouts.scanned),
    "packed": Law("packed rows have the gradients of single ones", layouts.packed),
    "accumulated": Law("a batch in parts has the gradient of the whole", layouts.accumulated),
    "compiled": Law("compiled programs give the numbers that single operations and float64 give", compiled.compiled),
    "compiles": Law("every shape is compiled once, for training and for decoding, and none again", training.compiles),
    "resume": Law("N steps are k steps, saved, restored, and N - k more", training.resume),
    "devices": Law("eight devices reach the loss of one, and one restores what they saved", devices.devices),
    "overfit": Law("a handful of pairs is learnt to the letter", learning.overfit),
    "reversal": Law("reversing a sequence is learnt", learning.reversal),
}


def ask(law: str, subject: Subject) -> Verdict:
    """Put one law to a model. A module that raises an error does not keep the law.

    Raises:
        UserError: the model cannot be built, or there is no room for a checkpoint.
    """
    try:
        with jax.default_matmul_precision("float32"):
            return LAWS[law].ask(subject)
    except UserError:
        raise
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        told = first_line(error)
        return Verdict(False, f"{type(error).__name__}: {told} ({place.filename}, line {place.lineno})")


def check(config: Any, names: Sequence[str] = ()) -> Iterator[tuple[str, Verdict]]:
    """The verdicts on a model's configuration, one by one as they are found: of the laws named, or of all."""
    subject = Subject(config)
    for name in names or LAWS:
        yield name, ask(name, subject)
