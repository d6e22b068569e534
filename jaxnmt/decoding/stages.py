"""A search on one device, in two programs: whole batches until few sentences are open, and then these alone.

A step costs what its rows cost, finished or not, and as many copies as the decoder's caches have places. So the first program stops when a
quarter of the sentences are open, or when its caches, which have room for the usual translation, are full. The second goes on with the open
ones, a quarter of the batch at a time, and has room for the longest translation. No sentence's translation depends on it.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnmt.decoding.search import Beams, Hypotheses, SearchOptions, advance, begin, lengthen, select
from jaxnmt.models.seq2seq import Batch, Seq2Seq

FEWEST = 16
"""Rows of the second program at least; a smaller batch is searched whole until its caches are full."""
USUAL = 8
"""How many tokens longer than its padded source a translation may be before it needs the second program."""


class StagedSearch:
    """`search.search` for one model on one device."""

    def __init__(self, model: Seq2Seq) -> None:
        self._first = jax.jit(functools.partial(_first, model), static_argnames=("few", "usual"))
        self._rest = jax.jit(functools.partial(_rest, model))

    def __call__(self, options: SearchOptions, params: Any, batch: Batch, limits_B: np.ndarray) -> Hypotheses:
        """Return what `search` returns, as NumPy arrays."""
        B, S = batch["encoder_input_tokens"].shape[:2]
        few = max(FEWEST, B // 4)
        memory, beams = self._first(options, params, batch, limits_B, few=few if B > few else 0, usual=min(S + USUAL, options.max_length))
        found, open_B = jax.tree.map(np.array, jax.device_get((beams.done, beams.open_B)))
        places = np.flatnonzero(open_B)
        for start in range(0, len(places), few):
            rows = places[start : start + few]
            keep = np.resize(rows, min(B, few))  # the last rows may be repeated, so that there is one size
            done = jax.device_get(self._rest(options, params, memory, limits_B, beams, keep))
            for all_B, some_K in zip(found, done, strict=True):
                all_B[rows] = some_K[: len(rows)]
        return found


def _first(model: Seq2Seq, options: SearchOptions, params, batch: Batch, limits_B, *, few: int, usual: int) -> tuple[Any, Beams]:
    """Search until `few` sentences are open or hypotheses have `usual` tokens. `done` has room for the longest translation."""
    short = dataclasses.replace(options, max_length=usual)
    memory, beams = begin(model, short, params, batch, limits_B)
    beams = advance(model, short, params, memory, limits_B, beams, at_most=few)
    room = ((0, 0), (0, 0), (0, options.max_length - usual))
    return memory, beams._replace(done=beams.done._replace(tokens_BWT=jnp.pad(beams.done.tokens_BWT, room)))


def _rest(model: Seq2Seq, options: SearchOptions, params, memory, limits_B, beams: Beams, keep_K) -> Hypotheses:
    """Finish the search of the sentences `keep_K`."""
    memory, limits_K, beams = select((memory, limits_B, beams), keep_K, len(limits_B))
    return advance(model, options, params, memory, limits_K, lengthen(model, options, params, memory, beams)).done
