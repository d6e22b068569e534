"""Which sentences are translated together, and the few sizes that their batches are padded to."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxnmt import config as cfg
from jaxnmt.data.special_tokens import PAD

if TYPE_CHECKING:  # they import JAX and flax
    from jaxnmt.decoding.search import SearchOptions
    from jaxnmt.models.encoder_decoder import Batch

LENGTHS = (16, 32, 64, 128, 256, 512)
"""Source positions that searches are compiled for: few, since each costs seconds to compile, and a sentence's padding little."""


class Group(NamedTuple):
    """Sentences to search for together.

    Attributes:
        options: of the search.
        batch, limits_B: as in `search.search`. Further rows than there are `numbers` are padding.
        numbers: by which the caller knows the sentences.
    """

    options: SearchOptions
    batch: Batch
    limits_B: np.ndarray
    numbers: list[int]

    def may_follow(self, other: Group) -> bool:
        """Return whether the sentences may take the places of those of another group."""
        widens = self.options.coverage_penalty is None  # the coverage of padding is 1, and what is padded later has zeros
        fits = self.width >= other.width if widens else self.width == other.width
        return fits and self.options.max_length >= other.options.max_length and len(self.limits_B) == len(other.limits_B)

    @property
    def width(self) -> int:
        """S, the length that the sources are padded to."""
        return self.batch["encoder_input_tokens"].shape[1]


def ahead(items: Iterator[Any], count: int) -> Iterator[Any]:
    """Yield the items; `count` more than are yielded have been made."""
    made = collections.deque(itertools.islice(items, count))
    for item in items:
        made.append(item)
        yield made.popleft()
    yield from made


def most_rows(length: int, size: int, tokens: int) -> int:
    """Return how many sentences of a padded length are translated together: at most `size`, and `tokens` source tokens if that is not 0."""
    return max(1, min(size, tokens // length)) if tokens else size


def groups(lengths: Sequence[Any], size: int, tokens: int = 0) -> Iterator[list[int]]:
    """Yield the indices of the lengths, similar ones together, at most `size` at a time.

    Args:
        lengths: anything that can be sorted; with `tokens`, numbers of source tokens.
        tokens: most source tokens of a group, padding counted; 0: any number. A sentence of more is alone.
    """
    group: list[int] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if group and len(group) >= (most_rows(bucket(lengths[i]), size, tokens) if tokens else size):
            yield group
            group = []
        group.append(i)
    if group:
        yield group


def pad(sentences: Sequence[Sequence[int]], rows: int, first: int) -> np.ndarray:
    """Return the ids of sentences as int32 (rows, `bucket` of the longest). Further rows have only the token `first`."""
    tokens: np.ndarray = np.full((rows, bucket(max(map(len, sentences)))), PAD, np.int32)
    tokens[len(sentences) :, 0] = first
    for row, ids in enumerate(sentences):
        tokens[row, : len(ids)] = ids
    return tokens


def row_sizes(most: int, devices: int = 1) -> list[int]:
    """Return the numbers of rows that batches are padded to, ascending: few, so that few programs are compiled.

    Each device gets a power of four, at most its share of `most`, the batch size. Only the device count may take the sum above `most`.
    """
    share = -(-most // devices)
    powers = itertools.takewhile(lambda rows: rows < share, (4**i for i in itertools.count()))
    return [devices * rows for rows in (*powers, share)]


def padded_rows(count: int, most: int, devices: int = 1) -> int:
    """Return the number of rows that a batch of `count` sentences is padded to, one of `row_sizes`."""
    sizes = row_sizes(most, devices)
    return next((rows for rows in sizes if rows >= count), sizes[-1])


def bucket(length: int) -> int:
    """Return the compiled source length that a length is padded to."""
    return next((size for size in LENGTHS if size >= length), -(-length // 512) * 512)


def output_limit(source_tokens: int, decoding: cfg.Decoding) -> int:
    """Return the length of the longest translation of a sentence, EOS included; a function of the sentence alone."""
    return max(1, int(decoding.max_length_ratio * source_tokens) + decoding.max_length_extra)


def target_length(source_length: int, decoding: cfg.Decoding, extra: int = 0) -> int:
    """Return the target length that the search of a source length is compiled for. Limits may be raised by up to `extra` tokens.

    The length is what the default length limits need, doubled until it holds the limits of `decoding`. So other limits seldom compile anew,
    and the default limits, which cost memory and time at each step, get no more than they need.
    """
    tokens, needed = output_limit(source_length, cfg.Decoding()), output_limit(source_length, decoding) + extra
    while tokens < needed:
        tokens *= 2
    return tokens


def regrouped(sentences: Sequence[tuple[Group, int]]) -> Iterator[Group]:
    """Yield groups of these sentences, each a row of its group."""
    rows = len(sentences[0][0].limits_B)
    for start in range(0, len(sentences), rows):
        some = sentences[start : start + rows]
        filled = [*some, *[some[0]] * (rows - len(some))]
        batch = {name: np.stack([group.batch[name][row] for group, row in filled]) for name in some[0][0].batch}
        limits_B: np.ndarray = np.ones(rows, np.int32)
        limits_B[: len(some)] = [group.limits_B[row] for group, row in some]
        yield Group(some[0][0].options, batch, limits_B, [group.numbers[row] for group, row in some])
