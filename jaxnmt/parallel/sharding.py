"""The device mesh, and how parameters and activations lie on it.

Arrays name their axes by letters (`axes.py` has the legend). The two tables here are all that turns a letter into a mesh axis.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Container, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxnmt import config as cfg
from jaxnmt import errors
from jaxnmt.parallel.axes import path_name
from jaxnmt.parallel.platform import platform_of

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")

# A letter that is not in a table is kept whole on each device. The kernels of recurrent layers (D, G, U) therefore stay off `tensor`:
# they are gathered once before the scan, not at each of its steps.
PARAMETERS = {"D": "fsdp", "H": "tensor", "F": "tensor", "V": "tensor"}
ACTIVATIONS = {"B": BATCH_AXES, "H": ("tensor",), "F": ("tensor",), "V": ("tensor",)}


def make_mesh(config: cfg.Mesh, topology: Sequence[jax.Device] | None = None) -> Mesh:
    """Return all devices as a (data, fsdp, tensor) grid.

    If the devices are in slices that a slower network joins, `data` counts slice by slice: only the sum of the gradients crosses that
    network. GPUs call their hosts slices. If these do not divide `data`, and `mesh.slices` was not set, other axes cross them too.

    Args:
        topology: the devices to compile for; None: the devices of all processes.

    Raises:
        UserError: the axes do not multiply to the number of devices, or the slices do not divide `data`.
    """
    devices = list(topology or jax.devices())
    try:
        data, fsdp, tensor = np.arange(len(devices)).reshape(config.data, config.fsdp, config.tensor).shape
    except ValueError:
        raise errors.UserError(
            f"mesh.data {config.data} x mesh.fsdp {config.fsdp} x mesh.tensor {config.tensor} does not fit {len(devices)} device(s): "
            "their product must be that number; write -1 for one axis to let it fill up"
        ) from None
    slices = _slices(config, devices)
    if data % len(slices):
        if config.slices != -1 or devices[0].platform != "gpu":
            raise errors.UserError(f"the devices are in {len(slices)} slices, which do not divide mesh.data {data}: choose a multiple")
        slices = [devices]
    inner = (data // len(slices), fsdp, tensor)
    # `jax.make_mesh` calls this too, but refuses grids that split an axis of a TPU's torus, and GPUs of several hosts.
    grids = [mesh_utils.create_device_mesh(inner, part, allow_split_physical_axes=True) for part in slices]
    return Mesh(np.concatenate(grids), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _slices(config: cfg.Mesh, devices: list[jax.Device]) -> list[list[jax.Device]]:
    """Return the devices slice by slice: as they report it, or as `mesh.slices` cuts them in order."""
    numbers = [getattr(device, "slice_index", None) or 0 for device in devices]
    own = [[d for d, n in zip(devices, numbers, strict=True) if n == number] for number in sorted(set(numbers))]
    if config.slices == -1:
        return own
    if devices[0].platform == "tpu" and 1 < len(own) != config.slices:
        raise errors.UserError(f"mesh.slices is {config.slices}, but these TPUs are in {len(own)} slices: leave it out")
    if len(devices) % config.slices:
        raise errors.UserError(f"mesh.slices {config.slices} does not divide {len(devices)} devices")
    return np.asarray(devices, object).reshape(config.slices, -1).tolist()


def mesh_of(tree: Any) -> Mesh | None:
    """Return the mesh that arrays lie on; None if that is a single device."""
    sharding = getattr(jax.tree.leaves(tree)[0], "sharding", None)
    return sharding.mesh if isinstance(sharding, NamedSharding) and sharding.mesh.size > 1 else None


# ---- activations


def activation_spec(axes: str) -> PartitionSpec:
    """Return how an activation with these axes lies on a mesh."""
    return PartitionSpec(*(ACTIVATIONS.get(letter) for letter in axes))


def constrain(x: jax.Array, axes: str, mesh: Mesh | None) -> jax.Array:
    """Lay an activation out on a mesh by its axes; return it as it is without a mesh, or on one device of `group`."""
    if mesh is None or (is_group(mesh) and mesh.size == 1):
        return x
    spec = activation_spec(axes)
    return jax.lax.with_sharding_constraint(x, within_group(spec) if is_group(mesh) else NamedSharding(mesh, spec))


def num_shards(letter: str, mesh: Mesh | None) -> int:
    """Return the number of parts that an activation's axis is split into."""
    return 1 if mesh is None else math.prod(mesh.shape[axis] for axis in ACTIVATIONS.get(letter, ()))


def is_replicated(letter: str, mesh: Mesh | None) -> bool:
    """Return whether each device holds the whole of an activation's axis."""
    return num_shards(letter, mesh) == 1


def keeps_heads(mesh: Mesh | None) -> bool:
    """Return whether heads are an axis of products (`Platform.keeps_heads`).

    They are not if `tensor` splits them: the input gradients of queries, keys and values would be three all-reduces instead of one.
    """
    return mesh is not None and is_replicated("H", mesh) and platform_of(mesh).keeps_heads


def per_device(function: Callable[..., Any], mesh: Mesh, params_layout: Any = PartitionSpec()) -> Callable[..., Any]:  # noqa: B008
    """Return `function(params, *arrays)`, run by each device on its own rows. `function` must not constrain.

    Args:
        params_layout: PartitionSpecs of the parameters, a prefix of their tree; `function` gets the shards of its device. By default the
            parameters are replicated.
    """
    rows = PartitionSpec(BATCH_AXES)

    def spread(params, *arrays):
        layouts = (params_layout, *(rows for _ in arrays))
        return jax.shard_map(function, mesh=mesh, in_specs=layouts, out_specs=rows, check_vma=False)(params, *arrays)

    return spread


def group(mesh: Mesh) -> Mesh:
    """Return the mesh of devices that share an index along `data`. They compute together inside a `jax.shard_map` over `data`."""
    return Mesh(mesh.devices[:1], AXES, axis_types=(AxisType.Manual, AxisType.Auto, AxisType.Auto))


def is_group(mesh: Mesh) -> bool:
    """Return whether a mesh is that of a `group`."""
    return AxisType.Manual in mesh.axis_types


def within_group(layout: PartitionSpec) -> PartitionSpec:
    """Return a layout without the axis `data`, as the devices of a `group` see it."""
    return PartitionSpec(*(tuple(axis for axis in _mesh_axes(entry) if axis != "data") or None for entry in layout))


def _mesh_axes(entry: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """Return the mesh axes that split one dimension of a layout."""
    return (entry,) if isinstance(entry, str) else entry or ()


def scatter_sums(tree: Any, layouts: Any) -> Any:
    """Sum arrays over the devices along `data`, within `jax.shard_map`. Each device keeps its parts in these layouts.

    Arrays that are not split along `data` are many and small: they are sent as one.
    """
    leaves, structure = jax.tree.flatten(tree)
    split = [next((i for i, axes in enumerate(layout) if axes in ("data", ("data",))), None) for layout in jax.tree.leaves(layouts)]
    joined, separate = ravel_pytree([x for x, dimension in zip(leaves, split, strict=True) if dimension is None])
    whole = iter(separate(jax.lax.psum(joined, "data")))
    scatter = functools.partial(jax.lax.psum_scatter, axis_name="data", tiled=True)
    summed = [next(whole) if i is None else scatter(x, scatter_dimension=i) for x, i in zip(leaves, split, strict=True)]
    return jax.tree.unflatten(structure, summed)


def num_replicas(layout: PartitionSpec, mesh: Mesh) -> int:
    """Return the number of devices that hold the same shard of an array."""
    return mesh.size // math.prod(mesh.shape[axis] for entry in layout for axis in _mesh_axes(entry))


def is_sharded(params: Any) -> bool:
    """Return whether any parameter is sharded: no device has all of it."""
    return not all(x.is_fully_replicated for x in jax.tree.leaves(params))


def gather(x: jax.Array, layout: PartitionSpec) -> jax.Array:
    """All-gather an array, within `per_device`: return all of it from each device's shard. `layout` is that of the shards."""
    for axis, over in enumerate(layout):
        x = x if over is None else jax.lax.all_gather(x, over, axis=axis, tiled=True)
    return x


def any_across_devices(flags: jax.Array, mesh: Mesh | None) -> jax.Array:
    """Return whether any flag is true on any device of `per_device`'s mesh (None: on this device).

    A loop that asks this takes equally many steps on all devices.
    """
    return flags.any() if mesh is None else jax.lax.psum(flags.any().astype(jnp.int32), mesh.axis_names) > 0


# ---- parameters


def param_spec(name: str, axes: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """Return the layout of a parameter; vectors are not worth gathering, so `fsdp` leaves them whole.

    Args:
        name: for the message.

    Raises:
        UserError: a mesh axis does not divide the dimension that it splits.
    """
    vector = len(axes.removeprefix("L")) == 1
    spec: list[str | None] = []
    for letter, size in zip(axes, shape, strict=True):
        axis = PARAMETERS.get(letter)
        if axis in spec or (vector and axis == "fsdp"):
            axis = None
        if axis and size % mesh.shape[axis]:
            raise errors.UserError(
                f"mesh.{axis} {mesh.shape[axis]} does not divide {size}, a dimension of {name} {shape}: change one of them"
            )
        spec.append(axis)
    return PartitionSpec(*spec)


def param_shardings(params: Any, axes: Any, mesh: Mesh) -> Any:
    """Return a NamedSharding for every parameter.

    Args:
        params: tree of arrays or ShapeDtypeStructs.
        axes: tree of their letters (`axes.declared`).
    """

    def sharding(path, x, letters):
        return NamedSharding(mesh, param_spec(path_name(path), letters, x.shape, mesh))

    return jax.tree_util.tree_map_with_path(sharding, params, axes)


MIN_SHARDED_SIZE = 1 << 16
"""Size of the smallest array that `shard_over_data` shards. To gather a smaller one takes longer than to update it on every device."""


def shard_over_data(sharding: NamedSharding, shape: tuple[int, ...], axes: str = "") -> NamedSharding:
    """Return a layout that also shards an array over `data`, along its longest dimension that `data` divides, but never along layers.

    A kernel whose heads are an axis of products (`keeps_heads`) is sharded along them if possible: see `gather_over_data`.
    """
    mesh, spec = sharding.mesh, [*sharding.spec, *[None] * (len(shape) - len(sharding.spec))]
    over = [() if axis is None or mesh.shape[axis] == 1 else (axis,) for axis in spec]
    size = [length // math.prod(mesh.shape[axis] for axis in axes) for length, axes in zip(shape, over, strict=True)]
    first = int(axes.startswith("L"))
    possible = [dimension for dimension, length in enumerate(size) if length % mesh.shape["data"] == 0 and dimension >= first]
    if mesh.shape["data"] == 1 or not possible or math.prod(shape) < MIN_SHARDED_SIZE:
        return sharding
    heads = axes.find("H") if keeps_heads(mesh) else -1
    longest = heads if heads in possible else max(possible, key=size.__getitem__)
    spec[longest] = (*over[longest], "data")
    return NamedSharding(mesh, PartitionSpec(*spec))


def gather_over_data(x: jax.Array, layout: NamedSharding, axes: str) -> jax.Array:
    """All-gather an array that `shard_over_data` has sharded. `layout` is that of the result.

    A TPU reads a kernel with heads, (D, ..., H, K), with D as the minor axis, so it is gathered in that order. In any other order the
    compiler copies the gathered kernel, and does not overlap the gather with computing.
    """
    mesh, first = layout.mesh, axes.find("D")
    if not (keeps_heads(mesh) and "H" in axes and first >= 0):
        return jax.lax.with_sharding_constraint(x, layout)
    over = [*layout.spec, *[None] * (x.ndim - len(layout.spec))]
    over.append(over.pop(first))
    sent = jax.lax.with_sharding_constraint(jnp.moveaxis(x, first, -1), NamedSharding(mesh, PartitionSpec(*over)))
    return jnp.moveaxis(sent, -1, first)


def state_shardings(state: Any, params: Any, shardings: Any) -> Any:
    """Return shardings for a pytree that is built around the parameters (optimizer state, EMA).

    A leaf whose path ends in a parameter's path and that has its shape lies like that parameter. A leaf of lower rank (Adafactor's
    factored vectors) keeps the layout of the dimensions that it still has. Any other leaf is replicated.

    Args:
        params, shardings: the parameters, and a NamedSharding for each.
    """
    owners = {
        path_name(path): (x.shape, sharding.spec)
        for (path, x), sharding in zip(jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(shardings), strict=True)
    }
    mesh = jax.tree.leaves(shardings)[0].mesh

    def sharding(path, leaf):
        owner = owner_of(path_name(path), owners)
        return NamedSharding(mesh, _inherit(leaf.shape, *owners[owner]) if owner else PartitionSpec())

    return jax.tree_util.tree_map_with_path(sharding, state)


def owner_of(path: str, params: Container[str]) -> str | None:
    """Return the path of the parameter that a leaf of the optimizer's state belongs to: the longest that its own path ends in."""
    keys = path.split("/")
    return next((end for start in range(len(keys)) if (end := "/".join(keys[start:])) in params), None)


def _inherit(shape: tuple[int, ...], param_shape: tuple[int, ...], spec: PartitionSpec) -> PartitionSpec:
    if shape == param_shape:
        return spec
    without = (tuple(spec[:i]) + tuple(spec[i + 1 :]) for i in range(len(spec)) if param_shape[:i] + param_shape[i + 1 :] == shape)
    return PartitionSpec(*next(without, ()))


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the layout of an array that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


# ---- batches


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the layout of a batch: rows over `data` and `fsdp`, every other dimension whole."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


@functools.lru_cache(maxsize=64)
def local_rows(mesh: Mesh, rows: int, devices: tuple[jax.Device, ...] | None = None) -> np.ndarray:
    """Return which of a batch's rows lie on some devices (None: on those of this process), ascending.

    Processes that share a row of the mesh's `tensor` axis hold the same rows.
    """
    indices = batch_sharding(mesh).devices_indices_map((rows,))
    held = {indices[device][0].indices(rows)[:2] for device in (mesh.local_devices if devices is None else devices)}
    return np.unique(np.concatenate([np.arange(start, stop) for start, stop in held]))


def to_mesh(batch: dict[str, np.ndarray], mesh: Mesh, rows: int | None = None) -> dict[str, jax.Array]:
    """Return host arrays of a batch as global device arrays.

    Args:
        rows: of the whole batch, if the arrays have only `local_rows` of it; None: they have all rows.
    """
    sharding = batch_sharding(mesh)

    def put(x: np.ndarray) -> jax.Array:
        every = np.arange(rows or len(x))
        held = local_rows(mesh, rows) if rows else every
        part = lambda index: x[np.searchsorted(held, every[index[0]])]  # noqa: E731
        return jax.make_array_from_callback((len(every), *x.shape[1:]), sharding, part)

    return {name: put(x) for name, x in batch.items()}
