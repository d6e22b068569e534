"""Searches for many sentences, by compiled programs.

On one device there are two. The first takes a batch and makes steps. Its sentences take the places of those that are finished
(`refilling`). If there is no next batch, it stops when only a quarter of the places are taken. Its caches hold what most translations need.
The second finishes a few sentences, with caches for the longest translation. This is faster because a step computes all rows, finished or
not, and reads all positions of the caches. On a mesh there is one program, in which each device searches for its own sentences.
Translations are the same; scores agree to rounding.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import functools
import itertools
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from jax.sharding import PartitionSpec

from jaxnmt.decoding import penalties
from jaxnmt.decoding.batches import Group, ahead, regrouped
from jaxnmt.decoding.refilling import Found
from jaxnmt.decoding.search import Hypotheses, SearchOptions, StepwiseSearch, search
from jaxnmt.decoding.staged_programs import Programs, Taken
from jaxnmt.parallel.sharding import is_sharded, per_device, replicated, to_mesh

if TYPE_CHECKING:  # it imports flax
    from jaxnmt.models.encoder_decoder import Batch
    from jaxnmt.models.seq2seq import Seq2Seq

IN_FLIGHT = 2
"""Number of searches at a time. On a CPU, one computes where another has work for one core only; an accelerator need not wait for texts."""
FEWEST_HYPOTHESES = 64
"""Minimum number of hypotheses of a search that has a part of a batch. On a CPU, a product of 32 rows may take as long as one of 64."""
FEWEST_SENTENCES = 8
"""Minimum number of sentences in the second program. The first finishes a batch that is not larger."""
MARGIN = 8
"""The first program's caches hold as many tokens as the padded source and the prefix have, and this many more."""


class StagedSearch:
    """`search.search` for one model on one device."""

    def __init__(self, model: Seq2Seq, cache_key: tuple[object, ...] = ()) -> None:
        """Make a search.

        Args:
            model: is not used if its programs are kept.
            cache_key: identifies the model in the cache of traced programs (`KeptFunction`); empty: its programs are not cached. Models of
                users have none.
        """
        # A thread for each batch in flight: XLA's CPU backend runs what one thread starts one after the other.
        self._threads = concurrent.futures.ThreadPoolExecutor(IN_FLIGHT)
        self._starts = threading.Lock()  # so that a program is compiled once
        self._traced = Programs(model)
        self._kept = Programs(model, cache_key) if cache_key else None
        # Only on a CPU: an accelerator would wait for each row of a cache that is written at a position of its own.
        self._refills = jax.default_backend() == "cpu" and (bool(cache_key) or model.can_refill)

    def searches_of(self, hypotheses: int) -> int:
        """Return between how many searches a batch with this many hypotheses in all is divided.

        On a CPU that is `IN_FLIGHT` if each keeps enough of them, since larger searches do not fit its cache. Otherwise it is one.
        """
        return IN_FLIGHT if jax.default_backend() == "cpu" and hypotheses >= IN_FLIGHT * FEWEST_HYPOTHESES else 1

    def __call__(self, options: SearchOptions, params: Any, batch: Batch, limits_B: np.ndarray) -> Hypotheses:
        """Return what `search` returns, as NumPy arrays."""
        group = Group(options, batch, limits_B, [*range(len(limits_B))])
        _, found = zip(*sorted(self._in_one_search(params, [group]), key=lambda each: each[0]), strict=True)
        return jax.tree.map(lambda *sentences: np.stack(sentences), *found)

    def start(self, options: SearchOptions, params: Any, batch: Batch, limits_B: np.ndarray) -> Callable[[], Hypotheses]:
        """Begin a search. Returns a function that waits for what `search` returns, as NumPy arrays."""
        return self._threads.submit(self, options, params, batch, limits_B).result

    def each(self, params: Any, groups: Iterable[Group]) -> Iterator[tuple[int, Hypotheses]]:
        """Search for all sentences of groups. Yields the number of each, and its W hypotheses as NumPy arrays, in any order.

        Args:
            params: the parameters.
            groups: their options differ in the maximum length at most.
        """
        groups = (group for group in groups if group.numbers)
        first_ones = [*itertools.islice(groups, IN_FLIGHT)]
        if len(first_ones) == 1:  # a thread takes longer to start than a short sentence waits
            yield from self._in_one_search(params, itertools.chain(first_ones, groups))
            return
        taking, stopped, results = threading.Lock(), threading.Event(), queue.SimpleQueue[tuple[int, Hypotheses] | None]()
        # There and back, since each group may be longer than the one before: so all searches have as many tokens.
        order = itertools.cycle((*range(IN_FLIGHT), *reversed(range(IN_FLIGHT))))
        turns = zip(order, itertools.chain(first_ones, groups), strict=False)
        queues: list[collections.deque[Group]] = [collections.deque() for _ in range(IN_FLIGHT)]

        def taken(search: int) -> Iterator[Group]:
            """Yield the groups whose turn it is, so that a sentence is searched for with the same others each time."""
            while not stopped.is_set():
                with taking:
                    while not queues[search]:
                        if (turn := next(turns, None)) is None:
                            return
                        queues[turn[0]].append(turn[1])
                    group = queues[search].popleft()
                yield group

        def run(search: int) -> None:
            try:
                for found in self._in_one_search(params, taken(search)):
                    if stopped.is_set():
                        return
                    results.put(found)
            except BaseException:
                stopped.set()
                raise
            finally:
                results.put(None)

        with concurrent.futures.ThreadPoolExecutor(IN_FLIGHT) as threads:
            try:
                searches = [threads.submit(run, search) for search in range(IN_FLIGHT)]
                for _ in searches:
                    yield from iter(results.get, None)
                for one in searches:
                    one.result()
            finally:
                stopped.set()

    def warm(self, options: SearchOptions, params: Any, batch: Batch) -> None:
        """Compile all programs for batches of this shape."""
        limits_B: np.ndarray = np.ones(len(batch["encoder_input_tokens"]), np.int32)  # the search ends with the first token
        group = Group(options, batch, limits_B, [])
        taken = self._take(params, [], group, [], is_last=True)
        self._rest(params, group, taken.state, np.arange(self._few(group)))

    def _in_one_search(self, params: Any, groups: Iterable[Group]) -> Iterator[tuple[int, Hypotheses]]:
        """Do what `each` does, in one search at a time."""
        places: dict[int, tuple[Group, int]] = {}
        outgrown: list[tuple[Group, int]] = []
        state: list[Any] = []
        numbers = itertools.count(1)  # rows without a sentence have 0

        def finished(found: Found) -> Iterator[tuple[int, Hypotheses]]:
            for number, (hypotheses, _, is_open) in numbered(found.numbers_B.tolist(), found):
                if number in places:
                    group, row = places.pop(number)
                    if is_open:
                        outgrown.append((group, row))
                    else:
                        yield group.numbers[row], hypotheses

        for group, following in itertools.pairwise(itertools.chain(groups, [None])):
            assert group is not None  # only the last `following` is
            own = [*itertools.islice(numbers, len(group.numbers))]
            places.update((number, (group, row)) for row, number in enumerate(own))
            is_last = following is None or not self._can_refill(group) or not following.may_follow(group)
            left, stayed, state = self._take(params, state, group, own, is_last)
            yield from finished(left)
            if is_last:
                yield from finished(self._finish(params, group, stayed, state))
                state = []
        for _, alike in itertools.groupby(outgrown, lambda place: place[0].width):
            for group in regrouped([*alike]):
                yield from self._in_one_search(params, [group])  # alone, a group outgrows nothing

    def _few(self, group: Group) -> int:
        """Return how many sentences the second program takes at a time."""
        B = len(group.limits_B)
        return min(B, max(FEWEST_SENTENCES, B // 4))

    def _programs(self, group: Group) -> tuple[Programs, SearchOptions, dict[str, int]]:
        """Return the programs, and the options that they are given."""
        prefix = group.batch["prefix"].shape[1] if "prefix" in group.batch else 0
        options = dataclasses.replace(group.options, refills=self._can_refill(group))
        # The functions of logit processors have no names that say what they compute.
        programs = self._kept if self._kept and not group.options.processors else self._traced
        return programs, options, {"cache_length": min(group.width + prefix + MARGIN, options.max_length)}

    def _can_refill(self, group: Group) -> bool:
        """Return whether sentences of a batch may begin while others go on: a user's processor is called with one length for all."""
        return self._refills and len(group.limits_B) > 1 and all(process.func in penalties.OWN for process in group.options.processors)

    def _take(self, params: Any, state: list[Any], group: Group, numbers: list[int], is_last: bool) -> Taken:
        """Run the first program, until few sentences are open if no group follows. Returns NumPy arrays, and the state."""
        programs, options, static = self._programs(group)
        B, few, count = len(group.limits_B), self._few(group), len(numbers)
        at_most = B if not is_last else few if B > few else 0
        numbers_B: np.ndarray = np.zeros(B, np.int32)
        numbers_B[:count] = numbers
        with self._starts:
            left, stayed, state = programs.take(
                state, options, params, group.batch, group.limits_B, numbers_B, np.int32(count), np.int32(at_most), **static
            )
        left, stayed = jax.device_get((left, stayed))
        left = jax.tree.map(lambda x: x[:count], left)
        return Taken(left._replace(done=_lengthened(left.done, options)), stayed, state)

    def _rest(self, params: Any, group: Group, state: list[Any], keep_K: np.ndarray) -> Hypotheses:
        """Run the second program for these rows."""
        programs, options, static = self._programs(group)
        with self._starts:
            return programs.rest(state, options, params, group.batch, keep_K, **static)

    def _finish(self, params: Any, group: Group, found: Found, state: list[Any]) -> Found:
        """Return what is found for all rows, for open sentences by the second program."""
        done, open_B = jax.tree.map(np.array, (found.done, found.open_B))
        done = _lengthened(done, group.options)
        places, few = np.flatnonzero(open_B), self._few(group)
        for start in range(0, len(places), few):
            some = places[start : start + few]
            keep: np.ndarray = np.resize(some, few)  # the last rows may be repeated, so that there is one size
            finished = jax.device_get(self._rest(params, group, state, keep))
            for all_B, some_K in zip(done, finished, strict=True):
                all_B[some] = some_K[: len(some)]
        return found._replace(done=done, open_B=np.zeros_like(open_B))


def in_turn(begun: Iterator[tuple[list[int], Callable[[], Hypotheses]]]) -> Iterator[tuple[int, Hypotheses]]:
    """Yield what searches find, from the numbers of their sentences and the functions that wait for them."""
    for numbers, finish in ahead(begun, IN_FLIGHT - 1):
        yield from numbered(numbers, finish())


def numbered(numbers: Iterable[int], found: Any) -> Iterator[tuple[int, Any]]:
    """Yield each number, and the row of a pytree that has it."""
    for row, number in enumerate(numbers):
        yield number, jax.tree.map(lambda x, row=row: x[row], found)


def _lengthened(done: Hypotheses, options: SearchOptions) -> Hypotheses:
    """Return hypotheses whose tokens have the length that a search returns."""
    tokens_BWT: np.ndarray = np.zeros((*done.tokens_BWT.shape[:2], options.max_length), np.int32)
    tokens_BWT[..., : done.tokens_BWT.shape[2]] = done.tokens_BWT
    return done._replace(tokens_BWT=tokens_BWT)


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

    def each(self, params: Any, groups: Iterable[Group]) -> Iterator[tuple[int, Hypotheses]]:
        """Search for all sentences of groups. Yields the number of each, and its W hypotheses as NumPy arrays."""
        return in_turn((group.numbers, self.start(group.options, params, group.batch, group.limits_B)) for group in groups)

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
