"""Put pairs into rows of fixed lengths: choose bucket shapes, and pack several pairs in a row.

All lengths here are in positions: tokens plus one (the end token, or the begin token of the decoder input).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from jaxnmt.errors import UserError

Budget = Literal["target", "longer"]
"""The positions of a row that a batch's number of tokens counts: those of the target, or of the longer side."""

MAX_EDGES = 32
"""About the most candidate row lengths for one side."""


class Shape(NamedTuple):
    """The static shape of a batch: rows, source positions and target positions of each row."""

    rows: int
    source: int
    target: int


def rows_for(tokens: int, length: int, multiple: int) -> int:
    """Return the number of rows of `length` positions in a budget of `tokens`.

    It is a multiple of `multiple`, and of 8 if it is large enough, so that batches are equal on 1, 2, 4 or 8 devices. It is at least
    `multiple`, even if that exceeds the budget.

    Raises:
        UserError: the budget is less than one row.
    """
    rows = tokens // length
    if rows < 1:
        raise UserError(f"batching.tokens {tokens} is less than one row of {length} tokens: raise it, or lower data.max_length")
    step = math.lcm(multiple, 8)
    step = step if rows >= step else multiple
    return max(multiple, rows // step * step)


def _rounded(lengths: np.ndarray) -> np.ndarray:
    """Round up to a multiple of 2 up to 32, of 8 above. With a multiple of 4, eight shapes would pad a seventh more."""
    return np.where(lengths <= 32, -(-lengths // 2) * 2, -(-lengths // 8) * 8)


def _edges(histogram: np.ndarray) -> np.ndarray:
    """Return the candidate row lengths of one side: rounded lengths that occur, thinned to about `MAX_EDGES` with equal token mass."""
    lengths = np.arange(len(histogram))
    used = np.unique(_rounded(lengths[histogram > 0]))
    if len(used) > MAX_EDGES:
        mass = np.cumsum(histogram * lengths)
        shares = np.asarray(np.searchsorted(mass, mass[-1] * np.arange(1, MAX_EDGES) / MAX_EDGES))
        used = np.union1d(_rounded(shares), used[-1:])
    return used


def bucket_shapes(
    lengths: Sequence[tuple[np.ndarray, np.ndarray]],
    weights: Sequence[float],
    tokens: int,
    max_shapes: int,
    max_length: int,
    multiple: int,
    budget: Budget = "target",
) -> list[Shape]:
    """Return the shapes of batches with one pair a row that minimise padding, smallest first.

    Args:
        lengths: for each corpus (source lengths, target lengths) in tokens.
        weights: the relative share of each corpus.
        tokens: positions of a batch.
        max_shapes: the most shapes.
        max_length: the longest row.
        multiple: every shape has a multiple of this many rows.
        budget: the positions that `tokens` counts.
    """
    sides = bucket_lengths(_histogram(lengths, weights), max_shapes, max_length)
    return [
        Shape(rows_for(tokens, max(source, target) if budget == "longer" else target, multiple), source, target) for source, target in sides
    ]


def _histogram(lengths: Sequence[tuple[np.ndarray, np.ndarray]], weights: Sequence[float]) -> np.ndarray:
    """Return the share of pairs that need [source, target] positions."""
    height, width = (max(int(pair[side].max()) for pair in lengths) + 2 for side in (0, 1))
    total = np.zeros((height, width))
    for (source, target), weight in zip(lengths, weights, strict=True):
        for i in range(0, len(source), 1 << 20):
            code = (source[i : i + (1 << 20)].astype(np.int64) + 1) * width + target[i : i + (1 << 20)] + 1
            total += np.bincount(code, minlength=height * width).reshape(height, width) * (weight / len(source))
    return total


def bucket_lengths(histogram: np.ndarray, max_shapes: int, max_length: int) -> list[tuple[int, int]]:
    """Return the (source, target) row lengths, at most `max_shapes`, that minimise padding.

    Shapes grow on both sides together, so that a pair that fits one fits every later one. A dynamic program goes over chains of candidate
    shapes: `best[k][cell]` is the least number of positions for all pairs that fit in `cell`, if `cell` is the last of k + 1 shapes.

    Args:
        histogram: weight of pairs, indexed [source positions, target positions].
        max_length: the longest row; other row lengths are rounded up.
    """
    sources, targets = _edges(histogram.sum(1)), _edges(histogram.sum(0))
    inside = histogram.cumsum(0).cumsum(1)[np.ix_(sources.clip(max=len(histogram) - 1), targets.clip(max=histogram.shape[1] - 1))].ravel()
    source, target = np.asarray(np.repeat(sources, len(targets))), np.tile(targets, len(sources))
    size = source + target
    follows = (source[:, None] <= source) & (target[:, None] <= target)  # [before, after]
    step = np.where(follows, (inside[None, :] - inside[:, None]) * size[None, :], np.inf)
    best, back = [inside * size], []
    for _ in range(1, min(max_shapes, len(size))):
        through = best[-1][:, None] + step
        back.append(through.argmin(0))
        best.append(through.min(0))
    k = int(np.argmin([b[-1] for b in best]))  # the last cell holds everything
    chain = [len(size) - 1]
    for before in reversed(back[:k]):
        chain.append(int(before[chain[-1]]))
    return sorted({(min(int(source[c]), max_length), min(int(target[c]), max_length)) for c in chain})


def bucket_rows(source: np.ndarray, target: np.ndarray, shapes: Sequence[Shape]) -> list[list[np.ndarray]]:
    """Divide pairs into batches, one pair a row, each in the smallest shape that holds it.

    Pairs that do not fill a batch of their shape move up to the next shape. Only batches of the largest shape may be short, all by about
    the same number of rows.

    Args:
        source, target: positions of each pair; every pair fits the last shape.

    Returns:
        For each shape its batches, each an array of pair numbers in the given order.
    """
    bucket = np.select([(source <= s.source) & (target <= s.target) for s in shapes], range(len(shapes)))
    order = np.argsort(bucket, kind="stable")
    groups = np.split(order, np.searchsorted(bucket[order], np.arange(1, len(shapes))))
    left, result = order[:0], []
    for shape, fitting in zip(shapes, groups, strict=True):
        group = np.concatenate([left, fitting])
        full = len(group) // shape.rows * shape.rows
        result.append(list(group[:full].reshape(-1, shape.rows)))
        left = group[full:]
    return [*result[:-1], even(group, shape.rows)]


def even(rows: np.ndarray, limit: int) -> list[np.ndarray]:
    """Split `rows` into the fewest parts of at most `limit`, of equal size to within one, so that no part has a single row."""
    return np.array_split(rows, -(-len(rows) // limit)) if len(rows) else []


class _Bins:
    """Open rows by the space left on each side. Rows that hold the same lengths are one entry with a count."""

    def __init__(self, limit: int):
        self.limit = limit
        self.masks = [0] * (limit + 1)  # masks[source space]: bit t set where rows with target space t are open
        self.cells: dict[tuple[int, int], list[tuple[int, int]]] = {}  # space -> [(pattern, rows)]

    def add(self, space: tuple[int, int], pattern: int, rows: int) -> None:
        self.cells.setdefault(space, []).append((pattern, rows))
        self.masks[space[0]] |= 1 << space[1]

    def take(self, source: int, target: int, most: int) -> tuple[tuple[int, int], int, int] | None:
        """Remove up to `most` equal rows that have space for (source, target), with the least space to spare.

        Returns:
            (space, pattern, rows), or None if no open row has space.
        """
        best, space = 2 * self.limit + 1, None
        for left in range(source, self.limit + 1):
            if left - source >= best:
                break
            mask = self.masks[left] >> target
            if mask:
                spare = left - source + (mask & -mask).bit_length() - 1
                if spare < best:
                    best, space = spare, (left, target + spare - left + source)
        if space is None:
            return None
        entries = self.cells[space]
        pattern, rows = entries.pop()
        taken = min(rows, most)
        if rows > taken:
            entries.append((pattern, rows - taken))
        if not entries:
            self.masks[space[0]] &= ~(1 << space[1])
        return space, pattern, taken


def pack(source: np.ndarray, target: np.ndarray, limit: int) -> np.ndarray:
    """Pack pairs into rows of `limit` positions on both sides: best fit, longest first.

    Pairs of equal lengths are interchangeable, so that whole groups of rows are filled at a time. This makes it fast.

    Args:
        source, target: positions of each pair, 1..limit.

    Returns:
        The row of each pair (int64), 0..rows-1.
    """
    code = source.astype(np.int64) * (limit + 1) + target
    types, counts = np.unique(code, return_counts=True)
    sources, targets = types // (limit + 1), types % (limit + 1)
    bins = _Bins(limit)
    parents: list[tuple[int, int]] = [(-1, -1)]  # pattern -> (pattern before, type added); 0 is the empty row
    for kind in np.lexsort((sources + targets, np.maximum(sources, targets)))[::-1].tolist():
        s, t, left = int(sources[kind]), int(targets[kind]), int(counts[kind])
        while left:
            found = bins.take(s, t, left)
            if found is None:  # open new rows: as many of this kind in each as fit
                copies = min(limit // s, limit // t, left)
                (space_s, space_t), pattern, rows = (limit, limit), 0, left // copies
            else:
                (space_s, space_t), pattern, rows = found
                copies = min(space_s // s, space_t // t, left // rows)
            for _ in range(copies):
                parents.append((pattern, kind))
                pattern = len(parents) - 1
            bins.add((space_s - s * copies, space_t - t * copies), pattern, rows)
            left -= rows * copies
    return _expand(code, types, parents, [entry for entries in bins.cells.values() for entry in entries])


def _expand(code: np.ndarray, types: np.ndarray, parents: list[tuple[int, int]], patterns: list[tuple[int, int]]) -> np.ndarray:
    """Assign each pair the next place of its type among the rows of all patterns. Returns the row of each pair."""
    kinds, rows, first = [], [], 0
    for pattern, count in patterns:
        while pattern:
            pattern, kind = parents[pattern]
            kinds.append(np.full(count, kind))
            rows.append(np.arange(first, first + count))
        first += count
    places = np.concatenate(kinds)
    row = np.concatenate(rows)[np.argsort(places, kind="stable")]
    result: np.ndarray = np.empty(len(code), np.int64)
    result[np.argsort(code, kind="stable")] = row  # types are sorted by code, so both orders run type by type
    return result
