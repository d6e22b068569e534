"""Attention as one kernel on TPUs, where it fits: JAX's splash attention (a Pallas kernel), which never holds all scores of a head."""

from __future__ import annotations

import contextlib
import contextvars
import math
from collections.abc import Iterator

import jax

from jaxnmt.parallel.sharding import activation_spec, on_mesh

LANES = 128
BLOCK = 512  # most positions at a time

_in_use = contextvars.ContextVar("in_use", default=True)


@contextlib.contextmanager
def not_in_use() -> Iterator[None]:
    """What is traced inside does without the kernel."""
    token = _in_use.set(False)
    try:
        yield
    finally:
        _in_use.reset(token)


def fits(q_BTHK: jax.Array, k_BSHK: jax.Array) -> bool:
    """Whether the kernel can stand in: on a mesh of TPUs, both lengths multiples of 128."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    on_tpu = device is not None and device.platform == "tpu"
    return on_mesh() and on_tpu and _in_use.get() and q_BTHK.shape[1] % LANES == 0 and k_BSHK.shape[1] % LANES == 0


def attend(q_BTHK, k_BSHK, v_BSHK, query_segments_BT, key_segments_BS, causal: bool, interpret: bool = False) -> jax.Array:
    """softmax(q k / sqrt(K)) v over keys of the query's segment, with `causal` none after the query's place -> (B, T, H, K).

    Each device computes its rows and heads. What a query of a segment without keys gets counts for nothing and means nothing.

    Args:
        query_segments_BT, key_segments_BS: int32.
        interpret: run the kernel's Python instead, anywhere.
    """

    from jax.experimental.pallas.ops.tpu import splash_attention as splash  # a second to import, and seldom needed

    def one_device(q, k, v, query_segments, key_segments):
        kernel = _kernel(q.shape[2], q.shape[1], k.shape[1], causal, interpret)
        q, k, v = (x.swapaxes(1, 2) for x in (q * (1.0 / math.sqrt(q.shape[-1])), k, v))
        y = jax.vmap(kernel)(q, k, v, segment_ids=splash.SegmentIds(query_segments, key_segments))
        return y.swapaxes(1, 2).astype(v.dtype)

    arrays = q_BTHK, k_BSHK, v_BSHK, query_segments_BT, key_segments_BS
    if not on_mesh():
        return one_device(*arrays)
    layouts = tuple(activation_spec(letters) for letters in ("BTHK", "BSHK", "BSHK", "BT", "BS"))
    return jax.shard_map(one_device, in_specs=layouts, out_specs=layouts[0], check_vma=False)(*arrays)


def _kernel(heads: int, queries: int, keys: int, causal: bool, interpret: bool):
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    mask = (splash.CausalMask if causal else splash.FullMask)((queries, keys))
    query, key = (next(size for size in (BLOCK, 256, LANES) if length % size == 0) for length in (queries, keys))
    blocks = splash.BlockSizes(
        block_q=query,
        block_kv=key,
        block_kv_compute=key,
        block_q_dkv=query,
        block_kv_dkv=key,
        block_kv_dkv_compute=key,
        block_q_dq=query,
        block_kv_dq=key,
    )
    heads_mask = splash.MultiHeadMask([mask] * heads)
    return splash.make_splash_mha(heads_mask, block_sizes=blocks, head_shards=1, q_seq_shards=1, interpret=interpret)
