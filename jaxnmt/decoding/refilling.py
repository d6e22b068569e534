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


class Found(NamedTuple):
    """What has been found for some sentences.

    Attributes:
        done: as in `Beams`.
        numbers_B: as in `Rows`.
        open_B: whether the search is not finished.
    """

    done: Hypotheses
    numbers_B: jax.Array
    open_B: jax.Array

    @staticmethod
    def of(rows: Rows) -> Found:
        """Return what has been found for the sentences of rows."""
        return Found(rows.beams.done, rows.numbers_B, rows.beams.open_B)


def refill(
    model: Seq2Seq, options: SearchOptions, params: Any, rows: Rows, waiting: Rows, count: jax.Array, at_most: jax.Array
) -> tuple[Found, Rows]:
    """Take steps until the first `count` waiting sentences have places and at most `at_most` sentences are open.

    A sentence takes the place of one that is finished, or whose hypotheses have filled the caches. If no sentence waits, and the hypotheses
    of one have filled the caches, no more steps are taken.

    Returns:
        What has been found for the sentences that have left their places, in the first `count` rows; and the rows.
    """

    def is_free(rows: Rows) -> jax.Array:
        return ~rows.beams.open_B | is_full(options, rows.beams)

    def exchange(state: tuple[Rows, Found, jax.Array]) -> tuple[Rows, Found, jax.Array]:
        rows, left, n = state
        place = jnp.argmax(is_free(rows))
        left = _put(left, n, _take(Found.of(rows), place, B), B)
        return _put(rows, place, _take(waiting, n, B), B), left, n + 1

    def exchange_all(state: tuple[Rows, Found, jax.Array]) -> tuple[Rows, Found, jax.Array]:
        return jax.lax.while_loop(lambda state: is_free(state[0]).any() & (state[2] < count), exchange, state)

    def goes_on(state: tuple[Rows, Found, jax.Array]) -> jax.Array:
        (_, beams, *_), _, n = state
        return (n < count) | ((beams.open_B.sum() > at_most) & ~is_full(options, beams).any())

    def advance(state: tuple[Rows, Found, jax.Array]) -> tuple[Rows, Found, jax.Array]:
        rows, *others = state
        beams = step(model, options, params, rows.memory, rows.limits_B, rows.beams)
        return exchange_all((rows._replace(beams=beams), *others))

    B = len(rows.limits_B)
    rows, left, _ = jax.lax.while_loop(goes_on, advance, exchange_all((rows, Found.of(rows), jnp.zeros_like(count))))
    return left, rows


def _take(tree: Any, sentence: jax.Array, sentences: int) -> Any:
    """Return one sentence of a pytree whose leaves lead with `sentences` x the same number of rows: (1, rows of a sentence, ...)."""
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x.reshape(sentences, -1, *x.shape[1:]), sentence, 0), tree)


def _put(tree: Any, sentence: jax.Array, new: Any, sentences: int) -> Any:
    """Return a pytree in which one sentence is what `_take` has returned."""

    def put(x: jax.Array, new: jax.Array) -> jax.Array:
        by_sentence = x.reshape(sentences, -1, *x.shape[1:])
        return jax.lax.dynamic_update_index_in_dim(by_sentence, new, sentence, 0).reshape(x.shape)

    return jax.tree.map(put, tree, new)
