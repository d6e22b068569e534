"""A search that puts the next sentence in the place of one that is finished, so that every step is computed for sentences that need it.

Sentences of a batch differ in length, so that without this a sixth to a quarter of the rows that a search computes are of finished ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnmt.decoding.search import Beams, Hypotheses, SearchOptions, is_full, step

if TYPE_CHECKING:  # it imports flax
    from jaxnmt.models.seq2seq import Seq2Seq


class Rows(NamedTuple):
    """Sentences that are searched for together.

    Attributes:
        memory, beams: what `search.begin` returns, with `SearchOptions.refills`.
        limits_B: as in `search.search`.
        numbers_B: int32, by which the caller knows each sentence.
    """

    memory: Any
    beams: Beams
    limits_B: jax.Array
    numbers_B: jax.Array


class Left(NamedTuple):
    """Sentences that have left their places.

    Attributes:
        done: as in `Beams`.
        numbers_B: as in `Rows`.
        outgrown_B: whether the search is not finished, since its hypotheses have filled the caches.
    """

    done: Hypotheses
    numbers_B: jax.Array
    outgrown_B: jax.Array


def refill(
    model: Seq2Seq, options: SearchOptions, params: Any, rows: Rows, waiting: Rows, count: jax.Array, at_most: jax.Array
) -> tuple[Left, Rows]:
    """Take steps until the first `count` waiting sentences have places. Each takes the place of a sentence that is finished or outgrown.

    If `count` is 0, take steps until at most `at_most` sentences are open, or the hypotheses of one have filled the caches. Sentences that
    are outgrown at the beginning are then closed.

    Returns:
        The sentences that have left, in the first `count` rows, or, if `count` is 0, what `rows` are at the beginning; and the rows.
    """
    left = _left(options, rows)
    is_open_B = rows.beams.open_B & ((count > 0) | ~left.outgrown_B)
    rows = rows._replace(beams=rows.beams._replace(open_B=is_open_B))

    def is_free(rows: Rows) -> jax.Array:
        return ~rows.beams.open_B | is_full(options, rows.beams)

    def exchange(state: tuple[Rows, Left, jax.Array]) -> tuple[Rows, Left, jax.Array]:
        rows, left, n = state
        place = jnp.argmax(is_free(rows))
        left = _put(left, n, _take(_left(options, rows), place, B), B)
        return _put(rows, place, _take(waiting, n, B), B), left, n + 1

    def exchange_all(state: tuple[Rows, Left, jax.Array]) -> tuple[Rows, Left, jax.Array]:
        return jax.lax.while_loop(lambda state: is_free(state[0]).any() & (state[2] < count), exchange, state)

    def goes_on(state: tuple[Rows, Left, jax.Array]) -> jax.Array:
        (_, beams, *_), _, n = state
        is_draining = (beams.open_B.sum() > at_most) & ~is_full(options, beams).any()
        return jnp.where(count > 0, n < count, is_draining)

    def advance(state: tuple[Rows, Left, jax.Array]) -> tuple[Rows, Left, jax.Array]:
        rows, *others = state
        beams = step(model, options, params, rows.memory, rows.limits_B, rows.beams)
        return exchange_all((rows._replace(beams=beams), *others))

    B = len(rows.limits_B)
    rows, left, _ = jax.lax.while_loop(goes_on, advance, exchange_all((rows, left, jnp.zeros_like(count))))
    return left, rows


def _left(options: SearchOptions, rows: Rows) -> Left:
    return Left(rows.beams.done, rows.numbers_B, is_full(options, rows.beams))


def _take(tree: Any, sentence: jax.Array, sentences: int) -> Any:
    """Return one sentence of a pytree whose leaves lead with `sentences` x the same number of rows: (1, rows of a sentence, ...)."""
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x.reshape(sentences, -1, *x.shape[1:]), sentence, 0), tree)


def _put(tree: Any, sentence: jax.Array, new: Any, sentences: int) -> Any:
    """Return a pytree in which one sentence is what `_take` has returned."""

    def put(x: jax.Array, new: jax.Array) -> jax.Array:
        by_sentence = x.reshape(sentences, -1, *x.shape[1:])
        return jax.lax.dynamic_update_index_in_dim(by_sentence, new, sentence, 0).reshape(x.shape)

    return jax.tree.map(put, tree, new)
