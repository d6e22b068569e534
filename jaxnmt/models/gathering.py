"""Decoding with parameters that stay spread over devices: each layer's are gathered when it is the layer's turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax

from jaxnmt.parallel.axes import path_name
from jaxnmt.parallel.sharding import gather

if TYPE_CHECKING:
    from jaxnmt.models.seq2seq import Seq2Seq

_LAYERS = "/layers/"  # of a path to a parameter of stacked layers


def gathering(model: Seq2Seq, layouts: Any) -> tuple[Seq2Seq, Callable[[Any], Any]]:
    """Return the model for use within `per_device`, and what makes its parameters from those of a device.

    Kernels are gathered in the type that they are multiplied in. Parameters outside of layers are gathered once.

    Args:
        model: one whose `can_gather` is true.
        layouts: the PartitionSpec of each parameter.
    """
    names = {path_name(path): layout for path, layout in jax.tree_util.tree_leaves_with_path(layouts)}
    # The layer axis comes first, and is whole on each device.
    of_layer = {name: jax.sharding.PartitionSpec(*layout[1:]) for name, layout in names.items() if _LAYERS in name}
    dtype = getattr(model.module.config, "dtype", "float32")  # type: ignore[attr-defined]

    def layer(stack: str, path: Any, x: jax.Array) -> jax.Array:
        name = f"{stack}{_LAYERS}{path_name(path).split('params/')[1]}"
        return gather(x.astype(dtype) if name.endswith("kernel") else x, of_layer[name])

    def others(params: Any) -> Any:
        whole = lambda path, x, layout: x if _LAYERS in path_name(path) else gather(x, layout)  # noqa: E731
        return jax.tree_util.tree_map_with_path(whole, params, layouts)

    return model.with_module(gather=layer), others
