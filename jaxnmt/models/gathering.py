"""Decoding with sharded parameters: each scanned layer all-gathers its own when it runs."""

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
    """Return the model for use within `per_device`, and a function that gathers the parameters outside of scanned layers.

    The model's layers gather their own parameters. Kernels are cast to the computation's dtype first.

    Args:
        model: one whose `can_gather` is true.
        layouts: the PartitionSpec of each parameter.
    """
    names = {path_name(path): layout for path, layout in jax.tree_util.tree_leaves_with_path(layouts)}
    # The layer axis comes first and is never sharded.
    of_layer = {name: jax.sharding.PartitionSpec(*layout[1:]) for name, layout in names.items() if _LAYERS in name}
    dtype = getattr(model.module.config, "dtype", "float32")  # type: ignore[attr-defined]

    def gather_in_layer(stack: str, path: Any, x: jax.Array) -> jax.Array:
        name = f"{stack}{_LAYERS}{path_name(path).split('params/')[1]}"
        return gather(x.astype(dtype) if name.endswith("kernel") else x, of_layer[name])

    def gather_outside(params: Any) -> Any:
        gathered = lambda path, x, layout: x if _LAYERS in path_name(path) else gather(x, layout)  # noqa: E731
        return jax.tree_util.tree_map_with_path(gathered, params, layouts)

    return model.with_module(gather=gather_in_layer), gather_outside
