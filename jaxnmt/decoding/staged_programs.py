"""The two programs of a search on one device: what they compute, and how they are compiled."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnmt.data.special_tokens import PAD
from jaxnmt.decoding.kept_programs import KeptFunction, KeptTypes
from jaxnmt.decoding.refilling import Found, Rows, refill
from jaxnmt.decoding.search import Hypotheses, SearchOptions, advance, first, lengthen, select

if TYPE_CHECKING:  # it imports flax
    from jaxnmt.models.encoder_decoder import Batch
    from jaxnmt.models.seq2seq import Seq2Seq


class Taken(NamedTuple):
    """What a search has found after it has taken a batch.

    Attributes:
        left: for the sentences that have left their places.
        stayed: for those that have places.
        state: what the programs pass to each other: a list, since only traced code knows the types of models.
    """

    left: Found
    stayed: Found
    state: list[Any]


class Programs:
    """The programs. Both take the options, the parameters and the batch that was taken last, and know from them what the state is."""

    def __init__(self, model: Seq2Seq, cache_key: tuple[object, ...] = ()) -> None:
        """Make the programs. They are kept on disk if there is a `cache_key`, see `KeptFunction`."""
        take, rest, types = (functools.partial(function, model) for function in (_take, _rest, _types))
        if cache_key:
            self._take, self._rest = KeptFunction(take, ("take", *cache_key), donates=1), KeptFunction(rest, ("rest", *cache_key))
        else:
            self._take = jax.jit(take, static_argnames="cache_length", donate_argnums=0)
            self._rest = jax.jit(rest, static_argnames="cache_length")
        self._types = KeptTypes(types, cache_key and ("state", *cache_key))

    def take(self, state: list[Any], options: SearchOptions, params: Any, batch: Batch, *args: Any, cache_length: int) -> Taken:
        """Begin to search for the sentences of a batch, and take steps. For the other arguments see `_take`.

        Args:
            state: of the search that these sentences join; empty: no sentence has a place. It is donated.
        """
        if options.refills:
            types = self._types(options, params, batch, cache_length=cache_length)
            state = [_widened(*each) for each in zip(state, types, strict=True)] if state else [np.zeros(x.shape, x.dtype) for x in types]
            # JAX compiles again if an argument is committed to a device and was not before. So the whole state always is.
            state = [jax.device_put(x, _device_of(params)) if isinstance(x, np.ndarray) else x for x in state]
        left, stayed, state = self._take(state, options, params, batch, *args, cache_length=cache_length)
        return Taken(_found(left), _found(stayed), state)

    def rest(
        self, state: list[Any], options: SearchOptions, params: Any, batch: Batch, keep_K: np.ndarray, *, cache_length: int
    ) -> Hypotheses:
        """Finish the search of the sentences `keep_K`."""
        return Hypotheses(*self._rest(state, options, params, batch, keep_K, cache_length=cache_length))


def _widened(x: jax.Array, wanted: jax.ShapeDtypeStruct) -> Any:
    """Return an array of this shape, padded with zeros, which nothing reads: for sources and hypotheses that may be longer."""
    missing = [(0, new - old) for old, new in zip(x.shape, wanted.shape, strict=True)]
    return np.pad(np.asarray(x), missing) if any(more for _, more in missing) else x  # which compiles nothing


def _device_of(params: Any) -> jax.Device:
    """Return the device that parameters lie on; of NumPy arrays, the default one."""
    devices = getattr(jax.tree.leaves(params)[0], "devices", None)
    return next(iter(devices())) if devices else jax.devices()[0]


def _found(leaves: list[Any]) -> Found:
    *done, numbers_B, open_B = leaves
    return Found(Hypotheses(*done), numbers_B, open_B)


def _take(
    model: Seq2Seq,
    state: list[Any],
    options: SearchOptions,
    params,
    batch: Batch,
    limits_B,
    numbers_B,
    count,
    at_most,
    *,
    cache_length: int,
) -> tuple[list[Any], list[Any], list[Any]]:
    """Begin to search for the sentences of a batch, and take steps until at most `at_most` sentences are open, or one fills the caches.

    With `options.refills`, the first `count` sentences take places of others, as in `refill`.

    Returns:
        The leaves of what has been found for sentences that have left, of what has been found for those that have places, and of the state.
    """
    waiting = _begun(model, options, params, batch, limits_B, numbers_B, cache_length=cache_length)
    short = dataclasses.replace(options, max_length=cache_length)
    if options.refills:
        left, rows = refill(model, short, params, jax.tree.unflatten(jax.tree.structure(waiting), state), waiting, count, at_most)
    else:
        rows = waiting._replace(beams=advance(model, short, params, waiting.memory, limits_B, waiting.beams, at_most=at_most))
        left = jax.tree.map(lambda x: x[:0], Found.of(rows))
    return jax.tree.leaves(left), jax.tree.leaves(Found.of(rows)), [jax.lax.convert_element_type(x, x.dtype) for x in jax.tree.leaves(rows)]


def _rest(model: Seq2Seq, state: list[Any], options: SearchOptions, params, batch: Batch, keep_K, *, cache_length: int) -> list[Any]:
    """Return the leaves of what a search finds for the sentences `keep_K`."""
    rows = jax.tree.unflatten(jax.tree.structure(_abstract(model, options, params, batch, cache_length=cache_length)), state)
    memory, beams, limits_K, _ = select(rows, keep_K, len(rows.limits_B))
    return [*advance(model, options, params, memory, limits_K, lengthen(model, options, params, memory, beams)).done]


def _types(model: Seq2Seq, options: SearchOptions, params, batch: Batch, *, cache_length: int) -> list[jax.ShapeDtypeStruct]:
    """Return the types of the state."""
    rows = _abstract(model, options, params, batch, cache_length=cache_length)
    return [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in jax.tree.leaves(rows)]


def _abstract(model: Seq2Seq, options: SearchOptions, params, batch: Batch, *, cache_length: int) -> Rows:
    """Return the rows of a search as types."""
    of_sentence_B = jax.ShapeDtypeStruct(batch["encoder_input_tokens"].shape[:1], "int32")
    return jax.eval_shape(functools.partial(_begun, model, cache_length=cache_length), options, params, batch, of_sentence_B, of_sentence_B)


def _begun(model: Seq2Seq, options: SearchOptions, params, batch: Batch, limits_B, numbers_B, *, cache_length: int) -> Rows:
    """Return the sentences of a batch after their first tokens."""
    memory = _encoded(model, params, batch) if options.refills else model.encode(params, batch)
    short = dataclasses.replace(options, max_length=cache_length)
    return Rows(memory, first(model, short, params, memory, batch, limits_B), limits_B, numbers_B)


def _encoded(model: Seq2Seq, params, batch: Batch) -> Any:
    """Return the memory of a batch. The encoder reads three quarters of its width if no source is longer: the rest is padding."""
    tokens_BS = batch["encoder_input_tokens"]
    if tokens_BS.shape[1] % 4 or "encoder_input_vectors" in batch:
        return model.encode(params, batch)
    width = tokens_BS.shape[1] * 3 // 4
    whole = jax.eval_shape(model.encode, params, batch)

    def narrow() -> Any:
        memory = model.encode(params, batch | {"encoder_input_tokens": tokens_BS[:, :width]})
        return jax.tree.map(
            lambda x, like: jnp.pad(x, [(0, own - new) for new, own in zip(x.shape, like.shape, strict=True)]), memory, whole
        )

    return jax.lax.cond((tokens_BS[:, width:] == PAD).all(), narrow, lambda: model.encode(params, batch))
