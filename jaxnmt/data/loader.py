"""From planned batches to token arrays, ahead of time.

The batch is Grain's element and the step its key, so that the step is the whole position of the input: there is
no iterator to save.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np

from jaxnmt.data import packing
from jaxnmt.data.batching import BatchPlan, PlannedBatch
from jaxnmt.data.packing import Shape
from jaxnmt.data.special_tokens import BOS, EOS

AHEAD = 16  # batches made ready before they are asked for: they last while the next window is planned


class Corpus(Protocol):
    """Token ids of pairs: side i is `ids[offsets[i]:offsets[i + 1]]`, without start and end tokens."""

    source_ids: np.ndarray
    source_offsets: np.ndarray
    target_ids: np.ndarray
    target_offsets: np.ndarray


class _Side:
    """One side of a batch's pairs, laid out flat: where each token comes from and goes to."""

    def __init__(self, ids: Sequence[np.ndarray], offsets: Sequence[np.ndarray], planned: PlannedBatch, length: int):
        first: np.ndarray = np.empty(len(planned.row), np.int64)
        tokens: np.ndarray = np.empty(len(planned.row), np.int64)
        parts = [np.flatnonzero(planned.corpus == k) for k in range(len(ids))] if len(ids) > 1 else [np.arange(len(planned.row))]
        for part, cuts in zip(parts, offsets, strict=True):
            index = planned.index[part]
            first[part] = cuts[index]
            tokens[part] = cuts[index + 1] - first[part]
        self.positions: np.ndarray = tokens + 1
        ends = np.cumsum(self.positions)
        row_start = np.searchsorted(planned.row, planned.row)  # the first pair of each pair's row
        column = ends - self.positions - (ends - self.positions)[row_start]
        if len(column) and (column + self.positions).max() > length:
            raise ValueError(f"a row of step {planned.step} needs {(column + self.positions).max()} positions of {length}")
        self.start = planned.row.astype(np.int64) * length + column
        self.end = self.start + tokens
        self.shape = planned.shape.rows, length
        self.segment = np.arange(len(tokens)) - row_start + 1
        self.within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - self.positions, self.positions)
        self.cells = np.repeat(self.start, self.positions) + self.within
        self.is_token = self.within < np.repeat(tokens, self.positions)
        self.tokens: np.ndarray = np.empty(int(tokens.sum()), np.int32)
        owner: np.ndarray = np.repeat(planned.corpus, tokens)
        origin = np.repeat(first, tokens) + self.within[self.is_token]
        for k, flat in enumerate(ids):
            mine = owner == k if len(ids) > 1 else slice(None)
            self.tokens[mine] = np.asarray(flat)[origin[mine]]

    def put(self, cells: np.ndarray, values: np.ndarray | int | float, dtype: type = np.int32) -> np.ndarray:
        grid: np.ndarray = np.zeros(self.shape, dtype)
        grid.reshape(-1)[cells] = values
        return grid

    def ended(self) -> np.ndarray:
        """Tokens, then the end token."""
        grid = self.put(self.cells[self.is_token], self.tokens)
        grid.reshape(-1)[self.end] = EOS
        return grid

    def started(self) -> np.ndarray:
        """The start token, then tokens."""
        grid = self.put(self.cells[self.is_token] + 1, self.tokens)
        grid.reshape(-1)[self.start] = BOS
        return grid

    def segments(self) -> np.ndarray:
        return self.put(self.cells, np.repeat(self.segment, self.positions))

    def places(self) -> np.ndarray:
        return self.put(self.cells, self.within)


def assemble(planned: PlannedBatch, corpora: Sequence[Corpus]) -> dict[str, np.ndarray]:
    """Token arrays of a batch.

    Returns:
        `encoder_input_tokens` int32[B, S], `decoder_input_tokens`, `decoder_target_tokens` int32[B, T] and
        `decoder_loss_weights` float32[B, T] (1 on targets, 0 on padding); packed rows also have
        `encoder_segment_ids`, `encoder_positions` int32[B, S], `decoder_segment_ids`, `decoder_positions`
        int32[B, T], segments counted from 1 and 0 on padding.
    """
    source = _Side([c.source_ids for c in corpora], [c.source_offsets for c in corpora], planned, planned.shape.source)
    target = _Side([c.target_ids for c in corpora], [c.target_offsets for c in corpora], planned, planned.shape.target)
    batch = {
        "encoder_input_tokens": source.ended(),
        "decoder_input_tokens": target.started(),
        "decoder_target_tokens": target.ended(),
        "decoder_loss_weights": target.put(target.cells, 1, np.float32),
    }
    if planned.packed:
        batch |= {"encoder_segment_ids": source.segments(), "encoder_positions": source.places()}
        batch |= {"decoder_segment_ids": target.segments(), "decoder_positions": target.places()}
    return batch


def batches(
    plan: BatchPlan,
    corpora: Sequence[Corpus],
    start: int,
    stop: int,
    rows: Callable[[int], np.ndarray] | None = None,
) -> Generator[tuple[int, PlannedBatch, dict[str, np.ndarray]], None, None]:
    """Yield steps start..stop-1 as (step, plan of the batch, arrays); a thread makes a few ahead.

    An error while a batch is made is raised here, when its turn comes. Once the generator is closed, nothing is planned or written.

    Args:
        rows: given the number of rows of a batch, returns the rows to read, ascending; None: all. The plan is of the whole batch.
    """
    import grain  # imports JAX

    closed, making = False, threading.Lock()

    def make(step: int) -> tuple[int, PlannedBatch, dict[str, np.ndarray]] | None:
        with making:
            if closed:
                return None
            planned = plan.batch(int(step))
            local = planned if rows is None else planned.only(rows(planned.shape.rows))
            return int(step), planned, assemble(local, corpora)

    if start >= stop:
        return
    dataset = grain.MapDataset.range(start, stop).map(make)
    iterator = iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=AHEAD)))
    try:
        yield from iterator
    finally:
        with making:  # Grain's `close` does not wait for its thread
            closed = True
        close = getattr(iterator, "close", None)
        if close is not None:
            close()


def evaluation_batches(
    pairs: Iterable[tuple[Sequence[int], Sequence[int]]],
    tokens: int,
    max_length: int,
    row_multiple: int = 1,
    max_shapes: int = 3,
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Every pair exactly once, one a row, in at most `max_shapes` static shapes, for a validation loss.

    Args:
        pairs: (source ids, target ids) without start and end tokens; a side is cut to `max_length` positions.
        tokens: target positions of a batch.

    Yields:
        The numbers of the pairs in rows 0, 1, ... (the rows after them are padding), and the arrays of `assemble`.
    """
    corpus = FlatCorpus(pairs, max_length - 1)
    source, target = (np.diff(offsets) + 1 for offsets in (corpus.source_offsets, corpus.target_offsets))
    if not len(source):
        return
    histogram = np.zeros((source.max() + 1, target.max() + 1))
    np.add.at(histogram, (source, target), 1)
    sides = packing.bucket_lengths(histogram, max_shapes, max_length)
    shapes = tuple(Shape(packing.rows_for(tokens, t, row_multiple), s, t) for s, t in sides)
    for shape, group in zip(shapes, packing.bucket_rows(source, target, shapes), strict=True):
        for members in group:
            row: np.ndarray = np.arange(len(members), dtype=np.int32)
            planned = PlannedBatch(0, shape, False, row, np.zeros_like(row), members.astype(np.int64))
            yield members, assemble(planned, [corpus])


class FlatCorpus:
    """Pairs held in memory, in the layout of a `Corpus`; sides are cut to `limit` tokens."""

    def __init__(self, pairs: Iterable[tuple[Sequence[int], Sequence[int]]], limit: int | None = None):
        sides = [(np.asarray(s[:limit], np.int32), np.asarray(t[:limit], np.int32)) for s, t in pairs]
        self.source_ids, self.source_offsets = _flat([s for s, _ in sides])
        self.target_ids, self.target_offsets = _flat([t for _, t in sides])


def _flat(rows: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.cumsum([0, *map(len, rows)])
    return np.concatenate([np.empty(0, np.int32), *rows]), offsets
