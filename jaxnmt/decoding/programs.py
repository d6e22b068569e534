"""The compiled programs of a search.

On one device there are two. The first searches for whole batches; its caches grow as translations get longer. It stops when only a quarter
of the sentences are unfinished, or when its caches are full. The second finishes these sentences, a quarter of a batch at a time, with
caches for the longest translation. This is faster because a step computes all rows, finished or not, and copies all positions of the
caches. On a mesh there is one program, in which each device searches for its own sentences. Translations are the same; scores agree to
rounding.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnmt.decoding.search import Beams, Hypotheses, SearchOptions, StepwiseSearch, advance, begin, lengthen, search, select
from jaxnmt.models.seq2seq import Batch, Seq2Seq
from jaxnmt.parallel.sharding import per_device, replicated, to_mesh

IN_FLIGHT = 2
"""Number of searches at a time. On a CPU, one computes where another has work for one core only; an accelerator need not wait for texts."""
FEWEST = 8
"""Minimum number of sentences in the second program. The first program does not stop early in a batch that is not larger."""
MARGIN = 8
"""The first program's caches hold half the padded source length plus this many tokens, then the whole length plus this many."""


class StagedSearch:
    """`search.search` for one model on one device."""

    def __init__(self, model: Seq2Seq) -> None:
        # A thread for each batch in flight: XLA's CPU backend runs what one thread starts one after the other.
        self._threads = concurrent.futures.ThreadPoolExecutor(IN_FLIGHT)
        self._starts = threading.Lock()  # so that a program is compiled once
        self._first = jax.jit(functools.partial(_first, model), static_argnames=("few", "cache_lengths"))
        self._rest = jax.jit(functools.partial(_rest, model))

    def share(self, sentences: int) -> int:
        """Return how many of the sentences that are translated together one search takes.

        On a CPU the searches in flight share them: more would not fit its cache. An accelerator is faster with all of them in one.
        """
        return -(-sentences // IN_FLIGHT) if jax.default_backend() == "cpu" else sentences

    def __call__(self, options: SearchOptions, params: Any, batch: Batch, limits_B: np.ndarray) -> Hypotheses:
        """Return what `search` returns, as NumPy arrays."""
        few, memory, beams = self._begun(options, params, batch, limits_B)
        found, open_B = jax.tree.map(np.array, jax.device_get((beams.done, beams.open_B)))
        places = np.flatnonzero(open_B)
        for start in range(0, len(places), few):
            rows = places[start : start + few]
            keep: np.ndarray = np.resize(rows, few)  # the last rows may be repeated, so that there is one size
            with self._starts:
                done = self._rest(options, params, memory, limits_B, beams, keep)
            for all_B, some_K in zip(found, jax.device_get(done), strict=True):
                all_B[rows] = some_K[: len(rows)]
        return found

    def start(self, options: SearchOptions, params: Any, batch: Batch, limits_B: np.ndarray) -> Callable[[], Hypotheses]:
        """Begin a search. Returns a function that waits for what `search` returns, as NumPy arrays."""
        return self._threads.submit(self, options, params, batch, limits_B).result

    def warm(self, options: SearchOptions, params: Any, batch: Batch) -> None:
        """Compile both programs for batches of this shape."""
        limits_B: np.ndarray = np.ones(len(batch["encoder_input_tokens"]), np.int32)  # the search ends with the first token
        few, memory, beams = self._begun(options, params, batch, limits_B)
        self._rest(options, params, memory, limits_B, beams, np.arange(few))

    def _begun(self, options: SearchOptions, params: Any, batch: Batch, limits_B: np.ndarray) -> tuple[int, Any, Beams]:
        """Run the first program. Returns how many sentences the second takes at a time, the memory and the beams."""
        B, S = batch["encoder_input_tokens"].shape[:2]
        few = min(B, max(FEWEST, B // 4))
        halves = (S // 2, S) if B > FEWEST else (S,)  # short caches save few sentences less than a further loop costs to trace
        cache_lengths = tuple(sorted({min(length + MARGIN, options.max_length) for length in halves}))
        with self._starts:
            return few, *self._first(options, params, batch, limits_B, few=few if B > few else 0, cache_lengths=cache_lengths)


class MeshSearch:
    """`search.search` for one model on a mesh."""

    def __init__(self, model: Seq2Seq, mesh: jax.sharding.Mesh) -> None:
        self._mesh = mesh
        # The layout lets every process have every translation.
        self._search = jax.jit(functools.partial(_on_each_device, model, mesh), out_shardings=replicated(mesh))

    def share(self, sentences: int) -> int:
        """Return how many of the sentences that are translated together one search takes: all."""
        return sentences

    def start(self, options: SearchOptions, params: Any, batch: Batch, limits_B: np.ndarray) -> Callable[[], Hypotheses]:
        """Begin a search. Returns a function that waits for what `search` returns, as NumPy arrays."""
        batch = to_mesh(batch | {"limits": limits_B}, self._mesh)
        return functools.partial(jax.device_get, self._search(options, params, batch, batch.pop("limits")))

    def warm(self, options: SearchOptions, params: Any, batch: Batch) -> None:
        """Compile the program for batches of this shape."""
        self.start(options, params, batch, np.ones(len(batch["encoder_input_tokens"]), np.int32))


class Searches(NamedTuple):
    """The searches of one model.

    Attributes:
        batch: for a batch of sentences.
        stepwise: for one sentence, step by step.
    """

    batch: StagedSearch | MeshSearch
    stepwise: StepwiseSearch

    @staticmethod
    def of(model: Seq2Seq, mesh: jax.sharding.Mesh | None) -> Searches:
        """Return the searches of a model on a mesh; None: on one device."""
        return Searches(StagedSearch(model) if mesh is None else MeshSearch(model, mesh), StepwiseSearch(model))


def _first(
    model: Seq2Seq, options: SearchOptions, params, batch: Batch, limits_B, *, few: int, cache_lengths: tuple[int, ...]
) -> tuple[Any, Beams]:
    """Search until at most `few` sentences are open, or hypotheses fill the caches of the last of `cache_lengths`.

    `done` is as long as the longest translation.
    """
    short = dataclasses.replace(options, max_length=cache_lengths[0])
    memory, beams = begin(model, short, params, batch, limits_B)
    for length in cache_lengths:
        short = dataclasses.replace(options, max_length=length)
        beams = advance(model, short, params, memory, limits_B, lengthen(model, short, params, memory, beams), at_most=few)
    missing = ((0, 0), (0, 0), (0, options.max_length - cache_lengths[-1]))
    return memory, beams._replace(done=beams.done._replace(tokens_BWT=jnp.pad(beams.done.tokens_BWT, missing)))


def _rest(model: Seq2Seq, options: SearchOptions, params, memory, limits_B, beams: Beams, keep_K) -> Hypotheses:
    """Finish the search of the sentences `keep_K`."""
    memory, limits_K, beams = select((memory, limits_B, beams), keep_K, len(limits_B))
    return advance(model, options, params, memory, limits_K, lengthen(model, options, params, memory, beams)).done


def _on_each_device(model: Seq2Seq, mesh: jax.sharding.Mesh, options: SearchOptions, params, batch, limits_B) -> Hypotheses:
    def find(replicated_arguments, batch, limits_B):
        options, params = replicated_arguments
        return search(model, options, params, batch, limits_B, mesh)

    return per_device(find, mesh)((options, params), batch, limits_B)
