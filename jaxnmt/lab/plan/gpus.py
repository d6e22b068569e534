"""NVIDIA's GPUs, in this machine or not: JAX's plugin compiles for any GPU whose properties it is given."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
from typing import NamedTuple

from jaxnmt.errors import UserError
from jaxnmt.lab.plan.chips import Chip, Target

PER_HOST = 8  # at most, joined by NVLink


class Gpu(NamedTuple):
    """What the compiler and the estimates need to know of a GPU.

    Attributes:
        name: as the driver reports it.
        capability: major version of its instruction set.
        cores, clock: multiprocessors, and GHz.
        units: float32 units of a core.
        tensor: bfloat16 operations of a tensor core in a cycle; a core has four.
        shared, shared_block: bytes of shared memory of a core, and of them what one block may have.
        cache: bytes of its L2.
        memory: bytes.
        chip: for estimates.
    """

    name: str
    capability: int
    cores: int
    clock: float
    units: int
    tensor: int
    shared: int
    shared_block: int
    cache: int
    memory: int
    chip: Chip


# Data sheets of NVIDIA: dense bfloat16, memory, NVLink in one direction; and the network of a DGX, one adapter for each GPU.
_A100 = Chip("A100", flops=312e12, bandwidth=2039e9, link=300e9, network=25e9)
_H100 = Chip("H100", flops=989e12, bandwidth=3352e9, link=450e9, network=50e9)
_H200 = dataclasses.replace(_H100, name="H200", bandwidth=4800e9)
_B200 = Chip("B200", flops=2250e12, bandwidth=7672e9, link=900e9, network=50e9)
# The rest as the driver reports it (cudaDeviceProp; CUDA C++ programming guide, "Technical specifications per compute capability").
GPUS = {
    "a100": Gpu("NVIDIA A100-SXM4-80GB", 8, 108, 1.41, 64, 256, 167936, 166912, 40 << 20, 85_100_068_864, _A100),
    "h100": Gpu("NVIDIA H100 80GB HBM3", 9, 132, 1.98, 128, 512, 233472, 232448, 50 << 20, 84_942_979_072, _H100),
    "h200": Gpu("NVIDIA H200", 9, 132, 1.98, 128, 512, 233472, 232448, 50 << 20, 151_397_597_184, _H200),
    "b200": Gpu("NVIDIA B200", 10, 148, 1.965, 128, 1024, 233472, 232448, 132_644_864, 191_514_411_008, _B200),
}
# Without a GPU to time them on, the compiler's own products are untuned; cuBLAS, which it calls instead, needs no tuning here.
_OPTIONS = {"xla_gpu_enable_triton_gemm": False}
_CUDA, _CUDNN = (12, 9, 0), (9, 10, 2)


def target(name: str, gpu: Gpu, hosts: int, per_host: int) -> Target:
    """Return GPUs of a kind as devices to compile for; this machine need not have them.

    Raises:
        UserError: JAX's plugin for GPUs, or the assembler that it calls, is missing.
    """
    import jax
    from jax._src.cudnn import fused_attention_stablehlo
    from jax.experimental import topologies

    if not _has("jax_cuda12_plugin") or not _has("nvidia.cuda_nvcc"):
        raise UserError(f"--on {name} needs the compiler for GPUs (220 MB, no GPU): pip install 'jaxnmt[plan-gpu]'")
    # Compiling needs only the version number of cuDNN, which JAX reads from the library (700 MB).
    fused_attention_stablehlo.check_cudnn_version = lambda: 10_000 * _CUDNN[0] + 100 * _CUDNN[1] + _CUDNN[2]
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)  # a kept program cannot be read without a GPU
    try:
        found = topologies.get_topology_desc(platform="cuda", target_config=described(gpu), topology=f"1x{hosts}x{per_host}")
    except RuntimeError as error:  # also JAX's own errors and NotImplementedError
        raise UserError(
            f"--on {name}: JAX's plugin for GPUs does not load: its version must be that of JAX, {jax.__version__}: "
            f"pip install 'jax[cuda12-local]=={jax.__version__}' ({error})"
        ) from None
    chip = dataclasses.replace(gpu.chip, memory=int(gpu.memory * _share_of_memory()))
    return Target(name, chip, found.devices, per_host=per_host, compiler_options=_OPTIONS)


def size_of(word: str) -> tuple[Gpu, int, int] | None:
    """Parse `h100:8` (one host) or `h100:2x8` (hosts x GPUs). Return (GPU, hosts, GPUs of a host), or None for other words."""
    found = re.fullmatch(r"(\w+):(?:([1-9]\d*)x)?([1-9]\d*)", word)
    if found is None or found[1] not in GPUS or int(found[3]) > PER_HOST:
        return None
    return GPUS[found[1]], int(found[2] or 1), int(found[3])


def known() -> str:
    """Return how targets are written, for messages."""
    return f"{', '.join(f'{name}:N' for name in GPUS)} (N GPUs of one host, at most {PER_HOST}), h100:2x8 (hosts x GPUs)"


def here() -> Target:
    """Return the GPUs of this machine.

    Raises:
        UserError: JAX finds no GPU.
    """
    import jax

    try:
        devices = jax.devices("gpu")
    except (RuntimeError, AssertionError):
        raise UserError("--on gpu: JAX finds no GPU on this machine") from None
    kind = devices[0].device_kind
    # Those of cards for PCIe, and of other products with such a name, have other rates.
    chip = next((gpu.chip for gpu in GPUS.values() if re.search(rf"\b{gpu.chip.name}\b(?!.*(PCIe|PCIE|NVL))", kind)), Chip(kind))
    memory = (devices[0].memory_stats() or {}).get("bytes_limit")
    chip = dataclasses.replace(chip, name=kind, memory=memory)
    return Target("gpu", chip, devices, per_host=jax.local_device_count(), compiler_options=_OPTIONS)


def _has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent
        return False


def _share_of_memory() -> float:
    """Return the share of a GPU's memory that JAX takes (docs.jax.dev, "GPU memory allocation")."""
    try:
        return float(os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION") or 0.75)
    except ValueError:
        raise UserError("the environment variable XLA_PYTHON_CLIENT_MEM_FRACTION is not a number: set it to a share such as 0.9") from None


def described(gpu: Gpu) -> str:
    """Return a GPU as the compiler wants it: a stream_executor.GpuTargetConfigProto, in protobuf's text format."""

    def rate(type_number: int, units: int, operations: int) -> str:
        rates = f"clock_rate_ghz: {gpu.clock} units_per_core: {units} ops_per_clock: {operations}"
        return f"rate_infos {{ key: {type_number} value {{ {rates} }} }}"

    def version(numbers: tuple[int, int, int]) -> str:
        return "{{ major: {} minor: {} patch: {} }}".format(*numbers)

    dotted = [".".join(map(str, numbers)) for numbers in (_CUDA, _CUDNN)]
    # xla.PrimitiveType: 2 s8, 6 u8, 10 f16, 11 f32, 16 bf16, 19 f8e5m2, 20 f8e4m3fn
    scalar = [rate(11, gpu.units, 1), rate(16, gpu.units, 2), rate(10, gpu.units, 2)]
    eight_bits = (2, 6, 19, 20) if gpu.capability >= 9 else (2, 6)
    matrix = [rate(10, 4, gpu.tensor), rate(16, 4, gpu.tensor), rate(11, 4, gpu.tensor // 2)]
    matrix += [rate(number, 4, 2 * gpu.tensor) for number in eight_bits]
    extension = "feature_extension: ACCELERATED_FEATURES" if gpu.capability >= 9 else ""
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  shared_memory_per_block: 49152 shared_memory_per_core: {gpu.shared} shared_memory_per_block_optin: {gpu.shared_block}
  core_count: {gpu.cores} fpus_per_core: {gpu.units} clock_rate_ghz: {gpu.clock}
  memory_bandwidth: {gpu.chip.bandwidth:.0f} l2_cache_size: {gpu.cache} device_memory_size: {gpu.memory}
  cuda_compute_capability {{ major: {gpu.capability} {extension} }}
  scalar_unit_description {{ {" ".join(scalar)} }}
  matrix_unit_description {{ {" ".join(matrix)} }}
  name: "{gpu.name}" driver_version: "13.0.0" runtime_version: "{dotted[0]}"
  compile_time_toolkit_version: "{dotted[0]}" dnn_version: "{dotted[1]}"
  device_interconnect_info {{ active_links: 18 }}
}}
platform_name: "CUDA"
dnn_version_info {version(_CUDNN)}
runtime_version {version(_CUDA)}
device_description_str: "{gpu.name}"
"""
