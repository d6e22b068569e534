"""How many parameters a model has, and how much arithmetic it does."""

from __future__ import annotations

import math
from typing import Any

import jax

from jaxnmt.models.seq2seq import Seq2Seq
from jaxnmt.parallel.axes import is_kernel, path_name


def parameter_count(params: Any) -> int:
    """Return the number of numbers in a tree of arrays or ShapeDtypeStructs."""
    return sum(math.prod(x.shape) for x in jax.tree.leaves(params))


def training_flops(model: Seq2Seq, source_tokens: float, target_tokens: float) -> float:
    """Return the floating-point operations of a training step's products with weights: 6 for each weight and token.

    Kernels of the model's `source_side` multiply source tokens, all other kernels and the output layer's table target tokens. Attention's
    own products (1-2 % at a sentence's length) are left out.
    """
    operations = math.prod(jax.eval_shape(model.output_table, model.shapes).shape) * target_tokens if model.has_features else 0
    for (path, axes), x in zip(jax.tree_util.tree_leaves_with_path(model.axes), jax.tree.leaves(model.shapes), strict=True):
        if is_kernel(path, axes):
            reads_source = any(f"/{part}/" in f"/{path_name(path)}" for part in model.source_side)
            operations += math.prod(x.shape) * (source_tokens if reads_source else target_tokens)
    return 6.0 * operations
