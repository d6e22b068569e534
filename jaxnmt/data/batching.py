"""Which pairs form which batch at which step.

A batch is a pure function of the corpora's lengths, the weights, the batching, the seed and the step: no state to
save, no trace of how many hosts there are or what was asked before. An epoch is planned in windows of at most 2¹⁷
pairs; how many batches each window has is remembered (and kept in a file), so that seeking does not plan again
what lies before.
"""

from __future__ import annotations

import bisect
import contextlib
import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxnmt.config import Batching
from jaxnmt.data import order, packing
from jaxnmt.data.packing import Shape
from jaxnmt.errors import UserError
from jaxnmt.io import whole_files

WINDOW = 1 << 17
KEPT_WINDOWS = 3
VERSION = 2  # raise it whenever the same key would give other batches


@dataclass(frozen=True)
class PlannedBatch:
    """The pairs of one batch, row by row.

    Attributes:
        step: the batch's number.
        shape: rows, source positions, target positions.
        packed: whether a row may hold several pairs.
        row: int32[n], the row of each pair, not descending; rows named nowhere are padding.
        corpus: int32[n], the corpus of each pair.
        index: int64[n], its number in that corpus.
    """

    step: int
    shape: Shape
    packed: bool
    row: np.ndarray
    corpus: np.ndarray
    index: np.ndarray

    def only(self, rows: np.ndarray) -> PlannedBatch:
        """The same batch with some of its rows alone, ascending, numbered from 0."""
        place = np.minimum(np.searchsorted(rows, self.row), len(rows) - 1)
        mine = rows[place] == self.row
        shape = self.shape._replace(rows=len(rows))
        return PlannedBatch(self.step, shape, self.packed, place[mine].astype(np.int32), self.corpus[mine], self.index[mine])

    @property
    def rows(self) -> list[list[tuple[int, int]]]:
        """Each row as a list of (corpus, index); empty lists are padding."""
        rows: list[list[tuple[int, int]]] = [[] for _ in range(self.shape.rows)]
        for row, corpus, index in zip(self.row.tolist(), self.corpus.tolist(), self.index.tolist(), strict=True):
            rows[row].append((corpus, index))
        return rows


@dataclass(frozen=True)
class _Window:
    """A planned window: its pairs in order of batch and row; batch b holds pairs `cuts[b]`..`cuts[b + 1]`."""

    shape: np.ndarray
    cuts: np.ndarray
    row: np.ndarray
    corpus: np.ndarray
    index: np.ndarray


class BatchPlan:
    """Batches of an endless stream of pairs.

    Args:
        lengths: for each corpus (source lengths, target lengths) in tokens, without start and end tokens.
        weights: how often each corpus is drawn from, in any unit.
        batching: layout and sizes.
        seed: of all that is random.
        max_length: positions that a pair may need on a side (its tokens plus one).
        row_multiple: rows of every shape are planned as a multiple of this (accumulation).
        counts_file: file for the windows' batch counts; None: windows before a step are planned again to reach it.
        write_counts: whether that file is written, or only read.
        row_padding: rows of every shape are filled up with empty ones to a multiple of this (accumulation × devices that split the batch),
            so that the pairs of a batch are the same for any number of devices.

    Attributes:
        shapes: every shape that a batch can have, empty rows included, smallest first.

    Raises:
        UserError: an empty corpus, a bad weight, a pair over `max_length`, a budget under one row.
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
        _check(batching, max_length, row_multiple)
        self._lengths = [(np.asarray(s), np.asarray(t)) for s, t in lengths]
        self._mixture = order.Mixture([len(s) for s, _ in self._lengths], weights, seed)
        self._check_lengths(max_length)
        self.batching, self.seed = batching, seed
        self.packed = batching.layout == "packed"
        row = max(batching.row_length, max_length)
        if self.packed:
            sides = [(row, row)]
        else:
            sides = packing.bucket_lengths(self._histogram(weights), batching.max_shapes, max_length)
        self._planned = tuple(Shape(packing.rows_for(batching.tokens, t, row_multiple), s, t) for s, t in sides)
        self.shapes = tuple(shape._replace(rows=-(-shape.rows // row_padding) * row_padding) for shape in self._planned)
        self.pairs_per_epoch = sum(self._mixture.sizes)
        self._windows_per_epoch = -(-self.pairs_per_epoch // WINDOW)
        self._windows: OrderedDict[int, _Window] = OrderedDict()
        self._lock = threading.RLock()  # the loader's thread and the training loop both ask
        self._counts_file, self._writes = counts_file, write_counts
        self._key = self._fingerprint(weights)
        self._ends = self._read_counts()
        self._written = len(self._ends)

    def batch(self, step: int) -> PlannedBatch:
        """The batch of a step (0, 1, ...)."""
        number, first = self._locate(step)
        window = self._window(number)
        b = step - first
        mine = slice(window.cuts[b], window.cuts[b + 1])
        return PlannedBatch(step, self.shapes[window.shape[b]], self.packed, window.row[mine], window.corpus[mine], window.index[mine])

    def epoch(self, step: int) -> float:
        """How many times the corpora's pairs have passed before `step`; a mixture's epoch is as many pairs as it holds in all."""
        number, first = self._locate(step)
        start, stop = self._bounds(number)
        share = (step - first) / (self._ends[number] - first)
        return (start + share * (stop - start)) / self.pairs_per_epoch

    @property
    def steps_per_epoch(self) -> int:
        """Batches of the first epoch (another may have one or two more or fewer)."""
        with self._lock:
            self._count(self._windows_per_epoch)
            return self._ends[self._windows_per_epoch - 1]

    def padding_waste(self, step: int = 0) -> float:
        """Share of source and target positions that are padding, over the window that `step` is in."""
        window = self._window(self._locate(step)[0])
        source, target = self._positions(window.corpus, window.index)
        sizes = np.array([s.rows * (s.source + s.target) for s in self.shapes])
        return 1 - float(source.sum() + target.sum()) / float(sizes[window.shape].sum())

    def _locate(self, step: int) -> tuple[int, int]:
        """The window of a step, and that window's first step."""
        if step < 0:
            raise ValueError(f"step {step} is negative")
        with self._lock:
            while not self._ends or self._ends[-1] <= step:
                self._count(len(self._ends) + 1)
            number = bisect.bisect_right(self._ends, step)
            return number, self._ends[number - 1] if number else 0

    def _count(self, windows: int) -> None:
        """Knows the ends of at least so many windows."""
        while len(self._ends) < windows:
            self._ends.append((self._ends[-1] if self._ends else 0) + len(self._window(len(self._ends)).shape))
        if len(self._ends) > self._written * 65 // 64:  # a tiny corpus has a window a step: write seldom, as the file grows
            self._write_counts()

    def _bounds(self, number: int) -> tuple[int, int]:
        """Stream positions of a window; an epoch's windows are equal to within one pair."""
        epoch, part = divmod(number, self._windows_per_epoch)
        first, size = epoch * self.pairs_per_epoch, self.pairs_per_epoch
        return first + part * size // self._windows_per_epoch, first + (part + 1) * size // self._windows_per_epoch

    def _window(self, number: int) -> _Window:
        with self._lock:
            if number not in self._windows:
                self._windows[number] = self._plan(number)
                while len(self._windows) > KEPT_WINDOWS:
                    self._windows.popitem(last=False)
            self._windows.move_to_end(number)
            return self._windows[number]

    def _plan(self, number: int) -> _Window:
        """Draws a window's pairs, puts them into rows, rows into batches, and batches in random order."""
        corpus, index = self._mixture.pairs(*self._bounds(number))
        mixed = order.shuffled(len(corpus), self.seed, number, 1)  # or a mixture's small corpora would come in its order
        corpus, index = corpus[mixed], index[mixed]
        source, target = self._positions(corpus, index)
        if self.packed:
            row_of_pair = packing.pack(source, target, self._planned[0].source)
            rows = row_of_pair.max() + 1
            groups = [packing.even(order.shuffled(rows, self.seed, number, 2), self._planned[0].rows)]
        else:
            row_of_pair = np.arange(len(corpus))
            rows = len(corpus)
            groups = packing.bucket_rows(source, target, self._planned)
        batches = [(shape, batch) for shape, group in enumerate(groups) for batch in group]
        batches = [batches[i] for i in order.shuffled(len(batches), self.seed, number, 3)]
        batch_of_row, place_of_row = np.empty(rows, np.int64), np.empty(rows, np.int64)
        for b, (_, members) in enumerate(batches):
            batch_of_row[members], place_of_row[members] = b, np.arange(len(members))
        by_batch = np.lexsort((place_of_row[row_of_pair], batch_of_row[row_of_pair]))
        row_of_pair = row_of_pair[by_batch]
        cuts = np.asarray(np.searchsorted(batch_of_row[row_of_pair], np.arange(len(batches) + 1)))
        return _Window(
            shape=np.array([shape for shape, _ in batches]),
            cuts=cuts,
            row=place_of_row[row_of_pair].astype(np.int32),
            corpus=corpus[by_batch],
            index=index[by_batch],
        )

    def _positions(self, corpus: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions that pairs need on each side: their tokens plus one."""
        sides: np.ndarray = np.empty((2, len(corpus)), np.int64)
        for k, pair in enumerate(self._lengths):
            mine = corpus == k
            for side, lengths in zip(sides, pair, strict=True):
                side[mine] = lengths[index[mine]]
        return sides[0] + 1, sides[1] + 1

    def _check_lengths(self, max_length: int) -> None:
        """Refuses pairs over the limit."""
        for k, (source, target) in enumerate(self._lengths):
            if len(source) != len(target):
                raise ValueError(f"corpus {k} has {len(source)} source lengths and {len(target)} target lengths")
            longest = int(max(source.max(), target.max())) + 1
            if longest > max_length:
                raise UserError(
                    f"data.max_length = {max_length}, but source {k + 1} of data.train has a pair of {longest} tokens,"
                    " the end token counted: raise it, or prepare the data again."
                )

    def _histogram(self, weights: Sequence[float]) -> np.ndarray:
        """Share of the stream's pairs that need so many [source, target] positions."""
        height, width = (max(int(pair[side].max()) for pair in self._lengths) + 2 for side in (0, 1))
        total = np.zeros((height, width))
        for (source, target), weight in zip(self._lengths, weights, strict=True):
            for i in range(0, len(source), 1 << 20):
                code = (source[i : i + (1 << 20)].astype(np.int64) + 1) * width + target[i : i + (1 << 20)] + 1
                total += np.bincount(code, minlength=height * width).reshape(height, width) * (weight / len(source))
        return total

    def _fingerprint(self, weights: Sequence[float]) -> str:
        told = (VERSION, [float(w) for w in weights], self.packed, self.seed, self._planned, WINDOW)
        digest = hashlib.sha256(repr(told).encode())
        for pair in self._lengths:
            for lengths in pair:
                digest.update(f"{len(lengths)}:".encode())
                digest.update(np.ascontiguousarray(lengths, dtype="<i4").data)
        return digest.hexdigest()

    def _read_counts(self) -> list[int]:
        """Last step + 1 of each window known so far; nothing where the file is missing, damaged or another plan's."""
        try:
            kept = json.loads(self._counts_file.read_text()) if self._counts_file else {}
            ends = kept.get("ends", []) if kept.get("key") == self._key else []
            rising = all(type(n) is int and n > before for before, n in zip([0, *ends], ends, strict=False))
        except (OSError, ValueError, AttributeError, TypeError):
            return []
        return ends if rising else []

    def _write_counts(self) -> None:
        if self._counts_file is None or not self._writes:
            return
        path = self._counts_file
        with contextlib.suppress(OSError):  # a full disk or one that may not be written: the counts only save time
            path.parent.mkdir(parents=True, exist_ok=True)
            whole_files.write(path, json.dumps({"key": self._key, "ends": self._ends}))
        self._written = len(self._ends)


def _check(batching: Batching, max_length: int, row_multiple: int) -> None:
    """Refuses sizes that make no batch."""
    if batching.layout not in ("packed", "buckets"):
        raise UserError(f"batching.layout = {batching.layout!r}: choose packed or buckets.")
    fields = {"tokens": batching.tokens, "row_length": batching.row_length, "max_shapes": batching.max_shapes}
    for name, value in fields.items():
        if value < 1:
            raise UserError(f"batching.{name} = {value}: it must be at least 1.")
    if max_length < 2:
        raise UserError(f"data.max_length = {max_length}: it must be at least 2, one token and the end token.")
    if row_multiple < 1:
        raise ValueError(f"row_multiple = {row_multiple}: it must be at least 1")
