"""The parameters of a model: how many there are, what they cost, and the two forms in which the layers of a stack are kept."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from jaxnmt.config import Transformer
from jaxnmt.parallel.axes import is_kernel, path_name

if TYPE_CHECKING:
    from jaxnmt.models.seq2seq import Seq2Seq


def parameter_count(params: Any) -> int:
    """Return the number of numbers in a tree of arrays or ShapeDtypeStructs."""
    return sum(math.prod(x.shape) for x in jax.tree.leaves(params))


def training_flops(model: Seq2Seq, source_tokens: float, target_tokens: float) -> float:
    """Return the floating-point operations of a training step's products with weights: 6 for each weight and token.

    Kernels of the model's `source_side` multiply source tokens, all other kernels and the output layer's table target tokens. Attention's
    own products (1-2 % at a sentence's length) are left out.
    """
    has_table = hasattr(model.module, "output_table")
    operations = math.prod(jax.eval_shape(model.output_table, model.shapes).shape) * target_tokens if has_table else 0
    for (path, axes), x in zip(jax.tree_util.tree_leaves_with_path(model.axes), jax.tree.leaves(model.shapes), strict=True):
        if is_kernel(path, axes):
            reads_source = any(f"/{part}/" in f"/{path_name(path)}" for part in model.source_side)
            operations += math.prod(x.shape) * (source_tokens if reads_source else target_tokens)
    return 6.0 * operations


def is_scanned(config: Any) -> bool:
    """Return whether a model's layers are stacked: its setting `scan_layers`, if it has one."""
    return getattr(config, "scan_layers", False)


UNROLLED = 12
"""Layers of a stack up to which decoding unrolls what training scans: a step is up to a quarter faster, and compiles longer with each."""


def for_decoding(config: Any) -> Any:
    """Return the same model as decoding runs it: without rematerialization, and with scanned layers if they are, and are many.

    Models of users' own are unrolled: their `step` need not know scanned layers.
    """
    scans = type(config) is Transformer and config.scan_layers and max(config.num_encoder_layers, config.num_decoder_layers) > UNROLLED
    return dataclasses.replace(unscanned(config), scan_layers=True) if scans else unscanned(config)


def unscanned(config: Any) -> Any:
    """Return the same model with its layers one by one and without rematerialization: what checkpoints hold."""
    plain = {"scan_layers": False, "remat": "none"}
    return dataclasses.replace(config, **{name: value for name, value in plain.items() if hasattr(config, name)})


def stack_layers(tree: Any) -> Any:
    """Replace the `layer_0`, `layer_1`, ... of each dict in a pytree by one `layers`, whose leaves have the layer axis first.

    Checkpoints hold layers one by one; a model that scans its layers wants them stacked.
    """

    def stack(node: dict) -> dict:
        layers = [f"layer_{i}" for i in range(len(node)) if f"layer_{i}" in node]
        rest = {name: value for name, value in node.items() if name not in layers}
        return rest | {"layers": jax.tree.map(lambda *x: jnp.stack(x), *(node[name] for name in layers))} if layers else rest

    return _map_dicts(stack, tree)


def unstack_layers(tree: Any) -> Any:
    """Undo `stack_layers`."""

    def unstack(node: dict) -> dict:
        rest = {name: value for name, value in node.items() if name != "layers"}
        depth = len(jax.tree.leaves(node["layers"])[0]) if "layers" in node else 0
        return rest | {f"layer_{i}": jax.tree.map(lambda x, i=i: x[i], node["layers"]) for i in range(depth)}

    return _map_dicts(unstack, tree)


def _map_dicts(function, tree):
    """Apply `function` to every dict of a pytree, the inner ones first."""

    def mapped(node):
        return function({name: _map_dicts(function, value) for name, value in node.items()}) if isinstance(node, dict) else node

    return jax.tree.map(mapped, tree, is_leaf=lambda node: isinstance(node, dict))
