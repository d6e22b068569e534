"""A search in stages, on one device: sentences that are finished leave the batch, and the decoder's caches grow as they fill.

Both happen between compiled loops, at two sizes each, so that few programs are compiled. No sentence's translation depends on it.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from jaxnmt.decoding.search import Beams, Hypotheses, SearchOptions, advance, begin, lengthen, select
from jaxnmt.models.seq2seq import Batch, Seq2Seq

FEWER = 4
"""A batch shrinks to this fraction of its rows, once it has no more open sentences."""
SMALLEST = 8
"""Rows below which a batch does not shrink: a step of fewer takes as long."""


class StagedSearch:
    """`search.search` for one model on one device."""

    def __init__(self, model: Seq2Seq) -> None:
        self._begin = jax.jit(functools.partial(begin, model))
        self._advance = jax.jit(functools.partial(advance, model))
        self._lengthen = jax.jit(functools.partial(lengthen, model))
        self._select = jax.jit(_select, static_argnums=3)

    def __call__(self, options: SearchOptions, params: Any, batch: Batch, limits_B: np.ndarray) -> Hypotheses:
        """Return what `search` returns, as NumPy arrays."""
        B, W = len(limits_B), options.beam_size
        fewer, longest = max(SMALLEST, B // FEWER), options.max_length
        found = Hypotheses(np.zeros((B, W, longest), np.int32), *np.zeros((2, B, W), np.float32))
        # Most translations are shorter than twice their source. The others get room for the longest at once.
        options = dataclasses.replace(options, max_length=min(longest, 2 * batch["encoder_input_tokens"].shape[1]))
        memory, beams = self._begin(options, params, batch, limits_B)
        rows = np.arange(B)  # the sentence of each row; -1: none
        while True:
            size = len(rows)
            beams = self._advance(options, params, memory, limits_B, beams, at_most=fewer if size > fewer else 0)
            done, open_B, t = jax.device_get((beams.done, beams.open_B, beams.t))
            closed_B = ~open_B & (rows >= 0)
            found.tokens_BWT[rows[closed_B], :, : options.max_length] = done.tokens_BWT[closed_B]
            found.scores_BW[rows[closed_B]] = done.scores_BW[closed_B]
            found.log_probs_BW[rows[closed_B]] = done.log_probs_BW[closed_B]
            rows = np.where(open_B, rows, -1)
            if not open_B.any():
                return found
            still = np.flatnonzero(open_B)
            if len(still) <= fewer < size:
                keep = np.concatenate([still, np.flatnonzero(~open_B)[: fewer - len(still)]])
                memory, limits_B, beams = self._select(memory, limits_B, beams, size, keep)
                rows = rows[keep]
            if t == options.max_length:
                options = dataclasses.replace(options, max_length=longest)
                beams = self._lengthen(options, params, memory, beams)


def _select(memory: Any, limits_B: jax.Array, beams: Beams, sentences: int, keep: jax.Array) -> Any:
    return select((memory, limits_B, beams), keep, sentences)
