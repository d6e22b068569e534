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
import itertools
import json
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxnmt.config import Experiment
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


def budget_of(experiment: Experiment) -> packing.Budget:
    """Return which positions `batching.tokens` counts: a label has but one, so that texts are counted instead."""
    return "longer" if experiment.task.is_label else "target"


class BatchPlan:
    """The batches of an endless stream of pairs.

    Args:
        lengths: for each corpus (source lengths, target lengths) in tokens, without begin and end tokens.
        weights: the relative share of each corpus in the stream.
        experiment: its batching settings, its seed, and its accumulation, a multiple of which every shape is planned to have as rows.
        parts: number of device groups that split the batch. Every shape is padded with empty rows to a multiple of accumulation × parts, so
            that the pairs of a batch do not depend on the number of devices.
        counts_file: keeps the windows' numbers of batches. None: the windows before a step are planned again to reach it.
        write_counts: whether to write that file, or only to read it.

    Attributes:
        shapes: every shape that a batch can have, empty rows included, smallest first.
        packed: whether a row may hold several pairs.
    """

    def __init__(
        self,
        lengths: Sequence[tuple[np.ndarray, np.ndarray]],
        weights: Sequence[float],
        experiment: Experiment,
        parts: int = 1,
        counts_file: Path | None = None,
        write_counts: bool = True,
    ):
        batching, max_length, multiple = experiment.batching, experiment.data.max_length, experiment.training.accumulation
        self._lengths, self._seed = lengths, experiment.training.seed
        self._mixture = order.Mixture([len(source) for source, _ in lengths], weights, self._seed)
        self.packed = batching.layout == "packed"
        if self.packed:
            length = max(batching.row_length, max_length)
            self._planned = [Shape(packing.rows_for(batching.tokens, length, multiple), length, length)]
        else:
            self._planned = packing.bucket_shapes(
                lengths, weights, batching.tokens, batching.max_shapes, max_length, multiple, budget_of(experiment)
            )
        padding = multiple * parts
        self.shapes = tuple(shape._replace(rows=-(-shape.rows // padding) * padding) for shape in self._planned)
        self._pairs_per_epoch = sum(self._mixture.sizes)
        self._windows_per_epoch = -(-self._pairs_per_epoch // WINDOW)
        self._window = functools.lru_cache(KEPT_WINDOWS)(self._plan)
        self._lock = threading.RLock()  # the loader's thread and the training loop use the plan
        self._key = self._fingerprint(weights)
        self._firsts = [0, *(self._read_counts(counts_file) if counts_file else [])]
        """The first step of each window, as far as it is known."""
        self._counts_file, self._written = counts_file if write_counts else None, len(self._firsts)

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
            share = (step - first) / (self._firsts[number + 1] - first)
            return (start + share * (stop - start)) / self._pairs_per_epoch

    def target_tokens(self, batch: PlannedBatch) -> int:
        """Return the number of a batch's target tokens, end tokens included."""
        return int(self._positions(batch.corpus, batch.index)[1].sum())

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in the first epoch (another may have one or two more or fewer)."""
        with self._lock:
            self._count(self._windows_per_epoch)
            return self._firsts[self._windows_per_epoch]

    def _locate(self, step: int) -> tuple[int, int]:
        """Return the window of a step and that window's first step."""
        while self._firsts[-1] <= step:
            self._count(len(self._firsts))
        number = bisect.bisect_right(self._firsts, step) - 1
        return number, self._firsts[number]

    def _count(self, windows: int) -> None:
        """Count the batches of the first `windows` windows."""
        while len(self._firsts) <= windows:
            self._firsts.append(self._firsts[-1] + len(self._window(len(self._firsts) - 1)))
        if self._counts_file and len(self._firsts) > self._written * 65 // 64:  # seldom: a tiny corpus has one window a step
            with contextlib.suppress(OSError):  # on a full or read-only disk: the counts only save time
                files.write(self._counts_file, json.dumps({"key": self._key, "ends": self._firsts[1:]}))
            self._written = len(self._firsts)

    def _bounds(self, window: int) -> tuple[int, int]:
        """Return a window's stream positions; the windows of an epoch have equal sizes to within one pair."""
        pairs, windows = self._pairs_per_epoch, self._windows_per_epoch
        return window * pairs // windows, (window + 1) * pairs // windows

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
        return [PlannedBatch(step, shape, self.packed, *rest) for step, ((shape, _), *rest) in enumerate(parts, self._firsts[window])]

    def _positions(self, corpus: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the positions that pairs need on each side: their tokens plus one."""
        sides: np.ndarray = np.empty((2, len(corpus)), np.int64)
        for k, pair in enumerate(self._lengths):
            mine = corpus == k
            sides[:, mine] = [lengths[index[mine]] for lengths in pair]
        return sides[0] + 1, sides[1] + 1

    def _fingerprint(self, weights: Sequence[float]) -> str:
        settings = (VERSION, [float(w) for w in weights], self.packed, self._seed, tuple(self._planned), WINDOW)
        digest = hashlib.sha256(repr(settings).encode())
        for lengths in itertools.chain.from_iterable(self._lengths):
            digest.update(f"{len(lengths)}:".encode())
            digest.update(np.ascontiguousarray(lengths, dtype="<i4").data)
        return digest.hexdigest()

    def _read_counts(self, file: Path) -> list[int]:
        """Return the windows' ends that the file knows; [] if it is missing, unreadable or of another plan."""
        try:
            kept = json.loads(file.read_text())
            return kept["ends"] if kept["key"] == self._key else []
        except (OSError, ValueError, KeyError, TypeError):
            return []
