"""Turn planned batches into token arrays, ahead of time."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from jaxnmt.data import packing
from jaxnmt.data.batching import BatchPlan, PlannedBatch
from jaxnmt.data.corpus import Corpus, Sentences, count_up, gather, in_memory, pair_weights
from jaxnmt.data.objectives import Examples, Objective, unchanged
from jaxnmt.data.special_tokens import BOS, EOS

AHEAD = 16
"""Batches that are made before they are asked for: training uses them while the next window is planned."""
EVALUATION_SHAPES = 3
"""The most shapes of validation batches."""


Arrays = dict[str, np.ndarray]


def assemble(planned: PlannedBatch, corpora: Sequence[Corpus], objective: Objective = unchanged) -> Arrays:
    """Return the token arrays of a batch.

    Args:
        objective: what the task makes of the examples.

    Returns:
        `encoder_input_tokens` int32 [B, S]; `decoder_input_tokens`, `decoder_target_tokens` int32 [B, T]; `decoder_loss_weights` float32
        [B, T], on targets their weight in the loss, which is the pair's times the task's, and 0 on padding. Packed batches also have
        `encoder_segment_ids`, `encoder_positions` int32 [B, S], `decoder_segment_ids`, `decoder_positions` int32 [B, T]; segments count
        from 1 and are 0 on padding. If the source is no text, `encoder_input_vectors` [B, ...] has the picture or vector of each row.
    """
    sides = [corpus.source for corpus in corpora], [corpus.target for corpus in corpora]
    given, wanted = (gather(side, planned.corpus, planned.index) for side in sides)
    ones: np.ndarray = np.ones(len(wanted.ids) + len(wanted.tokens), np.float32)
    examples = objective(planned, Examples(given, wanted, ones[: len(wanted.ids)], ones[len(wanted.ids) :]))
    if any(corpus.weights is not None for corpus in corpora):  # `LossSums.tokens`, the divisor, is then the sum of the weights
        each = pair_weights(corpora, planned.corpus, planned.index)
        weights = examples.weights * np.repeat(each, examples.target.tokens)
        examples = examples._replace(weights=weights, end_weights=examples.end_weights * each)
    source = _lay_out(planned, examples.source, planned.shape.source)
    target = _lay_out(planned, examples.target, planned.shape.target, examples.weights, examples.end_weights)
    batch = {
        "encoder_input_tokens": source["ended"],
        "decoder_input_tokens": target["started"],
        "decoder_target_tokens": target["ended"],
        "decoder_loss_weights": target["weights"],
    }
    if corpora[0].vectors is not None:
        vectors = np.zeros((planned.shape.rows, *corpora[0].vectors.shape[1:]), corpora[0].vectors.dtype)
        vectors[planned.row] = corpora[0].vectors[given.ids]
        batch["encoder_input_vectors"] = vectors
    if planned.packed:
        batch |= {"encoder_segment_ids": source["segments"], "encoder_positions": source["positions"]}
        batch |= {"decoder_segment_ids": target["segments"], "decoder_positions": target["positions"]}
    return batch


def _lay_out(
    planned: PlannedBatch, side: Sentences, length: int, weights: np.ndarray | float = 1, end_weights: np.ndarray | float = 1
) -> Arrays:
    """Lay out one side of a batch's pairs in rows of `length` positions; a sentence takes its tokens plus one.

    Returns:
        int32 [rows, length]: `ended`, tokens then EOS; `started`, BOS then tokens. If the batch is packed, also `segments`, the sentence's
        number in its row from 1, and `positions` in the sentence. float32 [rows, length]: `weights` of `ended`. All are 0 on padding.
    """
    ids, tokens = side
    sizes: np.ndarray = tokens + 1
    starts = np.cumsum(sizes) - sizes
    row: np.ndarray = planned.row.astype(np.int64)
    first_of_row = np.searchsorted(row, row)
    column = starts - starts[first_of_row]
    if len(row) and (column + sizes).max() > length:
        raise ValueError(f"a row of step {planned.step} needs {(column + sizes).max()} positions of {length}")
    first = row * length + column
    token_cells = np.repeat(first, tokens) + count_up(tokens)

    def grid(*parts: tuple[np.ndarray, np.ndarray | float], dtype: type = np.int32) -> np.ndarray:
        flat: np.ndarray = np.zeros(planned.shape.rows * length, dtype)
        for cells, values in parts:
            flat[cells] = values
        return flat.reshape(planned.shape.rows, length)

    arrays = {"ended": grid((token_cells, ids), (first + tokens, EOS)), "started": grid((token_cells + 1, ids), (first, BOS))}
    arrays["weights"] = grid((token_cells, weights), (first + tokens, end_weights), dtype=np.float32)
    if planned.packed:
        position = count_up(sizes)
        cells = np.repeat(first, sizes) + position
        segments: np.ndarray = np.repeat(np.arange(len(row)) - first_of_row + 1, sizes)
        arrays |= {"segments": grid((cells, segments)), "positions": grid((cells, position))}
    return arrays


def batches(
    plan: BatchPlan,
    corpora: Sequence[Corpus],
    start: int,
    stop: int,
    rows: Callable[[int], np.ndarray] = np.arange,
    objective: Objective = unchanged,
) -> Generator[tuple[int, PlannedBatch, Arrays], None, None]:
    """Yield steps start..stop-1 as (step, plan of the whole batch, arrays). A thread makes `AHEAD` of them in advance.

    An error in the thread is raised here when its batch is due. Closing the generator waits for the thread.

    Args:
        rows: returns the rows to read, ascending, of a batch with this number of rows.
        objective: what the task makes of the examples.
    """

    def make(step: int) -> tuple[int, PlannedBatch, Arrays]:
        planned = plan.batch(step)
        return step, planned, assemble(planned.only(rows(planned.shape.rows)), corpora, objective)

    steps = iter(range(start, stop))
    maker = ThreadPoolExecutor(1, "batches")
    try:
        ready = collections.deque(maker.submit(make, step) for step in itertools.islice(steps, AHEAD))
        while ready:
            batch = ready.popleft().result()
            ready.extend(maker.submit(make, step) for step in itertools.islice(steps, 1))
            yield batch
    finally:
        maker.shutdown(cancel_futures=True)


def evaluation_batches(
    pairs: Iterable[tuple[Sequence[int], Sequence[int]]],
    tokens: int,
    max_length: int,
    multiple: int,
    objective: Objective = unchanged,
    budget: packing.Budget = "target",
    vectors: np.ndarray | None = None,
) -> Iterator[tuple[np.ndarray, Arrays]]:
    """Yield every pair exactly once, one a row, in at most `EVALUATION_SHAPES` static shapes, for a validation loss.

    Args:
        pairs: (source ids, target ids) without begin and end tokens, at least one pair; a side is cut to `max_length` positions.
        tokens: target positions of a batch.
        multiple: every shape has a multiple of this many rows.
        objective: what the task makes of the examples.
        budget: the positions that `tokens` counts.
        vectors: pictures or vectors, which the sources number; see `Corpus`.

    Yields:
        The numbers of the pairs in rows 0, 1, ... (later rows are padding), and the arrays of `assemble`.
    """
    corpus = in_memory(pairs, max_length - 1, vectors)
    source, target = corpus.lengths
    shapes = packing.bucket_shapes([corpus.lengths], [len(corpus)], tokens, EVALUATION_SHAPES, max_length, multiple, budget)
    for shape, group in zip(shapes, packing.bucket_rows(source + 1, target + 1, shapes), strict=True):
        for members in group:
            row: np.ndarray = np.arange(len(members), dtype=np.int32)
            planned = PlannedBatch(0, shape, False, row, np.zeros_like(row), members.astype(np.int64))
            yield members, assemble(planned, [corpus], objective)
