"""Attention that never holds all scores of a head: JAX's splash attention (a Pallas kernel) on TPUs, cuDNN's on GPUs of NVIDIA."""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxnmt.parallel.platform import kind_of
from jaxnmt.parallel.sharding import activation_spec, is_group, within_group

LANES = 128  # of a TPU's vector unit
BLOCKS = (512, 256, LANES)  # positions at a time, on TPUs


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mask:
    """Which keys a query sees, as a rule: a fused kernel needs no more, and others make an array of it.

    Attributes:
        query_segments_BT, key_segments_BS: int32; a query sees only the keys of its own segment.
        causal: whether a query sees no key after its own position.
    """

    query_segments_BT: jax.Array
    key_segments_BS: jax.Array
    causal: bool = dataclasses.field(default=False, metadata={"static": True})

    def segments(self) -> jax.Array:
        """Return booleans (B, T, S): whether query and key are of one segment."""
        return self.query_segments_BT[:, :, None] == self.key_segments_BS[:, None, :]

    def dense(self) -> jax.Array:
        """Return booleans (B, T, S)."""
        seen_BTS = self.segments()
        return seen_BTS & jnp.tril(jnp.ones(seen_BTS.shape[1:], bool)) if self.causal else seen_BTS


def fits(mesh: Mesh | None, queries: int, keys: int, head_dim: int, dtype) -> bool:
    """Return whether the mesh's devices have a kernel for these lengths, this width of a head and this dtype."""
    match kind_of(mesh):
        case "tpu":
            return queries % LANES == keys % LANES == 0
        case "nvidia" if _is_ampere(mesh):  # docs.nvidia.com/deeplearning/cudnn, "scaled dot product attention"; a mask wants even lengths
            return dtype in (jnp.bfloat16, jnp.float16) and queries % 2 == keys % 2 == 0 and head_dim % 8 == 0 and head_dim <= 128
    return False


def _is_ampere(mesh: Mesh | None) -> bool:
    """Return whether the GPUs are of NVIDIA's generation of 2020 or later, which cuDNN's kernel needs."""
    device = mesh.devices.flat[0] if mesh is not None else jax.devices()[0]
    return float(getattr(device, "compute_capability", "8.0")) >= 8


def fused_attention(q_BTHK, k_BSHK, v_BSHK, mask: Mask, mesh: Mesh) -> jax.Array:
    """Return softmax(q k) v by the kernel of the mesh's devices: (B, T, H, K). Each device computes its own rows and heads."""
    one_device = splash if kind_of(mesh) == "tpu" else cudnn
    if is_group(mesh) and mesh.size == 1:
        return one_device(q_BTHK, k_BSHK, v_BSHK, mask)
    layouts = tuple(activation_spec(letters) for letters in ("BTHK", "BSHK", "BSHK", "BT", "BS"))
    on = {"mesh": mesh}
    if is_group(mesh):  # nested: it uses the mesh of the enclosing `shard_map`
        layouts, on = tuple(map(within_group, layouts)), {"axis_names": {"fsdp", "tensor"}}
    kernel = functools.partial(_by_arrays, one_device, mask.causal)
    sharded = jax.shard_map(kernel, in_specs=layouts, out_specs=layouts[0], check_vma=False, **on)
    return sharded(q_BTHK, k_BSHK, v_BSHK, mask.query_segments_BT, mask.key_segments_BS)


def _by_arrays(one_device, causal: bool, q_BTHK, k_BSHK, v_BSHK, query_segments_BT, key_segments_BS) -> jax.Array:
    return one_device(q_BTHK, k_BSHK, v_BSHK, Mask(query_segments_BT, key_segments_BS, causal))


def cudnn(q_BTHK, k_BSHK, v_BSHK, mask: Mask, implementation: Literal["cudnn", "xla"] = "cudnn") -> jax.Array:
    """Return softmax(q k) v by cuDNN, which skips the blocks after a query's position if the mask is causal.

    Segments are a mask that all heads share. (cuDNN's own offsets of segments need a greatest number of them in a row.)

    Args:
        implementation: `xla` computes the same on any device.
    """
    from jax._src.cudnn import fused_attention_stablehlo

    # In JAX 0.10 the backward pass also writes the mask's gradient, which is not used (fixed by JAX's pull request 39512).
    fused_attention_stablehlo.should_export_dbias = lambda *_: False
    segments_B1TS = mask.segments()[:, None]
    return jax.nn.dot_product_attention(
        q_BTHK, k_BSHK, v_BSHK, mask=segments_B1TS, scale=1.0, is_causal=mask.causal, implementation=implementation
    )


def splash(q_BTHK, k_BSHK, v_BSHK, mask: Mask, interpret: bool = False) -> jax.Array:
    """Return softmax(q k) v by splash attention.

    Args:
        interpret: run the kernel as Python, on any device.
    """
    from jax.experimental.pallas.ops.tpu import splash_attention as splash  # a second to import, and seldom needed

    lengths = q_BTHK.shape[1], k_BSHK.shape[1]
    seen = (splash.CausalMask if mask.causal else splash.FullMask)(lengths)
    query, key = (next(size for size in BLOCKS if length % size == 0) for length in lengths)
    forward = {"block_q": query, "block_kv": key, "block_kv_compute": key}
    backward = {"block_q_dkv": query, "block_kv_dkv": key, "block_kv_dkv_compute": key, "block_q_dq": query, "block_kv_dq": key}
    kernel = splash.make_splash_mha(
        splash.MultiHeadMask([seen] * q_BTHK.shape[2]),
        block_sizes=splash.BlockSizes(**forward, **backward),
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )
    q, k, v = (x.swapaxes(1, 2) for x in (q_BTHK, k_BSHK, v_BSHK))
    y = jax.vmap(kernel)(q, k, v, segment_ids=splash.SegmentIds(mask.query_segments_BT, mask.key_segments_BS))
    return y.swapaxes(1, 2).astype(v.dtype)
