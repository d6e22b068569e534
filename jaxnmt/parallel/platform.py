"""What kind of devices a mesh has, and what their compilers do best. Results do not depend on it, beyond rounding."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Literal, NamedTuple

import jax
from jax.sharding import Mesh

from jaxnmt.io.workers import cores

Kind = Literal["cpu", "tpu", "nvidia", "other"]


class Platform(NamedTuple):
    """What is best on a kind of device.

    Attributes:
        branches: whether a step may choose a branch, or the length of a loop, by what it has computed. A CPU then skips work, and updates
            donated arrays where they lie. A GPU's host would wait for the device to learn the choice, and the device for the host.
        logits: most logits that exist at once, of a device. On a CPU those of 512 positions fit into its cache; others read the output
            layer's table, and add to its gradient, once for each chunk.
        recurrent_remat: whether recurrent layers recompute each step in the backward pass and accumulate their kernels' gradients after the
            loop (`models/scans.py`), instead of storing everything that a step computes. A GPU launches a kernel for each stored array.
        keeps_heads: whether heads are an axis of the products before and after attention, and queries, keys and values are a product each.
            A TPU, whose attention kernel has heads before positions, must copy arrays that are reshaped or split. Others are faster with
            one plain product.
        sums_by_products: whether a bias's gradient, a sum over positions, is a product with ones, if that is exact. A TPU's matrix unit is
            faster than its vector unit.
        sums_by_axis: whether such a sum reduces one axis after another. XLA's code for a CPU that reduces several axes at once reads with
            large strides, and takes up to 30 times as long.
        transposes_operands: whether an operand of a kernel's gradient is transposed in memory first (on one CPU device). YNNPACK refuses
            transposed operands, and the library that XLA then uses takes up to 1.5 times as long.
        reduces_in_parts: whether reductions over the vocabulary use `numbers.reduce_in_parts`.
        attention_parts: largest number of parts into which training splits a batch for attention. XLA computes each product of many small
            matrices on a single core of a CPU.
        weights_in_blocks: whether decoding has copies of its weights for products with few rows (`models.blocks`). They are for CPUs, which
            read memory a cache line at a time.
        groups_alone: whether each group of devices along `fsdp` computes its gradient inside a `shard_map` over `data`. On TPUs such a step
            takes three times as long.
        step_options: the compiler's options for training steps of several devices.
    """

    branches: bool
    logits: int
    recurrent_remat: bool = False
    keeps_heads: bool = False
    sums_by_products: bool = False
    sums_by_axis: bool = False
    transposes_operands: bool = False
    reduces_in_parts: bool = False
    attention_parts: int = 1
    weights_in_blocks: bool = False
    groups_alone: bool = False
    step_options: Mapping[str, str] = types.MappingProxyType({})


_SEVERAL_CPUS = Platform(branches=True, logits=0, sums_by_axis=True, reduces_in_parts=True, groups_alone=True)
_CPU = _SEVERAL_CPUS._replace(transposes_operands=True, weights_in_blocks=True, attention_parts=min(len(cores()), 4))
_ACCELERATOR = Platform(branches=False, logits=2**28)
_GPU = _ACCELERATOR._replace(recurrent_remat=True, groups_alone=True)
# Left to itself, the compiler makes one sum of all gradients, which then waits for the last of them.
_SUMS_BEHIND_COMPUTING = {
    "xla_jf_crs_combiner_threshold_count": "1",
    "xla_enable_async_all_reduce": "true",
    "xla_tpu_enable_async_collective_fusion_fuse_all_reduce": "true",
}
_TPU = _ACCELERATOR._replace(keeps_heads=True, sums_by_products=True, step_options=_SUMS_BEHIND_COMPUTING)


def kind_of(mesh: Mesh | None) -> Kind:
    """Return the kind of a mesh's devices; without a mesh, or of an abstract one, of the default ones."""
    device = mesh.devices.flat[0] if isinstance(mesh, Mesh) else jax.devices()[0]
    if device.platform in ("cpu", "tpu"):
        return device.platform
    return "nvidia" if "NVIDIA" in device.device_kind else "other"


def platform_of(mesh: Mesh | None) -> Platform:
    """Return what is best on a mesh's devices; without a mesh, on the default ones."""
    cpu = _SEVERAL_CPUS if mesh and mesh.size > 1 else _CPU
    return {"cpu": cpu, "tpu": _TPU, "nvidia": _GPU}.get(kind_of(mesh), _ACCELERATOR)
