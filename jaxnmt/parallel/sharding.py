"""The mesh, one table of rules that lays parameters out on it, and `constrain` for activations.

Models name the axes of an array by letters (`constrain(x, "BTD")`); only this file knows which mesh axis a letter means.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxnmt import config as cfg

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

    Args:
        topology: devices that programs are only compiled for; None: those that are here.

    Raises:
        UserError: the axes do not multiply to the number of devices.
    """
    devices, sizes = len(topology or jax.devices()), [config.data, config.fsdp, config.tensor]
    known = int(np.prod([n for n in sizes if n != -1]))
    if sizes.count(-1) > 1 or known < 1 or devices % known or (-1 not in sizes and known != devices):
        raise cfg.UserError(
            f"mesh.data {sizes[0]} x mesh.fsdp {sizes[1]} x mesh.tensor {sizes[2]} does not fit {devices} device(s): "
            "their product must be that number; write -1 for one axis to let it fill up"
        )
    sizes = [devices // known if n == -1 else n for n in sizes]
    return jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=topology)


def batch_devices(config: cfg.Mesh) -> int:
    """How many parts a batch's rows are split into."""
    mesh = make_mesh(config)
    return mesh.shape["data"] * mesh.shape["fsdp"]


def constrain(x: jax.Array, letters: str) -> jax.Array:
    """Lay an activation out by its shape letters; does nothing outside a mesh."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*(_LETTERS.get(letter) for letter in letters)))


def whole(letter: str) -> bool:
    """Whether an activation's axis lies whole on every device."""
    mesh, axes = jax.sharding.get_abstract_mesh(), _LETTERS.get(letter, ())
    return mesh.empty or all(mesh.shape[axis] == 1 for axis in ([axes] if isinstance(axes, str) else axes))


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
            raise cfg.UserError(f"mesh.{axis} {mesh.shape[axis]} does not divide {size}, a dimension of {path} {shape}: change one of them")
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
        keys = path_name(path).split("/")
        for start in range(len(keys)):
            if (found := specs.get("/".join(keys[start:]))) is not None:
                return NamedSharding(mesh, _inherit(leaf.shape, *found))
        return NamedSharding(mesh, PartitionSpec())

    return jax.tree_util.tree_map_with_path(sharding, state)


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


def to_mesh(batch: dict[str, np.ndarray], mesh: jax.sharding.Mesh) -> dict[str, jax.Array]:
    """Host arrays of a whole batch -> global device arrays; each process hands over the rows its devices hold."""
    sharding = batch_sharding(mesh)
    return {name: jax.make_array_from_callback(x.shape, sharding, lambda index, x=x: x[index]) for name, x in batch.items()}
