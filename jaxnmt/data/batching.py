"""Decide which pairs form which batch at which step.

A batch is a pure function of the corpora's lengths, the weights, the batching settings, the seed and the step. There is no state to save,
and a batch does not depend on the number of hosts or on earlier requests. An epoch is planned in windows of at most 2¹⁷ pairs. A file keeps
the number of batches in each window, so that seeking does not plan earlier windows again.
"""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import functools
import hashlib
import json
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxnmt.config import Batching
from jaxnmt.data import order, packing
from jaxnmt.data.packing import Shape
from jaxnmt.io import files

WINDOW = 1 << 17
"""Most pairs in a window."""
KEPT_WINDOWS = 3
VERSION = 2
"""Increase it when the same arguments would give other batches."""


@dataclasses.dataclass(frozen=True)
class PlannedBatch:
    """The pairs of one batch, row by row.

    Attributes:
        step: the number of the batch.
        shape: rows, source positions, target positions.
        packed: whether a row may hold several pairs.
        row: int32 [n], the row of each pair, not descending; rows without a pair are padding.
        corpus: int32 [n], the corpus of each pair.
        index: int64 [n], its number in that corpus.
    """

    step: int
    shape: Shape
    packed: bool
    row: np.ndarray
    corpus: np.ndarray
    index: np.ndarray

    def only(self, rows: np.ndarray) -> PlannedBatch:
        """Return the batch with only these rows (ascending), numbered from 0."""
        place = np.minimum(np.searchsorted(rows, self.row), len(rows) - 1)
        mine = rows[place] == self.row
        shape = self.shape._replace(rows=len(rows))
        return PlannedBatch(self.step, shape, self.packed, place[mine].astype(np.int32), self.corpus[mine], self.index[mine])

    @property
    def rows(self) -> list[list[tuple[int, int]]]:
        """Each row as a list of (corpus, index); padding rows are empty lists."""
        rows: list[list[tuple[int, int]]] = [[] for _ in range(self.shape.rows)]
        for row, corpus, index in zip(self.row.tolist(), self.corpus.tolist(), self.index.tolist(), strict=True):
            rows[row].append((corpus, index))
        return rows


class BatchPlan:
    """The batches of an endless stream of pairs.

    Args:
        lengths: for each corpus (source lengths, target lengths) in tokens, without begin and end tokens.
        weights: the relative share of each corpus in the stream.
        batching: layout and sizes.
        seed: of all that is random.
        max_length: positions that a pair may need on a side (its tokens plus one).
        row_multiple: every shape is planned with a multiple of this many rows (accumulation).
        counts_file: keeps the windows' numbers of batches. None: the windows before a step are planned again to reach it.
        write_counts: whether to write that file, or only to read it.
        row_padding: every shape is padded with empty rows to a multiple of this (accumulation × devices that split the batch), so that the
            pairs of a batch do not depend on the number of devices.

    Attributes:
        shapes: every shape that a batch can have, empty rows included, smallest first.
        packed: whether a row may hold several pairs.
    """

    def __init__(
        self,
        lengths: Sequence[tuple[np.ndarray, np.ndarray]],
        weights: Sequence[float],
        batching: Batching,
        seed: int,
        max_length: int,
        row_multiple: int = 1,
        counts_file: Path | None = None,
        write_counts: bool = True,
        row_padding: int = 1,
    ):
        self._lengths, self._seed = lengths, seed
        self._mixture = order.Mixture([len(source) for source, _ in lengths], weights, seed)
        self.packed = batching.layout == "packed"
        if self.packed:
            sides = [(max(batching.row_length, max_length),) * 2]
        else:
            sides = packing.bucket_lengths(self._histogram(weights), batching.max_shapes, max_length)
        self._planned = tuple(Shape(packing.rows_for(batching.tokens, target, row_multiple), source, target) for source, target in sides)
        self.shapes = tuple(shape._replace(rows=-(-shape.rows // row_padding) * row_padding) for shape in self._planned)
        self._pairs_per_epoch = sum(self._mixture.sizes)
        self._windows_per_epoch = -(-self._pairs_per_epoch // WINDOW)
        self._window = functools.lru_cache(KEPT_WINDOWS)(self._plan)
        self._lock = threading.RLock()  # the loader's thread and the training loop use the plan
        self._counts_file, self._writes = counts_file, write_counts
        self._key = self._fingerprint(weights)
        self._ends = self._read_counts()
        """The first step after each window that is known so far."""
        self._written = len(self._ends)

    def batch(self, step: int) -> PlannedBatch:
        """Return the batch of a step (0, 1, ...)."""
        with self._lock:
            number, first = self._locate(step)
            return self._window(number)[step - first]

    def epoch(self, step: int) -> float:
        """Return the number of epochs before `step`. An epoch of a mixture is as many pairs as its corpora hold together."""
        with self._lock:
            number, first = self._locate(step)
            start, stop = self._bounds(number)
            share = (step - first) / (self._ends[number] - first)
            return (start + share * (stop - start)) / self._pairs_per_epoch

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in the first epoch (another may have one or two more or fewer)."""
        with self._lock:
            self._count(self._windows_per_epoch)
            return self._ends[self._windows_per_epoch - 1]

    def _locate(self, step: int) -> tuple[int, int]:
        """Return the window of a step and that window's first step."""
        while not self._ends or self._ends[-1] <= step:
            self._count(len(self._ends) + 1)
        number = bisect.bisect_right(self._ends, step)
        return number, self._first_step(number)

    def _first_step(self, window: int) -> int:
        return self._ends[window - 1] if window else 0

    def _count(self, windows: int) -> None:
        """Make sure that the ends of the first `windows` windows are known."""
        while len(self._ends) < windows:
            number = len(self._ends)
            self._ends.append(self._first_step(number) + len(self._window(number)))
        if len(self._ends) > self._written * 65 // 64:  # seldom: a tiny corpus has one window a step
            self._write_counts()

    def _bounds(self, window: int) -> tuple[int, int]:
        """Return a window's stream positions; the windows of an epoch have equal sizes to within one pair."""
        epoch, part = divmod(window, self._windows_per_epoch)
        first, size = epoch * self._pairs_per_epoch, self._pairs_per_epoch
        return first + part * size // self._windows_per_epoch, first + (part + 1) * size // self._windows_per_epoch

    def _plan(self, window: int) -> list[PlannedBatch]:
        """Draw the pairs of a window, put them into rows, the rows into batches, and shuffle the batches."""
        corpus, index = self._mixture.pairs(*self._bounds(window))
        mixed = order.shuffled(len(corpus), self._seed, window, 1)  # else a small corpus of a mixture would come in its own order
        corpus, index = corpus[mixed], index[mixed]
        source, target = self._positions(corpus, index)
        if self.packed:
            row_of_pair = packing.pack(source, target, self._planned[0].source)
            rows = row_of_pair.max() + 1
            groups = [packing.even(order.shuffled(rows, self._seed, window, 2), self._planned[0].rows)]
        else:
            rows = len(corpus)
            row_of_pair = np.arange(rows)
            groups = packing.bucket_rows(source, target, self._planned)
        batches = [(self.shapes[shape], batch) for shape, group in enumerate(groups) for batch in group]
        batches = [batches[i] for i in order.shuffled(len(batches), self._seed, window, 3)]
        batch_of_row, place_of_row = np.empty(rows, np.int64), np.empty(rows, np.int32)
        for number, (_, members) in enumerate(batches):
            batch_of_row[members], place_of_row[members] = number, np.arange(len(members))
        batch, row = batch_of_row[row_of_pair], place_of_row[row_of_pair]
        by_batch = np.lexsort((row, batch))
        cuts = np.searchsorted(batch[by_batch], np.arange(1, len(batches)))
        parts = zip(batches, *(np.split(column[by_batch], cuts) for column in (row, corpus, index)), strict=True)
        return [
            PlannedBatch(step, shape, self.packed, *columns) for step, ((shape, _), *columns) in enumerate(parts, self._first_step(window))
        ]

    def _positions(self, corpus: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the positions that pairs need on each side: their tokens plus one."""
        sides: np.ndarray = np.empty((2, len(corpus)), np.int64)
        for k, pair in enumerate(self._lengths):
            mine = corpus == k
            for side, lengths in zip(sides, pair, strict=True):
                side[mine] = lengths[index[mine]]
        return sides[0] + 1, sides[1] + 1

    def _histogram(self, weights: Sequence[float]) -> np.ndarray:
        """Return the share of the stream's pairs that need [source, target] positions."""
        height, width = (max(int(pair[side].max()) for pair in self._lengths) + 2 for side in (0, 1))
        total = np.zeros((height, width))
        for (source, target), weight in zip(self._lengths, weights, strict=True):
            for i in range(0, len(source), 1 << 20):
                code = (source[i : i + (1 << 20)].astype(np.int64) + 1) * width + target[i : i + (1 << 20)] + 1
                total += np.bincount(code, minlength=height * width).reshape(height, width) * (weight / len(source))
        return total

    def _fingerprint(self, weights: Sequence[float]) -> str:
        settings = (VERSION, [float(w) for w in weights], self.packed, self._seed, self._planned, WINDOW)
        digest = hashlib.sha256(repr(settings).encode())
        for pair in self._lengths:
            for lengths in pair:
                digest.update(f"{len(lengths)}:".encode())
                digest.update(np.ascontiguousarray(lengths, dtype="<i4").data)
        return digest.hexdigest()

    def _read_counts(self) -> list[int]:
        """Return the windows' ends that the file knows; [] if it is missing, damaged or of another plan."""
        try:
            kept = json.loads(self._counts_file.read_text()) if self._counts_file else {}
            ends = kept["ends"] if kept.get("key") == self._key else []
            rising = all(type(n) is int and n > before for before, n in zip([0, *ends], ends, strict=False))
        except (OSError, ValueError, AttributeError, KeyError, TypeError):
            return []
        return ends if rising else []

    def _write_counts(self) -> None:
        if self._counts_file is None or not self._writes:
            return
        with contextlib.suppress(OSError):  # on a full or read-only disk: the counts only save time
            self._counts_file.parent.mkdir(parents=True, exist_ok=True)
            files.write(self._counts_file, json.dumps({"key": self._key, "ends": self._ends}))
        self._written = len(self._ends)
