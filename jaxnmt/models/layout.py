"""Layers one by one (`layer_0`, `layer_1`, ...) or stacked (`layers`, with the layer axis first): the same parameters.

Checkpoints hold them one by one; a model that scans its layers wants them stacked.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp

_LAYER = re.compile(r"layer_(\d+)")


def is_scanned(config: Any) -> bool:
    """Return whether a model's layers are stacked: its setting `scan_layers`, if it has one."""
    return getattr(config, "scan_layers", False)


def unscanned(config: Any) -> Any:
    """Return the same model with its layers one by one and without rematerialization: what checkpoints hold and decoding runs."""
    if not hasattr(config, "scan_layers"):
        return config
    return dataclasses.replace(config, scan_layers=False, **({"remat": "none"} if hasattr(config, "remat") else {}))


def stack_layers(tree: Any) -> Any:
    """Replace the `layer_0`, `layer_1`, ... of each dict in a pytree by one `layers`, whose leaves have the layer axis first."""
    return _map_dicts(_stack, tree)


def unstack_layers(tree: Any) -> Any:
    """Undo `stack_layers`."""
    return _map_dicts(_unstack, tree)


def _map_dicts(function, tree):
    """Apply `function` to every outermost dict; it goes on into the dict's values, which may be other containers."""
    return jax.tree.map(lambda node: function(node) if isinstance(node, dict) else node, tree, is_leaf=lambda node: isinstance(node, dict))


def _stack(node: dict) -> dict:
    layers = sorted((name for name in node if _LAYER.fullmatch(name)), key=lambda name: int(name.removeprefix("layer_")))
    rest = {name: _map_dicts(_stack, value) for name, value in node.items() if name not in layers}
    return rest | {"layers": jax.tree.map(lambda *leaves: jnp.stack(leaves), *(node[name] for name in layers))} if layers else rest


def _unstack(node: dict) -> dict:
    rest = {name: _map_dicts(_unstack, value) for name, value in node.items() if name != "layers"}
    if "layers" in node:
        depth = jax.tree.leaves(node["layers"])[0].shape[0]
        rest |= {f"layer_{i}": jax.tree.map(lambda x, i=i: x[i], node["layers"]) for i in range(depth)}
    return rest
