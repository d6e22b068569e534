"""Our Transformer's parameters under the names of CTranslate2's Transformer, and what its file says of the architecture.

The facts are those of CTranslate2 4.8: `python/ctranslate2/specs/transformer_spec.py`, `src/layers`. Export and import share `pairs`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxnmt import config as cfg
from jaxnmt.data.special_tokens import BOS, PAD

NORM_EPSILON = 1e-5  # `models.layers` has it, and imports flax
POSITIONS = 2048
"""Rows of the table of positions at least. CTranslate2 reads no further, and by default cuts a source after 1024 tokens."""
IMPOSSIBLE = -1e9
"""Bias of PAD and BOS, which no translation has. CTranslate2 does not know that they are special."""
ROTARY_BASE = 10000.0
ACTIVATIONS = {"relu": 0, "gelu": 1, "silu": 2, "swiglu": 2, "gelu_exact": 3}


class Pair(NamedTuple):
    """A module of ours, and the scope of the same module in CTranslate2.

    Attributes:
        ours, theirs: paths, such as `encoder/layer_0/mlp/wi` and `encoder/layer_0/ffn/linear_0`.
        kind: dense, norm or table.
    """

    ours: str
    theirs: str
    kind: str


def pairs(model: cfg.Transformer) -> Iterator[Pair]:
    """Yield the modules of a model with parameters. A table that has several uses is there several times."""
    tie = model.tie_embeddings
    yield Pair("shared_embedding" if tie == "all" else "source_embedding", "encoder/embeddings_0", "table")
    yield Pair("shared_embedding" if tie == "all" else "target_embedding", "decoder/embeddings", "table")
    output = {"all": "shared_embedding", "decoder": "target_embedding", "none": "output_embedding"}[tie]
    yield Pair(output, "decoder/projection", "table")
    for side, depth in depths(model).items():
        if model.norm_order == "pre":
            yield Pair(f"{side}/final_norm", f"{side}/layer_norm", "norm")
        for i in range(depth):
            for ours, theirs, kind in _layer(model, side == "decoder"):
                yield Pair(f"{side}/layer_{i}/{ours}", f"{side}/layer_{i}/{theirs}", kind)


def depths(model: cfg.Transformer) -> dict[str, int]:
    """Return the number of layers of each side."""
    return {"encoder": model.num_encoder_layers, "decoder": model.num_decoder_layers}


def _layer(model: cfg.Transformer, cross: bool) -> Iterator[Pair]:
    yield Pair("self_attention/qkv", "self_attention/linear_0", "dense")
    yield Pair("self_attention/out", "self_attention/linear_1", "dense")
    yield Pair("self_attention_norm", "self_attention/layer_norm", "norm")
    if cross:
        for i, name in enumerate(("q", "kv", "out")):
            yield Pair(f"cross_attention/{name}", f"attention/linear_{i}", "dense")
        yield Pair("cross_attention_norm", "attention/layer_norm", "norm")
    yield Pair("mlp/wi", "ffn/linear_0", "dense")
    if model.activation == "swiglu":
        yield Pair("mlp/gate", "ffn/linear_0_noact", "dense")
    yield Pair("mlp/wo", "ffn/linear_1", "dense")
    yield Pair("mlp_norm", "ffn/layer_norm", "norm")


def architecture(model: cfg.Transformer) -> dict[str, np.ndarray]:
    """Return the numbers and flags that describe a model: scalars by name."""
    width, found = head_width(model), dict[str, np.generic]()
    for side, depth in depths(model).items():
        found |= {f"{side}/num_heads": np.int16(model.num_heads), f"{side}/activation": np.int8(ACTIVATIONS[model.activation])}
        found |= {f"{side}/pre_norm": np.int8(model.norm_order == "pre")}
        found[f"{side}/scale_embeddings"] = np.int8(model.scale_embeddings)
        for i in range(depth):
            scope = f"{side}/layer_{i}/self_attention"
            if model.head_dim:
                found |= {f"{side}/layer_{i}/{name}/head_dim": np.int32(width) for name in attentions(side)}
            if model.positions == "rotary":
                found |= {f"{scope}/rotary_dim": np.int32(width), f"{scope}/rotary_interleave": np.int8(0)}
                found |= {f"{scope}/rotary_base": np.float32(ROTARY_BASE)}
    layers = model.num_decoder_layers  # the layer that our word alignments read, and all of its heads
    found |= {"decoder/alignment_layer": np.int16(layers - 2 if layers > 2 else layers - 1), "decoder/alignment_heads": np.int16(0)}
    found |= {
        f"decoder/{flag}": np.int8(0) for flag in ("alibi", "alibi_use_positive_positions", "scale_alibi", "start_from_zero_embedding")
    }
    return {name: np.asarray(value) for name, value in (found | {"encoder/embeddings_merge": np.int8(0)}).items()}


def attentions(side: str) -> tuple[str, ...]:
    """Return the names of a layer's attentions."""
    return ("self_attention",) if side == "encoder" else ("self_attention", "attention")


def head_width(model: cfg.Transformer) -> int:
    """Return the width of one head."""
    return model.head_dim or model.emb_dim // model.num_heads


def to_theirs(kind: str, params: Mapping[str, np.ndarray], vocabulary: int) -> dict[str, np.ndarray]:
    """Return the arrays of a module under CTranslate2's names.

    Args:
        kind: of the module, see `Pair`.
        params: its parameters.
        vocabulary: rows of a table that are tokens.
    """
    if kind == "table":
        return {"weight": params["table"][:vocabulary]}
    if kind == "norm":
        return {"gamma": params["scale"]} | ({"beta": params["bias"]} if "bias" in params else {})
    bias = params["bias"].reshape(-1)
    return {"weight": params["kernel"].reshape(-1, len(bias)).T, "bias": bias}


def to_ours(kind: str, found: Mapping[str, np.ndarray], shapes: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the parameters of a module from CTranslate2's arrays: what `to_theirs` undoes.

    Args:
        kind: of the module, see `Pair`.
        found: the arrays by CTranslate2's names.
        shapes: the parameters as ShapeDtypeStructs.

    Raises:
        ValueError: an array is missing, or has another size.
    """
    if kind == "table":
        table, (rows, width) = found["weight"], shapes["table"].shape
        if table.ndim != 2 or table.shape[1] != width or len(table) > rows:
            raise ValueError(f"a table of {rows} tokens of width {width} cannot hold an array of shape {table.shape}")
        return {"table": np.pad(table, ((0, rows - len(table)), (0, 0)))}
    if kind == "norm":
        made = {"scale": found["gamma"]} | ({"bias": found["beta"]} if "bias" in shapes else {})
    else:
        made = {"kernel": found["weight"].T, "bias": found["bias"]}
    for name, array in made.items():
        if array.size != math.prod(shapes[name].shape):
            raise ValueError(f"a {name} of shape {shapes[name].shape} cannot hold an array of shape {array.shape}")
    return {name: np.ascontiguousarray(array).reshape(shapes[name].shape) for name, array in made.items()}


def output_bias(vocabulary: int, learned: np.ndarray | None) -> np.ndarray:
    """Return the bias of the output layer, float32 (vocabulary,): the model's own or zeros, and at PAD and BOS `IMPOSSIBLE`."""
    own = np.zeros(vocabulary, np.float32) if learned is None else learned[:vocabulary]
    return np.where(np.isin(np.arange(vocabulary), (PAD, BOS)), np.float32(IMPOSSIBLE), own)


def quantised(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return int8 (out, in), and the float32 scale of each row, by which the row was multiplied: 127 over its largest magnitude."""
    largest = np.abs(weight).max(1)
    scale = np.float32(127) / np.where(largest == 0, np.float32(127), largest)
    return np.rint(weight * scale[:, None]).astype(np.int8), scale.astype(np.float32)


def positions(model: cfg.Transformer, learned: np.ndarray | None, longest: int) -> np.ndarray:
    """Return the vectors that are added at each position, float32 (positions, width).

    Args:
        model: its `positions` are not rotary.
        learned: the table that was trained. Later positions use its last row, as in the model.
        longest: the number of positions that are needed.
    """
    rows = max(POSITIONS, longest)
    if learned is not None:
        return learned[np.minimum(np.arange(rows), len(learned) - 1)]
    if model.positions in ("sinusoidal", "fairseq"):
        from jaxnmt.models.layers import sinusoids

        return sinusoids(rows, model.emb_dim, model.positions)
    return np.zeros((rows, model.emb_dim), np.float32)
