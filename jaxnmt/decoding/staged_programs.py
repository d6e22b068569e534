"""The programs of a search on one device: what they compute, and how they are compiled."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from jaxnmt.decoding.kept_programs import KeptFunction
from jaxnmt.decoding.refilling import Left, Rows, refill
from jaxnmt.decoding.search import Hypotheses, SearchOptions, advance, begin, is_full, lengthen, select

if TYPE_CHECKING:  # it imports flax
    from jaxnmt.models.encoder_decoder import Batch
    from jaxnmt.models.seq2seq import Seq2Seq


class Begun(NamedTuple):
    """A search that has begun.

    Attributes:
        done, open_B: as in `Beams`.
        state: what the programs pass to each other.
    """

    done: Hypotheses
    open_B: jax.Array
    state: Any


def widened(rows: Begun, others: Begun) -> Begun:
    """Return rows whose sources and caches are at least as long as those of others: padded with zeros, which nothing reads."""

    def pad(x: jax.Array, other: jax.Array) -> Any:
        missing = [(0, max(0, theirs - own)) for own, theirs in zip(x.shape, other.shape, strict=True)]
        return np.pad(np.asarray(x), missing) if any(more for _, more in missing) else x  # which compiles nothing

    return rows._replace(state=jax.tree.map(pad, rows.state, others.state))


class TracedPrograms:
    """The programs, traced by each process."""

    def __init__(self, model: Seq2Seq) -> None:
        self._begin = jax.jit(functools.partial(_begin, model), static_argnames="cache_length")
        self._rest = jax.jit(functools.partial(_rest, model))
        self._refill = jax.jit(functools.partial(_refill, model), static_argnames="cache_length")

    def begin(self, *args: Any, **static: Any) -> Begun:
        """Begin the search of a batch."""
        return self._of(self._begin(*args, **static))

    def rest(self, options: SearchOptions, params: Any, batch: Batch, state: Rows, keep_K: np.ndarray, **static: Any) -> Hypotheses:
        """Finish the search of a few sentences."""
        return self._rest(options, params, state, keep_K)

    def refill(self, options: SearchOptions, params: Any, batch: Batch, *args: Any, **static: Any) -> tuple[Left, Begun]:
        """Take steps."""
        left, rows = self._refill(options, params, *args, **static)
        return left, self._of(rows)

    @staticmethod
    def _of(rows: Rows) -> Begun:
        return Begun(rows.beams.done, rows.beams.open_B, rows)


class KeptPrograms:
    """The programs, kept on disk. What they pass to each other is a list, since only traced code knows the types of models."""

    def __init__(self, model: Seq2Seq, cache_key: tuple[object, ...]) -> None:
        self._begin, self._rest, self._refill = (
            KeptFunction(functools.partial(function, model), (name, *cache_key))
            for name, function in (("begin", _begin_list), ("rest", _rest_list), ("refill", _refill_list))
        )

    def begin(self, *args: Any, **static: Any) -> Begun:
        """Begin the search of a batch."""
        return self._of(self._begin(*args, **static))

    def rest(self, *args: Any, **static: Any) -> Hypotheses:
        """Finish the search of a few sentences."""
        return Hypotheses(*self._rest(*args, **static))

    def refill(self, *args: Any, **static: Any) -> tuple[Left, Begun]:
        """Take steps."""
        left, rows = self._refill(*args, **static)
        *done, numbers_B, outgrown_B = left
        return Left(Hypotheses(*done), numbers_B, outgrown_B), self._of(rows)

    @staticmethod
    def _of(rows: list[Any]) -> Begun:
        *done, open_B, state = rows
        return Begun(Hypotheses(*done), open_B, state)


def _begin(model: Seq2Seq, options: SearchOptions, params, batch: Batch, limits_B, numbers_B, *, cache_length: int) -> Rows:
    """Return the sentences of a batch after their first tokens."""
    memory, beams = begin(model, dataclasses.replace(options, max_length=cache_length), params, batch, limits_B)
    return Rows(memory, beams, limits_B, numbers_B)


def _rest(model: Seq2Seq, options: SearchOptions, params, rows: Rows, keep_K) -> Hypotheses:
    """Finish the search of the sentences `keep_K`."""
    memory, beams, limits_K, _ = select(rows, keep_K, len(rows.limits_B))
    return advance(model, options, params, memory, limits_K, lengthen(model, options, params, memory, beams)).done


def _refill(
    model: Seq2Seq, options: SearchOptions, params, rows: Rows, waiting: Rows, count, at_most, *, cache_length: int
) -> tuple[Left, Rows]:
    """Do what `refill` does. Without `options.refills`, nothing waits, and `count` is 0."""
    short = dataclasses.replace(options, max_length=cache_length)
    if options.refills:
        return refill(model, short, params, rows, waiting, count, at_most)
    beams = advance(model, short, params, rows.memory, rows.limits_B, rows.beams, at_most=at_most)
    return Left(beams.done, rows.numbers_B, is_full(short, beams)), rows._replace(beams=beams)


def _begin_list(model: Seq2Seq, *args, **static: Any) -> list[Any]:
    """Return what `_begin` finds, as a list without types of ours."""
    return _listed(_begin(model, *args, **static))


def _rest_list(model: Seq2Seq, options: SearchOptions, params, batch: Batch, state: list[Any], keep_K, **static: Any) -> list[Any]:
    """Return what `_rest` does, from the leaves that `_begin_list` returns."""
    (rows,) = _unlisted(model, options, params, batch, [state], **static)
    return [*_rest(model, options, params, rows, keep_K)]


def _refill_list(model: Seq2Seq, options: SearchOptions, params, batch: Batch, rows, waiting, *counts, **static: Any) -> list[Any]:
    """Return what `_refill` does, from the leaves that `_begin_list` returns, as two lists."""
    left, rows = _refill(model, options, params, *_unlisted(model, options, params, batch, [rows, waiting], **static), *counts, **static)
    return [[*left.done, left.numbers_B, left.outgrown_B], _listed(rows)]


def _listed(rows: Rows) -> list[Any]:
    return [*rows.beams.done, rows.beams.open_B, jax.tree.leaves(rows)]


def _unlisted(model: Seq2Seq, options: SearchOptions, params, batch: Batch, states: list[list[Any]], **static: Any) -> list[Rows]:
    """Return rows from their leaves."""
    of_sentence_B = jax.ShapeDtypeStruct(batch["encoder_input_tokens"].shape[:1], "int32")
    rows = jax.eval_shape(functools.partial(_begin, model, **static), options, params, batch, of_sentence_B, of_sentence_B)
    return [jax.tree.unflatten(jax.tree.structure(rows), state) for state in states]
