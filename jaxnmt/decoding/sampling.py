"""Draw the next token of each hypothesis at random: `decoding.temperature`.

The random numbers of a token depend on the seed, the source sentence or picture, the sample's number and the step. So a sample depends
neither on its batch nor on how many others are drawn, and equal sentences have equal samples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from jaxnmt import config as cfg
from jaxnmt.data.special_tokens import PAD
from jaxnmt.parallel.numbers import mix

if TYPE_CHECKING:
    from jaxnmt.models.encoder_decoder import Batch


_IMPLEMENTATION = "threefry2x32"


class Sampling(NamedTuple):
    """How tokens are drawn. Numbers are arguments of the compiled search; None leaves a rule out of it.

    A token must pass each of `top_k`, `top_p` and `epsilon`. They look at the probabilities before the temperature; the likeliest token
    always passes.

    Attributes:
        seed: of the random numbers.
        temperature: log-probabilities are divided by it.
        top_k: only the `top_k` likeliest tokens are drawn, and those as likely as the last of them.
        top_p: only the fewest of the likeliest tokens whose probabilities sum to at least `top_p` are drawn (Holtzman et al. 2020).
        epsilon: only tokens of at least this probability are drawn (Hewitt et al. 2022).
    """

    seed: int | jax.Array
    temperature: float | jax.Array
    top_k: int | jax.Array | None = None
    top_p: float | jax.Array | None = None
    epsilon: float | jax.Array | None = None


def of(decoding: cfg.Decoding) -> Sampling | None:
    """Return how to draw; None: the decoding is a search."""
    if not decoding.temperature:
        return None
    top_p = float(decoding.top_p) if decoding.top_p < 1 else None
    return Sampling(decoding.seed, float(decoding.temperature), decoding.top_k or None, top_p, float(decoding.epsilon) or None)


def keys(sampling: Sampling, batch: Batch, samples: int) -> jax.Array:
    """Return the key of each sample of each sentence, as data: a hash of the seed, the source and the sample's number.

    Args:
        sampling: has the seed.
        batch: its source is tokens (B, S), of an ensemble (B, S, M), of which the first member's count; or also vectors (B, ...).
        samples: how many of each sentence.

    Returns:
        uint32 (B, samples, 2).
    """
    source = batch["encoder_input_tokens"]
    source_BS = source if source.ndim == 2 else source[..., 0]
    fold = jax.vmap(jax.random.fold_in)

    def read(keys_B, token_B):
        return jnp.where(token_B == PAD, keys_B, fold(keys_B, token_B)), None

    of_seed_B = jnp.broadcast_to(jax.random.key(sampling.seed, impl=_IMPLEMENTATION), len(source_BS))
    of_sentence_B, _ = jax.lax.scan(read, of_seed_B, source_BS.T)
    if "encoder_input_vectors" in batch:
        of_sentence_B = fold(of_sentence_B, _hashes(batch["encoder_input_vectors"]))
    return jax.random.key_data(jax.vmap(fold, (None, 0), 1)(of_sentence_B, jnp.repeat(jnp.arange(samples)[:, None], len(source_BS), 1)))


def _hashes(vectors: jax.Array) -> jax.Array:
    """Return a hash of each row's numbers, uint32 (B,): a sum of integers, so that no order of adding changes it."""
    is_bytes = vectors.dtype == jnp.uint8
    bits = vectors.astype(jnp.uint32) if is_bytes else jax.lax.bitcast_convert_type(vectors.astype(jnp.float32), jnp.uint32)
    bits_BN = bits.reshape(len(vectors), -1)
    return mix(bits_BN ^ mix(jnp.arange(bits_BN.shape[1], dtype=jnp.uint32))).sum(1, dtype=jnp.uint32)


def draw(sampling: Sampling, keys_BW2: jax.Array, steps_B: jax.Array, log_probs_BWV: jax.Array) -> jax.Array:
    """Return a token for each sample (B, W), from log-probabilities (B, W, V), or (B, 1, V) for all samples of a sentence."""
    keys_BW = jax.random.wrap_key_data(keys_BW2, impl=_IMPLEMENTATION)
    log_p_BWV = jax.nn.log_softmax(log_probs_BWV)  # of the allowed tokens
    likeliest_BW1 = log_p_BWV.max(-1, keepdims=True)  # which stays finite at any temperature
    log_p_BWV = jnp.where(kept(sampling, log_p_BWV), log_p_BWV - likeliest_BW1, -jnp.inf) / sampling.temperature
    log_p_BWV = jnp.broadcast_to(log_p_BWV, (*keys_BW.shape, log_p_BWV.shape[-1]))
    one = lambda key, step, log_p_V: jax.random.categorical(jax.random.fold_in(key, step), log_p_V)  # noqa: E731
    return jax.vmap(jax.vmap(one, (0, None, 0)))(keys_BW, steps_B, log_p_BWV).astype(jnp.int32)


def kept(sampling: Sampling, log_p: jax.Array) -> jax.Array:
    """Return which tokens may be drawn, given log-probabilities (..., V): bool of the same shape."""
    keep = jnp.ones_like(log_p, bool)
    if sampling.epsilon is not None:
        keep = (log_p >= jnp.log(sampling.epsilon)) | (log_p == log_p.max(-1, keepdims=True))
    if sampling.top_k is not None:
        keep &= _likeliest(log_p, lambda some: some.sum(-1) >= sampling.top_k)
    if sampling.top_p is not None:
        probs = jnp.exp(log_p)
        keep &= _likeliest(log_p, lambda some: jnp.where(some, probs, 0).sum(-1) >= sampling.top_p)
    return keep


def _likeliest(log_p: jax.Array, enough: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """Return the fewest tokens (..., V), none likelier than one of them left out, that are `enough` (...); all if none are.

    It halves the range of the bits of -log p, whose order is that of the numbers, instead of sorting the vocabulary.
    """
    bits = jax.lax.bitcast_convert_type(jnp.abs(log_p), jnp.int32)

    def halve(_, bounds):
        low, high = bounds
        middle = low + (high - low) // 2
        reached = enough(bits <= middle[..., None])
        return jnp.where(reached, low, middle + 1), jnp.where(reached, middle, high)

    infinite = jnp.full(log_p.shape[:-1], jnp.float32(jnp.inf).view(jnp.int32))
    _, high = jax.lax.fori_loop(0, 31, halve, (jnp.zeros_like(infinite), infinite))
    return bits <= high[..., None]
