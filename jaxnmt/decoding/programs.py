"""The compiled programs of a search.

On one device there are two. The first searches for whole batches; its caches grow as translations get longer. It stops when only a quarter
of the sentences are unfinished, or when its caches are full. The second finishes these sentences, a quarter of a batch at a time, with
caches for the longest translation. This is faster because a step computes all rows, finished or not, and reads all positions of the
caches. On a mesh there is one program, in which each device searches for its own sentences. Translations are the same; scores agree to
rounding.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from jaxnmt.decoding.kept_programs import KeptFunction
from jaxnmt.decoding.search import Beams, Hypotheses, SearchOptions, StepwiseSearch, advance, begin, lengthen, search, select
from jaxnmt.parallel.sharding import is_sharded, per_device, replicated, to_mesh

if TYPE_CHECKING:  # it imports flax
    from jaxnmt.models.encoder_decoder import Batch
    from jaxnmt.models.seq2seq import Seq2Seq

IN_FLIGHT = 2
"""Number of searches at a time. On a CPU, one computes where another has work for one core only; an accelerator need not wait for texts."""
FEWEST_HYPOTHESES = 64
"""Minimum number of hypotheses of a search that has a part of a batch. On a CPU, a product of 32 rows may take as long as one of 64."""
FEWEST_SENTENCES = 8
"""Minimum number of sentences in the second program. The first program does not stop early in a batch that is not larger."""
MARGIN = 8
"""The first program's caches hold half the padded source length plus this many tokens, then the whole length plus this many."""


class StagedSearch:
    """`search.search` for one model on one device."""

    def __init__(self, model: Seq2Seq, cache_key: tuple[object, ...] = ()) -> None:
        """Make a search.

        Args:
            model: is not used if its programs are kept.
            cache_key: identifies the model in the cache of traced programs (`KeptFunction`); empty: its programs are not cached.
        """
        # A thread for each batch in flight: XLA's CPU backend runs what one thread starts one after the other.
        self._threads = concurrent.futures.ThreadPoolExecutor(IN_FLIGHT)
        self._starts = threading.Lock()  # so that a program is compiled once
        self._traced = _TracedPrograms(model)
        self._kept = _KeptPrograms(model, cache_key) if cache_key else None

    def searches_of(self, hypotheses: int) -> int:
        """Return between how many searches a batch with this many hypotheses in all is divided.

        On a CPU that is `IN_FLIGHT` if each keeps enough of them, since larger searches do not fit its cache. Otherwise it is one.
        """
        return IN_FLIGHT if jax.default_backend() == "cpu" and hypotheses >= IN_FLIGHT * FEWEST_HYPOTHESES else 1

    def __call__(self, options: SearchOptions, params: Any, batch: Batch, limits_B: np.ndarray) -> Hypotheses:
        """Return what `search` returns, as NumPy arrays."""
        few, run = self._begun(options, params, batch, limits_B)
        found, open_B = jax.tree.map(np.array, jax.device_get((run.done, run.open_B)))
        places = np.flatnonzero(open_B)
        for start in range(0, len(places), few):
            rows = places[start : start + few]
            keep: np.ndarray = np.resize(rows, few)  # the last rows may be repeated, so that there is one size
            with self._starts:
                done = run.rest(keep)
            for all_B, some_K in zip(found, jax.device_get(done), strict=True):
                all_B[rows] = some_K[: len(rows)]
        return found

    def start(self, options: SearchOptions, params: Any, batch: Batch, limits_B: np.ndarray) -> Callable[[], Hypotheses]:
        """Begin a search. Returns a function that waits for what `search` returns, as NumPy arrays."""
        return self._threads.submit(self, options, params, batch, limits_B).result

    def warm(self, options: SearchOptions, params: Any, batch: Batch) -> None:
        """Compile both programs for batches of this shape."""
        limits_B: np.ndarray = np.ones(len(batch["encoder_input_tokens"]), np.int32)  # the search ends with the first token
        few, run = self._begun(options, params, batch, limits_B)
        run.rest(np.arange(few))

    def _begun(self, options: SearchOptions, params: Any, batch: Batch, limits_B: np.ndarray) -> tuple[int, _Begun]:
        """Run the first program. Returns how many sentences the second takes at a time, and what it found."""
        B, S = batch["encoder_input_tokens"].shape[:2]
        few = min(B, max(FEWEST_SENTENCES, B // 4))
        halves = (S // 2, S) if B > FEWEST_SENTENCES else (S,)  # short caches save few sentences less than a further loop costs to trace
        cache_lengths = tuple(sorted({min(length + MARGIN, options.max_length) for length in halves}))
        # The functions of logit processors have no names that say what they compute.
        programs = self._kept if self._kept and not options.processors else self._traced
        with self._starts:
            return few, programs.first(options, params, batch, limits_B, few=few if B > few else 0, cache_lengths=cache_lengths)


class _Begun(NamedTuple):
    """A search after its first program.

    Attributes:
        done, open_B: as in `Beams`.
        rest: runs the second program for the sentences with these numbers.
    """

    done: Hypotheses
    open_B: jax.Array
    rest: Callable[[np.ndarray], Hypotheses]


class _TracedPrograms:
    """The two programs, traced by each process."""

    def __init__(self, model: Seq2Seq) -> None:
        self._first = jax.jit(functools.partial(_first, model), static_argnames=("few", "cache_lengths"))
        self._rest = jax.jit(functools.partial(_rest, model))

    def first(self, options: SearchOptions, params: Any, batch: Batch, limits_B: np.ndarray, **static: Any) -> _Begun:
        """Run the first program."""
        memory, beams = self._first(options, params, batch, limits_B, **static)
        rest = functools.partial(self._rest, options, params, memory, limits_B, beams)
        return _Begun(beams.done, beams.open_B, rest)


class _KeptPrograms:
    """The two programs, kept on disk. What the first passes to the second is a list, since only traced code knows the types of models."""

    def __init__(self, model: Seq2Seq, cache_key: tuple[object, ...]) -> None:
        self._first = KeptFunction(functools.partial(_first_list, model), ("first", *cache_key))
        self._rest = KeptFunction(functools.partial(_rest_list, model), ("rest", *cache_key))

    def first(self, options: SearchOptions, params: Any, batch: Batch, limits_B: np.ndarray, **static: Any) -> _Begun:
        """Run the first program."""
        *done, open_B, state = self._first(options, params, batch, limits_B, **static)

        def rest(keep_K: np.ndarray) -> Hypotheses:
            return Hypotheses(*self._rest(options, params, batch, limits_B, state, keep_K, **static))

        return _Begun(Hypotheses(*done), open_B, rest)


class MeshSearch:
    """`search.search` for one model on a mesh. Sharded parameters of scanned layers are gathered layer by layer."""

    def __init__(self, model: Seq2Seq, mesh: jax.sharding.Mesh) -> None:
        self._model, self._mesh = model, mesh
        self._compiled: dict[bool, Any] = {}

    def program(self, params: Any) -> Any:
        """Return the jitted search for parameters that are sharded, or replicated, as these are."""
        gathers = self._model.can_gather and is_sharded(params)
        if gathers not in self._compiled:
            layouts = jax.tree.map(lambda x: x.sharding.spec, params) if gathers else None
            # The layout lets every process have every translation.
            on_each = functools.partial(_on_each_device, self._model, self._mesh, layouts)
            self._compiled[gathers] = jax.jit(on_each, out_shardings=replicated(self._mesh))
        return self._compiled[gathers]

    def searches_of(self, hypotheses: int) -> int:
        """Return between how many searches a batch is divided: one."""
        return 1

    def start(self, options: SearchOptions, params: Any, batch: Batch, limits_B: np.ndarray) -> Callable[[], Hypotheses]:
        """Begin a search. Returns a function that waits for what `search` returns, as NumPy arrays."""
        batch = to_mesh(batch | {"limits": limits_B}, self._mesh)
        return functools.partial(jax.device_get, self.program(params)(options, params, batch, batch.pop("limits")))

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
    def of(model: Seq2Seq, cache_key: tuple[object, ...], mesh: jax.sharding.Mesh | None) -> Searches:
        """Return the searches of a model on a mesh; None: on one device. For `cache_key` see `StagedSearch`."""
        batch = StagedSearch(model, cache_key) if mesh is None else MeshSearch(model, mesh)
        return Searches(batch, StepwiseSearch(model))


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


def _first_list(model: Seq2Seq, options: SearchOptions, params, batch: Batch, limits_B, **static: Any) -> list[Any]:
    """Return what `_first` finds, as a list without types of ours: tokens, scores, log-probabilities, `open_B` and all leaves."""
    memory, beams = _first(model, options, params, batch, limits_B, **static)
    return [*beams.done, beams.open_B, jax.tree.leaves((memory, beams))]


def _rest_list(
    model: Seq2Seq, options: SearchOptions, params, batch: Batch, limits_B, state: list[Any], keep_K, **static: Any
) -> list[Any]:
    """Return what `_rest` does, from the leaves that `_first_list` returns."""
    begun = jax.eval_shape(functools.partial(_first, model, **static), options, params, batch, limits_B)
    memory, beams = jax.tree.unflatten(jax.tree.structure(begun), state)
    return [*_rest(model, options, params, memory, limits_B, beams, keep_K)]


def _rest(model: Seq2Seq, options: SearchOptions, params, memory, limits_B, beams: Beams, keep_K) -> Hypotheses:
    """Finish the search of the sentences `keep_K`."""
    memory, limits_K, beams = select((memory, limits_B, beams), keep_K, len(limits_B))
    return advance(model, options, params, memory, limits_K, lengthen(model, options, params, memory, beams)).done


def _on_each_device(model: Seq2Seq, mesh: jax.sharding.Mesh, layouts: Any, options: SearchOptions, params, batch, limits_B) -> Hypotheses:
    gather_outside = lambda params: params  # noqa: E731
    if layouts is not None:
        from jaxnmt.models.gathering import gathering

        model, gather_outside = gathering(model, layouts)

    def find(arguments, batch, limits_B):
        options, params = arguments
        return search(model, options, gather_outside(params), batch, limits_B, mesh)

    replicate = PartitionSpec()
    return per_device(find, mesh, (replicate, layouts or replicate))((options, params), batch, limits_B)
