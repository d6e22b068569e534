"""A search in stages, on one device: sentences that are finished leave the batch, and the decoder's caches grow as they fill.

Both happen between compiled loops, at a few sizes, so that few programs are compiled. No sentence's translation depends on it.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from jaxnmt.decoding.search import Beams, Hypotheses, SearchOptions, advance, begin, lengthen, select
from jaxnmt.models.seq2seq import Batch, Seq2Seq

SMALLEST = 8
"""Rows below which a batch is not halved: a step of fewer takes as long."""
ROOM = 16
"""Tokens that the smallest caches have room for. Others have room for twice, four times, ... as many."""


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
        found = Hypotheses(np.zeros((B, W, options.max_length), np.int32), *np.zeros((2, B, W), np.float32))
        options = _with_room(options, batch["encoder_input_tokens"].shape[1])
        memory, beams = self._begin(options, params, batch, limits_B)
        rows = np.arange(B)  # the sentence of each row; -1: none
        while True:
            size = len(rows)
            beams = self._advance(options, params, memory, limits_B, beams, at_most=size // 2 if size > SMALLEST else 0)
            done, open_B, t = jax.device_get((beams.done, beams.open_B, beams.t))
            closed_B = ~open_B & (rows >= 0)
            width = min(done.tokens_BWT.shape[2], found.tokens_BWT.shape[2])
            found.tokens_BWT[rows[closed_B], :, :width] = done.tokens_BWT[closed_B, :, :width]
            found.scores_BW[rows[closed_B]] = done.scores_BW[closed_B]
            found.log_probs_BW[rows[closed_B]] = done.log_probs_BW[closed_B]
            rows = np.where(open_B, rows, -1)
            if not open_B.any():
                return found
            still = np.flatnonzero(open_B)
            if len(still) <= size // 2 and size > SMALLEST:
                fewer = max(SMALLEST, 1 << (len(still) - 1).bit_length())
                keep = np.concatenate([still, np.flatnonzero(~open_B)[: fewer - len(still)]])
                memory, limits_B, beams = self._select(memory, limits_B, beams, size, keep)
                rows = rows[keep]
            if t == options.max_length:
                options = _with_room(options, options.max_length + 1)
                beams = self._lengthen(options, params, memory, beams)


def _with_room(options: SearchOptions, tokens: int) -> SearchOptions:
    room = ROOM
    while room < tokens:
        room *= 2
    return dataclasses.replace(options, max_length=room)


def _select(memory: Any, limits_B: jax.Array, beams: Beams, sentences: int, keep: jax.Array) -> Any:
    return select((memory, limits_B, beams), keep, sentences)
