"""The compiled programs of a search.

On one device there are two: whole batches until few sentences are open, and then these alone. A step costs what its rows cost, finished or
not, and copies as many places as the decoder's caches have. So the first program stops when a quarter of the sentences are open, or when
its caches, which have room for the usual translation, are full. The second goes on with the open ones, a quarter of the batch at a time,
and has room for the longest translation. On a mesh there is one program, in which each device searches for its own sentences. No
sentence's translation depends on any of this.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnmt.decoding.search import Beams, Hypotheses, SearchOptions, advance, begin, lengthen, search, select
from jaxnmt.models.seq2seq import Batch, Seq2Seq
from jaxnmt.parallel.sharding import per_device, replicated, to_mesh

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
        few, memory, beams = self._begun(options, params, batch, limits_B)
        found, open_B = jax.tree.map(np.array, jax.device_get((beams.done, beams.open_B)))
        places = np.flatnonzero(open_B)
        for start in range(0, len(places), few):
            rows = places[start : start + few]
            keep: np.ndarray = np.resize(rows, few)  # the last rows may be repeated, so that there is one size
            done = jax.device_get(self._rest(options, params, memory, limits_B, beams, keep))
            for all_B, some_K in zip(found, done, strict=True):
                all_B[rows] = some_K[: len(rows)]
        return found

    def warm(self, options: SearchOptions, params: Any, batch: Batch) -> None:
        """Compile both programs for batches of this shape."""
        limits_B: np.ndarray = np.ones(len(batch["encoder_input_tokens"]), np.int32)  # the search ends with the first token
        few, memory, beams = self._begun(options, params, batch, limits_B)
        self._rest(options, params, memory, limits_B, beams, np.arange(few))

    def _begun(self, options: SearchOptions, params: Any, batch: Batch, limits_B: np.ndarray) -> tuple[int, Any, Beams]:
        """Return how many sentences the second program takes at a time, and what the first leaves: the memory and the beams."""
        B, S = batch["encoder_input_tokens"].shape[:2]
        few, usual = min(B, max(FEWEST, B // 4)), min(S + USUAL, options.max_length)
        return few, *self._first(options, params, batch, limits_B, few=few if B > few else 0, usual=usual)


class MeshSearch:
    """`search.search` for one model on a mesh."""

    def __init__(self, model: Seq2Seq, mesh: jax.sharding.Mesh) -> None:
        self._mesh = mesh
        # The layout lets every process have every translation.
        self._search = jax.jit(functools.partial(_on_each_device, model, mesh), out_shardings=replicated(mesh))

    def __call__(self, options: SearchOptions, params: Any, batch: Batch, limits_B: np.ndarray) -> Hypotheses:
        """Return what `search` returns, as NumPy arrays."""
        batch = to_mesh(batch | {"limits": limits_B}, self._mesh)
        return jax.device_get(self._search(options, params, batch, batch.pop("limits")))

    def warm(self, options: SearchOptions, params: Any, batch: Batch) -> None:
        """Compile the program for batches of this shape."""
        self(options, params, batch, np.ones(len(batch["encoder_input_tokens"]), np.int32))


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


def _on_each_device(model: Seq2Seq, mesh: jax.sharding.Mesh, options: SearchOptions, params, batch, limits_B) -> Hypotheses:
    def find(replicated_arguments, batch, limits_B):
        options, params = replicated_arguments
        return search(model, options, params, batch, limits_B, mesh)

    return per_device(find, mesh)((options, params), batch, limits_B)
