"""The parameters of a model: how many there are, what they cost, and the two forms in which the layers of a stack are kept."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Collection
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


def training_flops(model: Seq2Seq, source_tokens: float, target_tokens: float, trained: Collection[str] | None = None) -> float:
    """Return the floating-point operations of a training step's products with weights: 6 for each weight and token if all are trained.

    They are 2 in the forward pass, 2 for the gradient of a weight that is trained, and 2 for the gradient that a product hands back if a
    trained parameter is before it; a layer counts as a whole. Kernels of the model's `source_side` multiply source tokens, all other
    kernels and the output layer's table target tokens. Attention's own products (1-2 % at a sentence's length) are left out.

    Args:
        model: the model.
        source_tokens, target_tokens: the tokens of the step.
        trained: paths of the parameters whose gradients are computed; None: all.
    """
    leaves = [
        (path_name(path), x, is_kernel(path, axes))
        for (path, axes), x in zip(jax.tree_util.tree_leaves_with_path(model.axes), jax.tree.leaves(model.shapes), strict=True)
    ]
    names = [name for name, _, _ in leaves]
    first = min(_place(model, name) for name in (names if trained is None else trained))

    def operations(name: str, reads: tuple[int, float]) -> int:
        return 6 if trained is None else 2 + 2 * (name in trained) + 2 * (first <= reads)

    flops = 0.0
    if hasattr(model.module, "output_table"):
        table = next((name for each in _OUTPUT_TABLES for name in names if name == each), "")
        flops += operations(table, _END) * math.prod(jax.eval_shape(model.output_table, model.shapes).shape) * target_tokens
    for name, x, multiplies in leaves:
        if multiplies:
            reads_source = model.is_source_side(name)
            place = _place(model, name)
            reads = (0, math.inf) if reads_source and place[0] else place
            flops += operations(name, reads) * math.prod(x.shape) * (source_tokens if reads_source else target_tokens)
    return flops


_OUTPUT_TABLES = ("output_embedding/table", "embed_output/table", "target_embedding/table", "shared_embedding/table")
_OUTPUT_LAYER = ("output_embedding", "embed_output", "output_bias")
"""Modules of the output layer alone: no layer is after them."""
_END = (1, math.inf)


def _place(model: Seq2Seq, name: str) -> tuple[int, float]:
    """Return where a parameter is on the way from the source to the output: (0 source, 1 target or 2 output layer; layer).

    Tables that are looked up are before all layers, and what a stack has besides its layers is after them.
    """
    module = name.partition("/")[0]
    if module in _OUTPUT_LAYER:
        return 2, 0
    is_source = module in (*model.source_side, "encoder_positions", "source_embedding", "shared_embedding")
    if layer := re.search(r"layer_(\d+)/|/layers/", name):
        return 1 - is_source, int(layer[1] or 0)
    return 1 - is_source, math.inf if module in ("encoder", "decoder") else -1


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
