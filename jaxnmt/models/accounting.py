"""How much arithmetic a model does, from the shapes of its parameters."""

from __future__ import annotations

import math
import re
from typing import Any

import jax

from jaxnmt.parallel.sharding import path_name


def parameter_count(params: Any) -> int:
    """Numbers in a tree of arrays or ShapeDtypeStructs."""
    return sum(math.prod(x.shape) for x in jax.tree.leaves(params))


def training_flops(params: Any, source_tokens: float, target_tokens: float) -> float:
    """Floating-point operations of the matrix products with weights, forward and backward: 6 for each weight and token.

    Weights (arrays called `kernel`) of the encoder and the keys and values of cross-attention see source tokens, the others target tokens;
    an embedding counts once, as the output layer. Attention's own products (1–2 % at a sentence's length) are left out.
    """
    sides = {"source": 0, "target": 0}
    tables = {}
    for path, x in jax.tree_util.tree_leaves_with_path(params):
        name = path_name(path)
        if name.endswith("table"):
            tables[name.split("/")[0]] = math.prod(x.shape)
        elif name.endswith("kernel"):
            sides["source" if name.startswith("encoder/") or re.search(r"cross_attention/(kv|keys)", name) else "target"] += math.prod(
                x.shape
            )
    output = next((tables[name] for name in ("output_embedding", "target_embedding", "shared_embedding") if name in tables), 0)
    return 6.0 * (sides["source"] * source_tokens + (sides["target"] + output) * target_tokens)
