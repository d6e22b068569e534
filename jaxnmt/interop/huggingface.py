"""The layout that Marian, Pegasus and M2M100 have in Hugging Face's transformers: settings, names and shapes of their tensors, by ours.

A tensor there is a matrix (outputs, inputs), and queries, keys and values are apart; ours are (inputs, ..., outputs) and together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxnmt.config import Transformer
from jaxnmt.data.pieces import Numbering
from jaxnmt.data.special_tokens import BOS, PAD

ACTIVATIONS = {"relu": "relu", "gelu": "gelu_new", "gelu_exact": "gelu", "silu": "swish"}
"""Their names of our activations."""
NO_TOKEN = -1e9
"""The bias of padding's logit, which our search takes out of the vocabulary before the softmax."""


class Tensor(NamedTuple):
    """A tensor of theirs, and its place in ours.

    Attributes:
        name: theirs.
        shape: theirs.
        path: of our parameter, or of one that holds it.
        part: which of our parameter's parts it is, such as keys of (queries, keys, values); None: all of it.
        side: of a table or the bias of logits, whose vocabulary its rows are, "source" or "target"; "" for other tensors.
    """

    name: str
    shape: tuple[int, ...]
    path: str
    part: int | None = None
    side: str = ""


def tensors(model: Transformer, source_size: int, target_size: int) -> Iterator[Tensor]:
    """Yield every tensor of a model that they write.

    Args:
        model: the settings.
        source_size, target_size: tokens of the vocabularies there.
    """
    width, hidden = model.emb_dim, model.mlp_dim
    tables = {"all": {"model.shared": "shared_embedding"}}.get(model.tie_embeddings) or {
        "model.encoder.embed_tokens": "source_embedding",
        "model.decoder.embed_tokens": "target_embedding",
        **({"lm_head": "output_embedding"} if model.tie_embeddings == "none" else {}),
    }
    for name, path in tables.items():
        side = "source" if path == "source_embedding" else "target"
        yield Tensor(f"{name}.weight", (source_size if side == "source" else target_size, width), f"{path}/table", None, side)
    yield Tensor("final_logits_bias", (1, target_size), "output_bias", None, "target")

    def dense(name: str, path: str, inputs: int, outputs: int, part: int | None = None) -> Iterator[Tensor]:
        yield Tensor(f"{name}.weight", (outputs, inputs), f"{path}/kernel", part)
        yield Tensor(f"{name}.bias", (outputs,), f"{path}/bias", part)

    def norm(name: str, path: str) -> Iterator[Tensor]:
        yield Tensor(f"{name}.weight", (width,), f"{path}/scale")
        yield Tensor(f"{name}.bias", (width,), f"{path}/bias")

    for stack, depth in (("encoder", model.num_encoder_layers), ("decoder", model.num_decoder_layers)):
        for index in range(depth):
            theirs, ours = f"model.{stack}.layers.{index}", f"{stack}/layer_{index}"
            for part, name in enumerate(("q_proj", "k_proj", "v_proj")):
                yield from dense(f"{theirs}.self_attn.{name}", f"{ours}/self_attention/qkv", width, width, part)
            yield from dense(f"{theirs}.self_attn.out_proj", f"{ours}/self_attention/out", width, width)
            yield from norm(f"{theirs}.self_attn_layer_norm", f"{ours}/self_attention_norm")
            if stack == "decoder":
                yield from dense(f"{theirs}.encoder_attn.q_proj", f"{ours}/cross_attention/q", width, width)
                for part, name in enumerate(("k_proj", "v_proj")):
                    yield from dense(f"{theirs}.encoder_attn.{name}", f"{ours}/cross_attention/kv", width, width, part)
                yield from dense(f"{theirs}.encoder_attn.out_proj", f"{ours}/cross_attention/out", width, width)
                yield from norm(f"{theirs}.encoder_attn_layer_norm", f"{ours}/cross_attention_norm")
            yield from dense(f"{theirs}.fc1", f"{ours}/mlp/wi", width, hidden)
            yield from dense(f"{theirs}.fc2", f"{ours}/mlp/wo", hidden, width)
            yield from norm(f"{theirs}.final_layer_norm", f"{ours}/mlp_norm")
        if model.norm_order == "pre":
            yield from norm(f"model.{stack}.layer_norm", f"{stack}/final_norm")


def theirs(tensor: Tensor, params: Mapping[str, np.ndarray], numberings: Mapping[str, Numbering]) -> np.ndarray:
    """Return a tensor as they write it.

    Args:
        tensor: which one.
        params: ours by path; without `output_bias`, no token has a bias.
        numberings: of the source and the target vocabulary there.
    """
    if tensor.side:
        numbering = numberings[tensor.side]
        if tensor.path not in params:
            x: np.ndarray = np.zeros(len(numbering.tokens), np.float32)
            x[numbering.pad] = NO_TOKEN
        else:
            x = params[tensor.path][numbering.ours]
        return x.reshape(tensor.shape)
    x = params[tensor.path]
    if tensor.part is not None:
        x = x.take(tensor.part, axis=x.ndim - 3)  # before heads and their width
    return x.reshape(tensor.shape[::-1]).T


def put(tensor: Tensor, x: np.ndarray, params: dict[str, np.ndarray], numberings: Mapping[str, Numbering]) -> None:
    """Write a tensor of theirs into its place in ours. Tokens that they do not have keep their zeros."""
    to = params[tensor.path]
    if tensor.side:
        numbering, rows = numberings[tensor.side], x.reshape(-1, *to.shape[1:])
        to[numbering.ours] = rows
        to[[PAD, BOS]] = rows[[numbering.pad, numbering.begin]]
    elif tensor.part is None:
        to[...] = x.T.reshape(to.shape)
    else:
        to = np.moveaxis(to, to.ndim - 3, 0)[tensor.part]  # a view
        to[...] = x.T.reshape(to.shape)


def settings(model: Transformer, kind: str, numberings: Mapping[str, Numbering], longest: int) -> dict[str, Any]:
    """Return their config.json.

    Args:
        model: our settings.
        kind: "marian" or "pegasus".
        numberings: of the source and the target vocabulary there.
        longest: positions that source and translation need.
    """
    target = numberings["target"]
    found = {
        "architectures": [{"marian": "MarianMTModel", "pegasus": "PegasusForConditionalGeneration"}[kind]],
        "model_type": kind,
        "is_encoder_decoder": True,
        "vocab_size": len(numberings["source"].tokens),
        "d_model": model.emb_dim,
        "activation_function": ACTIVATIONS[model.activation],
        "dropout": model.dropout,
        "attention_dropout": model.attention_dropout,
        "activation_dropout": model.activation_dropout,
        "max_position_embeddings": longest,
        "scale_embedding": model.scale_embeddings,
        "tie_word_embeddings": model.tie_embeddings != "none",
        "dtype": "float32",
        **special_ids(target),
    }
    for stack, depth in (("encoder", model.num_encoder_layers), ("decoder", model.num_decoder_layers)):
        found |= {f"{stack}_layers": depth, f"{stack}_attention_heads": model.num_heads, f"{stack}_ffn_dim": model.mlp_dim}
    if kind == "marian":
        found |= {"decoder_vocab_size": len(target.tokens), "share_encoder_decoder_embeddings": model.tie_embeddings == "all"}
    return found


def special_ids(target: Numbering) -> dict[str, Any]:
    """Return the ids that config.json and generation_config.json have."""
    return {
        "pad_token_id": target.pad,
        "eos_token_id": target.eos,
        "forced_eos_token_id": target.eos,
        "decoder_start_token_id": target.pad,
        "bos_token_id": None,
    }


def positions(length: int, width: int) -> np.ndarray:
    """Return the vectors of positions as they compute them, [sines | cosines], float32 (length, width); ours but for rounding."""
    angles = np.arange(length)[:, None] / np.power(10000, 2 * np.arange(width // 2) / width)
    return np.concatenate([np.sin(angles), np.cos(angles)], 1).astype(np.float32)
