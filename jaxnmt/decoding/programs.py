"""Searches for many sentences, by compiled programs.

On one device there are three. The first encodes a batch and chooses its first tokens. The second takes steps, and the next batch takes the
places of sentences that are finished (`refilling`). If there is no next batch, it stops when only a quarter of the places are taken. Its
caches hold what most translations need. The third finishes a few sentences, with caches for the longest translation. This is faster because
a step computes all rows, finished or not, and reads all positions of the caches. On a mesh there is one program, in which each device
searches for its own sentences. Translations are the same; scores agree to rounding.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import itertools
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from jax.sharding import PartitionSpec

from jaxnmt.decoding.batches import ahead
from jaxnmt.decoding.refilling import Left
from jaxnmt.decoding.search import Hypotheses, SearchOptions, StepwiseSearch, search
from jaxnmt.decoding.staged_programs import Begun, KeptPrograms, TracedPrograms, widened
from jaxnmt.parallel.sharding import is_sharded, per_device, replicated, to_mesh

if TYPE_CHECKING:  # it imports flax
    from jaxnmt.models.encoder_decoder import Batch
    from jaxnmt.models.seq2seq import Seq2Seq

IN_FLIGHT = 2
"""Number of searches at a time. On a CPU, one computes where another has work for one core only; an accelerator need not wait for texts."""
FEWEST_HYPOTHESES = 64
"""Minimum number of hypotheses of a search that has a part of a batch. On a CPU, a product of 32 rows may take as long as one of 64."""
FEWEST_SENTENCES = 8
"""Minimum number of sentences in the third program. The second finishes a batch that is not larger."""
MARGIN = 8
"""The second program's caches hold three quarters of the padded source length plus this many tokens."""


class Group(NamedTuple):
    """Sentences to search for together.

    Attributes:
        options: of the search.
        batch, limits_B: as in `search.search`. Further rows than there are `numbers` are padding.
        numbers: by which the caller knows the sentences.
    """

    options: SearchOptions
    batch: Batch
    limits_B: np.ndarray
    numbers: list[int]

    @property
    def kind(self) -> tuple[int, int]:
        """What groups have in common whose sentences may be in one search."""
        widens = self.options.coverage_penalty is None  # the coverage of padding is 1, and what is padded later has zeros
        return len(self.limits_B), 0 if widens else self.width

    @property
    def width(self) -> int:
        """S, the length that the sources are padded to."""
        return self.batch["encoder_input_tokens"].shape[1]


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
        self._traced = TracedPrograms(model)
        self._kept = KeptPrograms(model, cache_key) if cache_key else None
        # Only on a CPU: an accelerator would wait for each row of a cache that is written at a position of its own.
        self._refills = jax.default_backend() == "cpu" and (bool(cache_key) or model.can_refill)

    def searches_of(self, hypotheses: int) -> int:
        """Return between how many searches a batch with this many hypotheses in all is divided.

        On a CPU that is `IN_FLIGHT` if each keeps enough of them, since larger searches do not fit its cache. Otherwise it is one.
        """
        return IN_FLIGHT if jax.default_backend() == "cpu" and hypotheses >= IN_FLIGHT * FEWEST_HYPOTHESES else 1

    def __call__(self, options: SearchOptions, params: Any, batch: Batch, limits_B: np.ndarray) -> Hypotheses:
        """Return what `search` returns, as NumPy arrays."""
        group = Group(options, batch, limits_B, [])
        begun = self._begin(params, group)
        return self._finish(params, group, self._refill(params, group, begun, begun, 0)[1])

    def start(self, options: SearchOptions, params: Any, batch: Batch, limits_B: np.ndarray) -> Callable[[], Hypotheses]:
        """Begin a search. Returns a function that waits for what `search` returns, as NumPy arrays."""
        return self._threads.submit(self, options, params, batch, limits_B).result

    def each(self, params: Any, groups: Iterable[Group]) -> Iterator[tuple[int, Hypotheses]]:
        """Search for all sentences of groups. Yields the number of each, and its W hypotheses as NumPy arrays, in any order.

        Args:
            params: the parameters.
            groups: their options differ in the maximum length at most, and their widths do not fall.
        """
        groups, taking, stopped = iter(groups), threading.Lock(), threading.Event()
        results: queue.SimpleQueue[tuple[int, Hypotheses] | None] = queue.SimpleQueue()

        def taken(first: Group) -> Iterator[Group]:
            yield first
            while not stopped.is_set():
                with taking:
                    if (group := next(groups, None)) is None:
                        return
                yield group

        def run(first: Group) -> None:
            try:
                for _, alike in itertools.groupby(taken(first), lambda group: group.kind):
                    for found in self._in_one_search(params, alike):
                        results.put(found)
            finally:
                stopped.set()  # there are no more groups, or this is an error
                results.put(None)

        searches = [self._threads.submit(run, first) for first in list(itertools.islice(groups, IN_FLIGHT))]
        try:
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
        begun = self._begin(params, group)
        self._refill(params, group, begun, begun, 0)
        self._rest(params, group, begun, np.arange(self._few(group)))

    def _in_one_search(self, params: Any, groups: Iterator[Group]) -> Iterator[tuple[int, Hypotheses]]:
        """Do what `each` does, in one search, for groups of one kind."""
        group, following = next(groups), next(groups, None)
        if following is None or not self._refills or len(group.limits_B) == 1:
            for each in itertools.chain([group], [following] if following else [], groups):
                yield from numbered(each.numbers, self(each.options, params, each.batch, each.limits_B))
            return
        places = {number: (group, row) for row, number in enumerate(group.numbers)}
        outgrown: list[tuple[Group, int]] = []

        def finished(left: Left) -> Iterator[tuple[int, Hypotheses]]:
            for number, found in numbered(left.numbers_B.tolist(), left):
                if number in places:
                    place = places.pop(number)
                    if found.outgrown_B:
                        outgrown.append(place)
                    else:
                        yield number, found.done

        rows = self._begin(params, group)
        for group in itertools.chain([following], groups):  # noqa: B020  the last group is used below
            places.update((number, (group, row)) for row, number in enumerate(group.numbers))
            waiting = self._begin(params, group)
            left, rows = self._refill(params, group, widened(rows, waiting), waiting, len(group.numbers))
            yield from finished(left)
        left, rows = self._refill(params, group, rows, rows, 0)
        yield from finished(left._replace(done=self._finish(params, group, rows)))
        for _, alike in itertools.groupby(outgrown, lambda place: place[0].width):
            for group in _regrouped([*alike]):
                yield from numbered(group.numbers, self(group.options, params, group.batch, group.limits_B))

    def _few(self, group: Group) -> int:
        """Return how many sentences the third program takes at a time."""
        B = len(group.limits_B)
        return min(B, max(FEWEST_SENTENCES, B // 4))

    def _programs(self, group: Group) -> tuple[TracedPrograms | KeptPrograms, SearchOptions, dict[str, int]]:
        """Return the programs, and the options that they are given."""
        few, S = self._few(group), group.width
        cache_length = (3 * S // 4 if len(group.limits_B) > few else S) + MARGIN  # longer if the third program is not to be needed
        # The functions of logit processors have no names that say what they compute.
        programs = self._kept if self._kept and not group.options.processors else self._traced
        options = dataclasses.replace(group.options, refills=self._refills)
        return programs, options, {"cache_length": min(cache_length, options.max_length)}

    def _begin(self, params: Any, group: Group) -> Begun:
        """Run the first program."""
        programs, options, static = self._programs(group)
        numbers_B: np.ndarray = np.full(len(group.limits_B), -1, np.int32)
        numbers_B[: len(group.numbers)] = group.numbers
        with self._starts:
            return programs.begin(options, params, group.batch, group.limits_B, numbers_B, **static)

    def _refill(self, params: Any, group: Group, rows: Begun, waiting: Begun, count: int) -> tuple[Left, Begun]:
        """Run the second program. Returns the sentences that have left, as NumPy arrays, and the rows."""
        programs, options, static = self._programs(group)
        few = self._few(group)
        at_most = few if len(group.limits_B) > few else 0
        with self._starts:
            left, rows = programs.refill(
                options, params, group.batch, rows.state, waiting.state, np.int32(count), np.int32(at_most), **static
            )
        return jax.tree.map(lambda x: x[: count or None], jax.device_get(left)), rows

    def _rest(self, params: Any, group: Group, rows: Begun, keep_K: np.ndarray) -> Hypotheses:
        """Run the third program for these rows."""
        programs, options, static = self._programs(group)
        with self._starts:
            return programs.rest(options, params, group.batch, rows.state, keep_K, **static)

    def _finish(self, params: Any, group: Group, rows: Begun) -> Hypotheses:
        """Return all hypotheses, those of open sentences by the third program."""
        found, open_B = jax.tree.map(np.array, jax.device_get((rows.done, rows.open_B)))
        missing = ((0, 0), (0, 0), (0, group.options.max_length - found.tokens_BWT.shape[2]))
        found = found._replace(tokens_BWT=np.pad(found.tokens_BWT, missing))
        places, few = np.flatnonzero(open_B), self._few(group)
        for start in range(0, len(places), few):
            some = places[start : start + few]
            keep: np.ndarray = np.resize(some, few)  # the last rows may be repeated, so that there is one size
            done = jax.device_get(self._rest(params, group, rows, keep))
            for all_B, some_K in zip(found, done, strict=True):
                all_B[some] = some_K[: len(some)]
        return found


def in_turn(begun: Iterator[tuple[list[int], Callable[[], Hypotheses]]]) -> Iterator[tuple[int, Hypotheses]]:
    """Yield what searches find, from the numbers of their sentences and the functions that wait for them."""
    for numbers, finish in ahead(begun, IN_FLIGHT - 1):
        yield from numbered(numbers, finish())


def numbered(numbers: Iterable[int], found: Any) -> Iterator[tuple[int, Any]]:
    """Yield each number, and the row of a pytree that has it."""
    for row, number in enumerate(numbers):
        yield number, jax.tree.map(lambda x, row=row: x[row], found)


def _regrouped(sentences: Sequence[tuple[Group, int]]) -> Iterator[Group]:
    """Yield groups of these sentences, each a row of its group."""
    rows = len(sentences[0][0].limits_B) if sentences else 1
    for start in range(0, len(sentences), rows):
        some = sentences[start : start + rows]
        filled = [*some, *[some[0]] * (rows - len(some))]
        batch = {name: np.stack([group.batch[name][row] for group, row in filled]) for name in some[0][0].batch}
        limits_B: np.ndarray = np.ones(rows, np.int32)
        limits_B[: len(some)] = [group.limits_B[row] for group, row in some]
        yield Group(some[0][0].options, batch, limits_B, [group.numbers[row] for group, row in some])


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
