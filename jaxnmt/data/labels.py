"""Target vocabularies of classification: one label a text, several labels, or a number."""

from __future__ import annotations

import collections
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxnmt.data.special_tokens import FIRST_TOKEN, UNK
from jaxnmt.data.vocabulary import Words
from jaxnmt.errors import UserError
from jaxnmt.io.text import decode

if TYPE_CHECKING:
    from jaxnmt.data.source import Source

NAMED = 5
"""How many labels a message names."""
LARGEST = 1e30
"""The largest number that can be predicted: float32 has room for its distance from the others."""


class Labels(Words):
    """Class labels. A text is one label, whatever spaces it has."""

    suffix = "labels"

    @staticmethod
    def of(text: str) -> list[str]:
        """Return the labels that a target names."""
        return [" ".join(text.split())]

    @classmethod
    def learnt(cls, texts: Iterable[str]) -> Labels:
        """Return the labels of training targets, the most frequent first."""
        counts = collections.Counter(filter(None, itertools.chain.from_iterable(map(cls.of, texts))))
        return cls(sorted(counts, key=lambda label: (-counts[label], label)), "")

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [[self._ids.get(label, UNK) for label in self.of(text)] for text in texts]

    def decode(self, ids: Sequence[int], unknown: str = "") -> str:
        return ",".join(map(self.piece, ids))

    def rare(self, counts: np.ndarray) -> str:
        """Return a sentence about the labels that training examples have once or never, or "".

        Args:
            counts: how often each id is in the examples that are left after cleaning, (vocabulary,).
        """
        labels = [self.piece(index) for index in range(FIRST_TOKEN, len(self)) if counts[index] < 2]
        return f"{_named(labels)} in the training data at most once, which is too little to learn" if labels else ""

    def unseen(self, texts: Sequence[str]) -> str:
        """Return a sentence about the labels of validation or test targets that the training data have not, or ""."""
        lacking = [set(self.of(text)) - self._ids.keys() for text in texts]
        labels, count = sorted(set().union(*lacking)), sum(map(bool, lacking))
        if not labels:
            return ""
        return f"{_named(labels)} in the training data never, so that the predictions for {count:,} of {len(texts):,} texts count as wrong"


class LabelSets(Labels):
    """Class labels. A text is any number of them, with commas between."""

    suffix = "labelsets"

    @staticmethod
    def of(text: str) -> list[str]:
        """Return the labels that a target names, each once."""
        return list(dict.fromkeys(filter(None, (" ".join(label.split()) for label in text.split(",")))))


class Numbers:
    """Real numbers, standardised by the mean and the standard deviation of the training targets.

    A number is three tokens, of 11 bits of its float32 each, so that numbers pass through all that makes batches of tokens.

    Attributes:
        suffix: of its file.
    """

    suffix = "number"

    def __init__(self, mean: float, deviation: float) -> None:
        self.mean, self.deviation = mean, deviation

    @classmethod
    def learnt(cls, texts: Iterable[str]) -> Numbers:
        """Return the numbers whose mean and standard deviation are those of training targets, which `check_numbers` has seen."""
        values = np.array([float(text) for text in texts if text.strip()] or [0.0])
        return cls(float(values.mean()), float(values.std()) or 1.0)

    @classmethod
    def from_bytes(cls, data: bytes, joiner: str) -> Numbers:
        """Read what `to_bytes` wrote.

        Raises:
            ValueError: it is not that.
        """
        mean, deviation = map(float, data.decode().split())
        return cls(mean, deviation)

    def __len__(self) -> int:
        return FIRST_TOKEN + (1 << 11)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [self._ids(float(text)) if text.strip() else [] for text in texts]

    def _ids(self, value: float) -> list[int]:
        bits = int(np.float32((value - self.mean) / self.deviation).view(np.uint32))
        return [FIRST_TOKEN + (bits >> shift) % (1 << 11) for shift in (22, 11, 0)]

    def decode(self, ids: Sequence[int], unknown: str = "") -> str:
        """Return the number with these ids."""
        high, middle, low = (index - FIRST_TOKEN for index in ids)
        return self.text(np.uint32(high << 22 | middle << 11 | low).view(np.float32))

    def text(self, standardised: float) -> str:
        """Return a number, given in standard deviations from the mean, to a hundred-thousandth of one."""
        digits = 5 - math.floor(math.log10(self.deviation))
        return f"{round(self.mean + self.deviation * float(standardised), digits):.12g}"

    def piece(self, index: int) -> str:
        """Return a token as text."""
        return f"<{index}>"

    def words(self, text: str) -> tuple[list[str], list[int]]:
        """Return the number as the one word that all its tokens belong to."""
        return [text], [0, 0, 0]

    def rare(self, counts: np.ndarray) -> str:
        """Return "": a number cannot be rare."""
        return ""

    def unseen(self, texts: Sequence[str]) -> str:
        """Return "": a number cannot be unseen."""
        return ""

    def to_bytes(self) -> bytes:
        return f"{self.mean!r}\n{self.deviation!r}\n".encode()


KINDS: dict[str, type[Labels] | type[Numbers]] = {"one": Labels, "several": LabelSets, "number": Numbers}
"""The target vocabularies of `Classification.labels`."""


def check_numbers(sources: Iterable[Source], drops_empty: bool = False) -> None:
    """Check that all targets are numbers.

    Args:
        drops_empty: a pair with an empty side is allowed, because it is not used.

    Raises:
        UserError: one is not, and where it is.
    """
    for wrong in not_numbers(sources, drops_empty):
        raise UserError(wrong)


def not_numbers(sources: Iterable[Source], drops_empty: bool = False) -> Iterator[str]:
    """Yield a sentence for each target that is not a number; see `check_numbers`."""
    for source in sources:
        for index, (read, target) in enumerate(source.pairs()):
            text = decode(target).strip()
            if not (_is_number(text) or (drops_empty and not (text and read.strip()))):
                yield f"{source.where(index)}: task.labels number needs a number from {-LARGEST:g} to {LARGEST:g}, not {text[:40]!r}"


def _is_number(text: str) -> bool:
    try:
        return abs(float(text)) <= LARGEST and "_" not in text  # NaN is not
    except ValueError:
        return False


def _named(labels: Sequence[str]) -> str:
    """Return "3 labels (a, b, c) occur"."""
    names = ", ".join(label or '""' for label in labels[:NAMED]) + (", …" if len(labels) > NAMED else "")
    return f"{len(labels):,} label{'s' if len(labels) > 1 else ''} ({names}) occur{'' if len(labels) > 1 else 's'}"
