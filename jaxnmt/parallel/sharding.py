"""The mesh, one table of rules that lays parameters out on it, and `constrain` for activations.

Models name the axes of an array by letters (`constrain(x, "BTD")`); only this file knows which mesh axis a letter means.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Container, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxnmt import config as cfg
from jaxnmt import errors

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")

# Letters of the shape suffixes that are spread over the mesh; every other letter is kept whole on each device.
_LETTERS: dict[str, str | tuple[str, ...]] = {"B": BATCH_AXES, "H": "tensor", "F": "tensor", "V": "tensor"}

# Anchored patterns of parameter paths -> mesh axes of the *unstacked* parameter. The embedding side of a kernel lies over
# `fsdp`; heads, MLP width and vocabulary over `tensor`. Every path of a model of ours must match exactly one (a test reads them all);
# what a user's own model calls otherwise is kept whole on each device.
_RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    (r"(source|target|shared|output)_embedding/table", ("tensor", "fsdp")),
    (r"(encoder|decoder)_positions/table", (None, "fsdp")),
    (r".*/(qkv|kv)/kernel", ("fsdp", None, "tensor", None)),
    (r".*/(qkv|kv)/bias", (None, "tensor", None)),
    (r".*/q/kernel", ("fsdp", "tensor", None)),
    (r".*/q/bias", ("tensor", None)),
    (r".*/out/kernel", ("tensor", None, "fsdp")),
    (r".*/mlp/(wi|gate)/kernel", ("fsdp", "tensor")),
    (r".*/mlp/(wi|gate)/bias", ("tensor",)),
    (r".*/mlp/wo/kernel", ("tensor", "fsdp")),
    (r".*/(out|wo)/bias", (None,)),
    (r".*norm/(scale|bias)", (None,)),
    # Recurrent kernels stay off `tensor`: they are gathered once before the scan, not at each of its steps.
    (r"(encoder|decoder)/(backward_)?layer_\d+/(input|context_input|recurrent)/kernel", ("fsdp", None, None)),
    (r"(encoder|decoder)/(backward_)?layer_\d+/input/bias", (None, None)),
    (r"(encoder|decoder)/(backward_)?layer_\d+/(candidate_bias|\w+_norm_(scale|bias))", (None,)),
    (r"(encoder/words|decoder/(combine|readout|cross_attention/\w+))/kernel", ("fsdp", None)),
    (r"(encoder/words|decoder/(readout|cross_attention/\w+))/bias", (None,)),
    (r"decoder/cross_attention/(place_)?scorer", (None,)),
    (r"bridge/kernel", ("fsdp", None, None, None)),
    (r"bridge/bias", (None, None, None)),
)


def make_mesh(config: cfg.Mesh, topology: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
    """All devices as a (data, fsdp, tensor) grid.

    Where they are in slices, joined by a slower network, `data` counts slice by slice: only the sum of the gradients goes from one to
    another. GPUs call their hosts slices; where these do not divide `data`, and nobody said that they must, other axes cross them too.

    Args:
        topology: the devices, which programs may only be compiled for; None: those that are here, of all processes.

    Raises:
        UserError: the axes do not multiply to the number of devices, or the slices do not divide `data`.
    """
    devices = list(topology or jax.devices())
    sizes = [config.data, config.fsdp, config.tensor]
    known = int(np.prod([n for n in sizes if n != -1]))
    if sizes.count(-1) > 1 or known < 1 or len(devices) % known or (-1 not in sizes and known != len(devices)):
        raise errors.UserError(
            f"mesh.data {sizes[0]} x mesh.fsdp {sizes[1]} x mesh.tensor {sizes[2]} does not fit {len(devices)} device(s): "
            "their product must be that number; write -1 for one axis to let it fill up"
        )
    sizes = [len(devices) // known if n == -1 else n for n in sizes]
    types = (AxisType.Auto,) * len(AXES)
    slices = _slices(config, devices)
    if sizes[0] % len(slices):
        if config.slices != -1 or devices[0].platform != "gpu":
            raise errors.UserError(f"the devices are in {len(slices)} slices, which do not divide mesh.data {sizes[0]}: choose a multiple")
        slices = [devices]
    inner = (sizes[0] // len(slices), *sizes[1:])
    # What `jax.make_mesh` calls, which refuses grids that split an axis of a TPU's torus, and GPUs of several hosts.
    grids = [mesh_utils.create_device_mesh(inner, part, allow_split_physical_axes=True) for part in slices]
    return jax.sharding.Mesh(np.concatenate(grids), AXES, axis_types=types)


def _slices(config: cfg.Mesh, devices: list[jax.Device]) -> list[list[jax.Device]]:
    """The devices slice by slice: as they say themselves, or as `mesh.slices` says, in their order."""
    numbers = [getattr(device, "slice_index", None) or 0 for device in devices]
    own = [[d for d, n in zip(devices, numbers, strict=True) if n == number] for number in sorted(set(numbers))]
    if config.slices == -1:
        return own
    if devices[0].platform == "tpu" and 1 < len(own) != config.slices:
        raise errors.UserError(f"mesh.slices is {config.slices}, but these TPUs are in {len(own)} slices: leave it out")
    if len(devices) % config.slices:
        raise errors.UserError(f"mesh.slices {config.slices} does not divide {len(devices)} devices")
    size = len(devices) // config.slices
    return [devices[start : start + size] for start in range(0, len(devices), size)]


def batch_parts(mesh: jax.sharding.Mesh) -> int:
    """How many parts a batch's rows are split into."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def mesh_of(tree) -> jax.sharding.Mesh | None:
    """The mesh that arrays lie on; None where that is a single device."""
    sharding = getattr(jax.tree.leaves(tree)[0], "sharding", None)
    return sharding.mesh if isinstance(sharding, NamedSharding) and sharding.mesh.size > 1 else None


def on_mesh() -> bool:
    """Whether arrays lie spread over a mesh here: not outside one, nor where a program is written for one device (`per_device`)."""
    mesh = jax.sharding.get_abstract_mesh()
    return not (mesh.empty or mesh.are_all_axes_manual)


def traced_on(mesh: jax.sharding.Mesh, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function`, traced with activations laid out on `mesh`: a program does not depend on the mesh that its caller is in."""

    def traced(*arguments):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*arguments)

    traced.__name__ = getattr(function, "func", function).__name__  # what profiles and logs of compilations call the program
    return traced


def per_device(function: Callable[..., Any], mesh: jax.sharding.Mesh) -> Callable[..., Any]:
    """`function(params, *arrays)` on each device's rows for themselves; parameters lie whole on every device."""
    rows = PartitionSpec(BATCH_AXES)

    def spread(params, *arrays):
        layouts = (PartitionSpec(), *(rows for _ in arrays))
        return jax.shard_map(function, mesh=mesh, in_specs=layouts, out_specs=rows, check_vma=False)(params, *arrays)

    return spread


def anywhere(flags: jax.Array) -> jax.Array:
    """Whether any is true; within `per_device` on any device, so that all take as many steps of a loop and none waits long for another."""
    axes = jax.sharding.get_abstract_mesh().manual_axes
    return jax.lax.psum(flags.any().astype(jnp.int32), axes) > 0 if axes else flags.any()


def constrain(x: jax.Array, letters: str) -> jax.Array:
    """Lay an activation out by its shape letters; does nothing where arrays are not spread over a mesh."""
    if not on_mesh():
        return x
    return jax.lax.with_sharding_constraint(x, activation_spec(letters))


def parts(letter: str) -> int:
    """How many parts an activation's axis is split into."""
    mesh, axes = jax.sharding.get_abstract_mesh(), _LETTERS.get(letter, ())
    return math.prod(mesh.shape[axis] for axis in ([axes] if isinstance(axes, str) else axes)) if on_mesh() else 1


def whole(letter: str) -> bool:
    """Whether an activation's axis lies whole on every device."""
    return parts(letter) == 1


def activation_spec(letters: str) -> PartitionSpec:
    """How an activation with these axes lies on a mesh."""
    return PartitionSpec(*(_LETTERS.get(letter) for letter in letters))


def path_name(path) -> str:
    """A pytree path as `a/b/c`."""
    return "/".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)


def matching_rules(path: str, rank: int) -> list[tuple[str | None, ...]]:
    """The mesh axes that each rule for a parameter's path and rank gives."""
    unstacked = rank - ("/layers/" in path)
    return [axes for pattern, axes in _RULES if len(axes) == unstacked and re.fullmatch(pattern, path)]


def param_spec(path: str, shape: tuple[int, ...], mesh: jax.sharding.Mesh) -> PartitionSpec:
    """The layout of one parameter; a stacked one (`layers/…`) has its layer axis, kept whole, in front. Without a rule: whole.

    Raises:
        ValueError: more than one rule matches.
        UserError: a mesh axis does not divide the dimension it is laid over.
    """
    matches = matching_rules(path, len(shape))
    if len(matches) > 1:
        raise ValueError(f"{len(matches)} sharding rules match the parameter {path}; at most one may")
    axes = (None,) * (len(shape) - len(matches[0])) + matches[0] if matches else (None,) * len(shape)
    for size, axis in zip(shape, axes, strict=True):
        if axis and size % mesh.shape[axis]:
            raise errors.UserError(
                f"mesh.{axis} {mesh.shape[axis]} does not divide {size}, a dimension of {path} {shape}: change one of them"
            )
    return PartitionSpec(*axes)


def param_shardings(params, mesh: jax.sharding.Mesh):
    """A NamedSharding for every parameter of a tree of arrays or ShapeDtypeStructs."""
    return jax.tree_util.tree_map_with_path(lambda path, x: NamedSharding(mesh, param_spec(path_name(path), x.shape, mesh)), params)


def state_shardings(state, params, mesh: jax.sharding.Mesh):
    """Shardings for any pytree around the parameters (optimizer state, averages).

    A leaf whose path ends in a parameter's path and has its shape lies like that parameter. One of lower rank
    (Adafactor's factored vectors) keeps the axes of the dimensions it still has; anything else is replicated.
    """
    specs = {path_name(p): (x.shape, param_spec(path_name(p), x.shape, mesh)) for p, x in jax.tree_util.tree_leaves_with_path(params)}

    def sharding(path, leaf):
        owner = owner_of(path_name(path), specs)
        return NamedSharding(mesh, _inherit(leaf.shape, *specs[owner]) if owner else PartitionSpec())

    return jax.tree_util.tree_map_with_path(sharding, state)


def owner_of(path: str, params: Container[str]) -> str | None:
    """The path of the parameter that a leaf around the parameters belongs to: the longest that its own path ends in."""
    keys = path.split("/")
    return next((end for start in range(len(keys)) if (end := "/".join(keys[start:])) in params), None)


def _inherit(shape: tuple[int, ...], param_shape: tuple[int, ...], spec: PartitionSpec) -> PartitionSpec:
    axes = tuple(spec) + (None,) * (len(param_shape) - len(spec))
    if shape == param_shape:
        return PartitionSpec(*axes)
    dropped = [i for i in range(len(param_shape)) if param_shape[:i] + param_shape[i + 1 :] == shape]
    return PartitionSpec(*(axes[: dropped[0]] + axes[dropped[0] + 1 :])) if dropped else PartitionSpec()


def batch_sharding(mesh: jax.sharding.Mesh) -> NamedSharding:
    """Rows over the data axes; every other dimension whole."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


@functools.lru_cache(maxsize=64)
def rows_held(mesh: jax.sharding.Mesh, rows: int, devices: tuple[jax.Device, ...] | None = None) -> np.ndarray:
    """Which of a batch's rows lie on some devices (None: on those of this process), ascending; by the batch sharding's index map.

    Processes that share a row of the mesh's `tensor` axis hold the same rows.
    """
    indices = batch_sharding(mesh).devices_indices_map((rows,))
    held = {indices[device][0].indices(rows)[:2] for device in (mesh.local_devices if devices is None else devices)}
    return np.unique(np.concatenate([np.arange(start, stop) for start, stop in held]))


def to_mesh(batch: dict[str, np.ndarray], mesh: jax.sharding.Mesh, rows: int | None = None) -> dict[str, jax.Array]:
    """Host arrays of a batch -> global device arrays.

    Args:
        rows: how many the whole batch has, where the arrays have `rows_held` alone; None: they have all of them.
    """
    sharding = batch_sharding(mesh)
    held = None if rows is None else rows_held(mesh, rows)

    def put(x: np.ndarray) -> jax.Array:
        if held is None or rows == len(x):
            return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])
        place = lambda index: np.searchsorted(held, range(*index[0].indices(rows)))  # noqa: E731
        return jax.make_array_from_callback((rows, *x.shape[1:]), sharding, lambda index: x[place(index)])

    return {name: put(x) for name, x in batch.items()}
