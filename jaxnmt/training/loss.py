"""Compute label-smoothed cross-entropy as sums and counts. The caller divides once, over all devices."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxnmt.models.encoder_decoder import Batch
from jaxnmt.models.layers import DropoutKey, at_least_float32
from jaxnmt.models.linear import transposed
from jaxnmt.models.seq2seq import Seq2Seq
from jaxnmt.parallel.numbers import reduce_in_parts
from jaxnmt.parallel.platform import platform_of
from jaxnmt.parallel.sharding import constrain, is_replicated, num_shards

CHUNK_TOKENS = 512
"""The least tokens of a device that go through the output layer at a time: their logits fit into a CPU's cache."""


class LossSums(NamedTuple):
    """Sums over the target tokens of a batch, float32 scalars.

    Attributes:
        loss: label-smoothed cross-entropy, in nats (Szegedy et al. 2016, section 7), and what modules add to it (`Seq2Seq.with_losses`).
            Training minimises it.
        nll: negative log-likelihood of the reference, in nats. Perplexity is exp(nll / tokens).
        tokens: number of target tokens, each as often as its weight says.
        correct: of these, the tokens that the model finds most probable.
    """

    loss: jax.Array
    nll: jax.Array
    tokens: jax.Array
    correct: jax.Array


def batch_loss(model: Seq2Seq, params, batch: Batch, noise: DropoutKey | None, label_smoothing: float) -> LossSums:
    """Return the loss sums of a teacher-forced pass over a batch. Differentiate `.loss`."""
    memory = model.encode(params, batch, noise)
    if model.has_loss:
        return LossSums(*map(jnp.float32, model.apply(params, "loss", memory, batch, label_smoothing)))
    targets_BT, weights_BT = batch["decoder_target_tokens"], batch["decoder_loss_weights"]
    if model.has_features:
        features_BTD, others = model.with_losses("features", params, memory, batch, noise)
        table_VD, bias_V = model.output_table(params), model.output_bias(params)
        loss, nll, correct = projected_cross_entropy(
            features_BTD, table_VD, targets_BT, weights_BT, model.target_vocab, label_smoothing, model.mesh, bias_V
        )
    else:
        logits_BTV, others = model.with_losses("decode", params, memory, batch, noise)
        loss, nll, correct = cross_entropy(logits_BTV[..., : model.target_vocab], targets_BT, weights_BT, label_smoothing)
    for loss_BT in others:
        loss += (loss_BT * weights_BT).sum()
    return LossSums(loss, nll, weights_BT.sum(), correct)


def cross_entropy(logits_BTV, targets_BT, weights_BT, label_smoothing: float) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return weighted sums of the label-smoothed loss, of the negative log-likelihood, and of ones where the target is the most probable.

    Smoothing is uniform over all V tokens.
    """
    log_p = jax.nn.log_softmax(logits_BTV.astype(at_least_float32(logits_BTV.dtype)))
    nll_BT = -jnp.take_along_axis(log_p, targets_BT[..., None], -1)[..., 0]
    loss_BT = (1 - label_smoothing) * nll_BT - label_smoothing * log_p.mean(-1)
    right_BT = -nll_BT == log_p.max(-1)
    return (loss_BT * weights_BT).sum(), (nll_BT * weights_BT).sum(), (right_BT * weights_BT).sum()


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def projected_cross_entropy(
    features_BTD, table_VD, targets_BT, weights_BT, vocab: int, label_smoothing: float, mesh: Mesh | None = None, bias_V=None
):
    """Return `cross_entropy` of `features @ table.T + bias`; the product is in the features' dtype.

    It is computed in chunks of positions, so that all logits never exist at once.

    The forward pass computes the gradient, too, while it has the softmax of a chunk: no softmax is stored or computed twice. Only the
    first output, the loss, is differentiable.

    Args:
        vocab: rows of the table from here on are padding.
        mesh: that the arrays lie on; None: one device.
        bias_V: added to the logits; None: no bias.
    """
    # The compiler removes the gradient.
    return _forward(features_BTD, table_VD, targets_BT, weights_BT, vocab, label_smoothing, mesh, bias_V)[0]


def chunk_tokens(vocab: int, mesh: Mesh | None) -> int:
    """Return the tokens of a device that go through the output layer at a time."""
    return max(CHUNK_TOKENS, platform_of(mesh).logits // vocab)


def _split(features_BTD, targets_BT, weights_BT, vocab: int, mesh: Mesh | None):
    """Split the positions of a batch into chunks.

    If a device has the whole batch, and may choose, positions with weight come first, and chunks of padding are never computed. Otherwise
    rows stay on their devices: the target axis is split instead, and padded to a multiple of the chunk length.

    Returns:
        The three arrays in chunks, which their first axis counts; the number of chunks that have positions with weight; and a function that
        returns an array in chunks, such as the features, in the shape (B, T, D) of the batch.
    """
    rows, length = targets_BT.shape
    if is_replicated("B", mesh) and platform_of(mesh).branches:
        total = rows * length
        size = min(chunk_tokens(vocab, mesh), total)
        counts_N = jnp.asarray(weights_BT).reshape(-1) != 0
        number = counts_N.sum()
        ranks_N = jnp.where(counts_N, counts_N.cumsum() - 1, number + (~counts_N).cumsum() - 1)
        places = jnp.full(-(-total // size) * size, total).at[ranks_N].set(jnp.arange(total)).reshape(-1, 1, size)
        used = (number + size - 1) // size
        split = lambda x: jnp.asarray(x).reshape(total, *x.shape[2:]).at[places].get(mode="fill", fill_value=0)  # noqa: E731
        join = lambda x: x.reshape(-1, x.shape[-1])[ranks_N].reshape(rows, length, -1)  # noqa: E731
    else:
        used = -(-length // max(1, chunk_tokens(vocab, mesh) * num_shards("B", mesh) // rows))
        size = -(-length // used)
        pad = lambda x: jnp.pad(x, ((0, 0), (0, used * size - length)) + ((0, 0),) * (x.ndim - 2))  # noqa: E731
        split = lambda x: jnp.moveaxis(pad(x).reshape(rows, used, size, *x.shape[2:]), 1, 0)  # noqa: E731
        join = lambda x: jnp.moveaxis(x, 0, 1).reshape(rows, -1, x.shape[-1])[:, :length]  # noqa: E731
    return [split(x) for x in (features_BTD, targets_BT, weights_BT)], used, join


def _chunk(x_BTD, targets_BT, weights_BT, table_VD, bias_V, mean, vocab: int, label_smoothing: float, mesh: Mesh | None, by_columns: bool):
    """Return the sums of loss, nll and right answers of a chunk, and the gradients of its features, of the table and of the bias.

    The latter two are (parts, V, D) and (parts, V): each part of the rows has its own. Without a bias, its gradient is None.

    Args:
        mean: result of `_mean`: reduce the logits in parts, and compute their mean without reading them. None: leave both to the compiler.
        by_columns: return the gradient of the table as (1, D, V); only for one part.
    """
    parts = num_shards("B", mesh)
    dtype, is_word_V = at_least_float32(x_BTD.dtype), jnp.arange(table_VD.shape[0]) < vocab
    logits_BTV = jnp.einsum("BTD,VD->BTV", x_BTD, table_VD, preferred_element_type=dtype)
    if bias_V is not None:
        logits_BTV += bias_V
    wanted_BT = jnp.take_along_axis(logits_BTV, targets_BT[..., None], -1)[..., 0]
    words_BTV = jnp.where(is_word_V, logits_BTV, -1e9) if mean is None else logits_BTV[..., :vocab]
    part = reduce_in_parts if mean else lambda _, x: x
    top_BT1 = part(jnp.maximum, words_BTV).max(-1, keepdims=True)
    exp_BTV = jnp.exp(jnp.where(is_word_V, logits_BTV, -1e9) - top_BT1)
    total_BT1 = part(jnp.add, exp_BTV).sum(-1, keepdims=True)
    log_z_BT = (top_BT1 + jnp.log(total_BT1))[..., 0]
    nll_BT = log_z_BT - wanted_BT
    right_BT = wanted_BT == top_BT1[..., 0]
    if mean is None:
        mean_BT = jnp.where(is_word_V, logits_BTV, 0).sum(-1) / vocab
    else:
        mean_BT = (x_BTD.astype(dtype) * mean[0]).sum(-1) + mean[1]
    even_BT = log_z_BT - mean_BT
    loss_BT = (1 - label_smoothing) * nll_BT + label_smoothing * even_BT
    reference_BTV = jnp.arange(len(is_word_V)) == targets_BT[..., None]
    wanted_BTV = jnp.where(reference_BTV, 1 - label_smoothing, 0.0) + jnp.where(is_word_V, label_smoothing / vocab, 0.0)
    d_logits_BTV = (exp_BTV / total_BT1 - wanted_BTV) * weights_BT[..., None]
    d_bias_NV = None if bias_V is None else d_logits_BTV.reshape(parts, -1, d_logits_BTV.shape[-1]).sum(1)
    d_logits_BTV = d_logits_BTV.astype(x_BTD.dtype)
    d_x_BTD = jnp.einsum("BTV,VD->BTD", d_logits_BTV, table_VD)
    if by_columns:
        x_DN, d_logits_NV = transposed(x_BTD.reshape(-1, x_BTD.shape[-1])), d_logits_BTV.reshape(-1, len(is_word_V))
        d_table = jnp.matmul(x_DN, d_logits_NV, preferred_element_type=dtype)[None]
    else:
        d_logits_NBTV, x_NBTD = (x.reshape(parts, -1, *x.shape[1:]) for x in (d_logits_BTV, x_BTD))
        d_table = jnp.einsum("NBTV,NBTD->NVD", d_logits_NBTV, x_NBTD, preferred_element_type=dtype)
    sums = [(x_BT * weights_BT).sum() for x_BT in (loss_BT, nll_BT, right_BT)]
    return sums, d_x_BTD, d_table, d_bias_NV


def _mean(table_VD, bias_V, vocab: int):
    """Return the mean row of a table, (D,), and the mean bias, without the rows that are padding, in float32.

    The mean of a position's logits is features @ mean row + mean bias.
    """
    is_word_V = jnp.arange(table_VD.shape[0]) < vocab
    mean_D = jnp.where(is_word_V[:, None], table_VD.astype(at_least_float32(table_VD.dtype)), 0).sum(0) / vocab
    return mean_D, 0 if bias_V is None else jnp.where(is_word_V, bias_V.astype(mean_D.dtype), 0).sum() / vocab


def _forward(features_BTD, table_VD, targets_BT, weights_BT, vocab, label_smoothing, mesh, bias_V):
    chunks, used, join = _split(features_BTD, targets_BT, weights_BT, table_VD.shape[0], mesh)
    dtype = table_VD.dtype
    # Gather the table once, before the loop over chunks; otherwise each iteration would gather it.
    table_VD = constrain(table_VD.astype(features_BTD.dtype), "VD", mesh)
    parts, in_parts = num_shards("B", mesh), platform_of(mesh).reduces_in_parts and is_replicated("V", mesh)
    mean = _mean(table_VD, bias_V, vocab) if in_parts else None
    by_columns = parts == 1 and platform_of(mesh).transposes_operands and features_BTD.dtype == jnp.float32
    letters = "BDV" if by_columns else "BVD"
    chunk = functools.partial(_chunk, vocab=vocab, label_smoothing=label_smoothing, mesh=mesh, by_columns=by_columns)

    def body(i, sums):
        totals, d_table, d_bias_NV, d_x = sums
        x_BTD, targets, weights = (x[i] for x in chunks)
        found, d_x_BTD, d_chunk, d_chunk_NV = chunk(x_BTD, targets, weights, table_VD, bias_V, mean)
        totals = [a + b for a, b in zip(totals, found, strict=True)]
        d_table += constrain(d_chunk, letters, mesh)
        d_bias_NV = None if bias_V is None else d_bias_NV + constrain(d_chunk_NV, "BV", mesh)
        return totals, d_table, d_bias_NV, d_x.at[i].set(d_x_BTD)

    zero = jnp.zeros((), at_least_float32(features_BTD.dtype))
    no_table = constrain(jnp.zeros((parts, *(table_VD.T if by_columns else table_VD).shape), zero.dtype), letters, mesh)
    no_bias_NV = None if bias_V is None else constrain(jnp.zeros((parts, *bias_V.shape), zero.dtype), "BV", mesh)
    start = ([zero] * 3, no_table, no_bias_NV, jnp.zeros_like(chunks[0]))
    totals, d_table, d_bias_NV, d_x = jax.lax.fori_loop(0, used, body, start)
    d_table_NVD = d_table.mT if by_columns else d_table
    return tuple(totals), (join(d_x), d_table_NVD, d_bias_NV, jnp.zeros(0, dtype), None if bias_V is None else jnp.zeros(0, bias_V.dtype))


def _backward(vocab, label_smoothing, mesh, residuals, cotangents):
    d_features, d_table_NVD, d_bias_NV, like_table, like_bias = residuals
    scale = cotangents[0]
    d_features = (d_features * scale).astype(d_features.dtype)
    # The sum over devices is left for last: XLA makes one of it and those of the embeddings.
    d_table_VD = (d_table_NVD * scale).sum(0).astype(like_table.dtype)
    d_bias_V = None if d_bias_NV is None else (d_bias_NV * scale).sum(0).astype(like_bias.dtype)
    return d_features, d_table_VD, None, None, d_bias_V


projected_cross_entropy.defvjp(_forward, _backward)
