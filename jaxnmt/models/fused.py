"""Attention as one kernel on TPUs: JAX's splash attention (a Pallas kernel), which never holds all scores of a head."""

from __future__ import annotations

import contextlib
import contextvars
import math
from collections.abc import Iterator

import jax
from jax.sharding import Mesh

from jaxnmt.parallel.sharding import activation_spec

LANES = 128
BLOCK = 512  # most positions at a time

_in_use = contextvars.ContextVar("in_use", default=True)


@contextlib.contextmanager
def not_in_use() -> Iterator[None]:
    """Trace the programs inside without the kernel."""
    token = _in_use.set(False)
    try:
        yield
    finally:
        _in_use.reset(token)


def fits(q_BTHK: jax.Array, k_BSHK: jax.Array, mesh: Mesh | None) -> bool:
    """Return whether the kernel can be used: on a mesh of TPUs, with both lengths multiples of 128."""
    on_tpus = mesh is not None and mesh.devices.flat[0].platform == "tpu"
    return on_tpus and _in_use.get() and q_BTHK.shape[1] % LANES == 0 and k_BSHK.shape[1] % LANES == 0


def attend(
    q_BTHK, k_BSHK, v_BSHK, query_segments_BT, key_segments_BS, causal: bool, mesh: Mesh | None, interpret: bool = False
) -> jax.Array:
    """Return softmax(q k / sqrt(K)) v over the keys of the query's segment: (B, T, H, K). Each device computes its own rows and heads.

    Outputs for padding queries are undefined; the caller must mask them.

    Args:
        query_segments_BT, key_segments_BS: int32.
        causal: whether a query sees no key after its own position.
        interpret: run the kernel as Python, on any device.
    """

    from jax.experimental.pallas.ops.tpu import splash_attention as splash  # a second to import, and seldom needed

    def one_device(q, k, v, query_segments, key_segments):
        kernel = _kernel(q.shape[2], q.shape[1], k.shape[1], causal, interpret)
        q, k, v = (x.swapaxes(1, 2) for x in (q * (1.0 / math.sqrt(q.shape[-1])), k, v))
        y = jax.vmap(kernel)(q, k, v, segment_ids=splash.SegmentIds(query_segments, key_segments))
        return y.swapaxes(1, 2).astype(v.dtype)

    arrays = q_BTHK, k_BSHK, v_BSHK, query_segments_BT, key_segments_BS
    if mesh is None:
        return one_device(*arrays)
    layouts = tuple(activation_spec(letters) for letters in ("BTHK", "BSHK", "BSHK", "BT", "BS"))
    return jax.shard_map(one_device, mesh=mesh, in_specs=layouts, out_specs=layouts[0], check_vma=False)(*arrays)


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
