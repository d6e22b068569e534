"""Layers one by one (`layer_0`, `layer_1`, …) or stacked (`layers`, the layer axis in front): the same parameters.

Checkpoints hold them one by one; a model whose layers are scanned wants them stacked.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp

from jaxnmt import config as cfg

_LAYER = re.compile(r"layer_(\d+)")


def is_scanned(config: Any) -> bool:
    """Whether a model's layers are stacked."""
    return isinstance(config, cfg.Transformer) and config.scan_layers


def unscanned(config: Any) -> Any:
    """The same model with its layers one by one, computing nothing twice: what checkpoints hold and decoding runs."""
    return dataclasses.replace(config, scan_layers=False, remat="none") if isinstance(config, cfg.Transformer) else config


def stack_layers(tree: Any) -> Any:
    """Every `layer_i` of the dicts in a pytree -> one `layers`, each leaf with the layer axis in front."""
    return _map_dicts(_stack, tree)


def unstack_layers(tree: Any) -> Any:
    """The inverse of `stack_layers`."""
    return _map_dicts(_unstack, tree)


def _map_dicts(function, tree):
    """`function` of every outermost dict; it maps on into the dict's values, which may be other containers (optax has dicts of tuples)."""
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
