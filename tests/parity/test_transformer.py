"""Transformer layers against torch.nn's with the same weights: outputs, and every gradient of a random linear functional.

Our gelu is the tanh approximation (Hendrycks and Gimpel 2016), so torch is told to use it too: its own "gelu" is the exact one.
"""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest
import torch
from parity.torch_side import LENGTHS, Reader, assert_equal, coefficients, gradient, leaf, normal, randomised, value

from jaxnmt import config as cfg
from jaxnmt.models.transformer import Block

WIDTH, HEADS, HIDDEN, ROWS = 12, 3, 20, len(LENGTHS)
SOURCE_MASK_BS = np.arange(LENGTHS.max()) < LENGTHS[:, None]
TARGET_MASK_BT = np.arange(6) < np.array([[2], [4], [6], [1]])
ACTIVATIONS = {"relu": torch.relu, "gelu": functools.partial(torch.nn.functional.gelu, approximate="tanh")}
forms = pytest.mark.parametrize(("norm_order", "activation"), [(order, name) for order in ("pre", "post") for name in ACTIVATIONS])


def config_of(norm_order: str, activation: str) -> cfg.Transformer:
    none = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}
    return cfg.Transformer(emb_dim=WIDTH, num_heads=HEADS, mlp_dim=HIDDEN, norm_order=norm_order, activation=activation, **none)


def torch_layer(kind: type, norm_order: str, activation: str) -> torch.nn.Module:
    torch.manual_seed(0)
    form = {"activation": ACTIVATIONS[activation], "norm_first": norm_order == "pre"}
    return randomised(kind(WIDTH, HEADS, HIDDEN, dropout=0.0, batch_first=True, **form))


def projection(weight_OD: np.ndarray, bias_O: np.ndarray, *shape: int) -> dict:
    return {"kernel": weight_OD.T.reshape(WIDTH, *shape, HEADS, WIDTH // HEADS), "bias": bias_O.reshape(*shape, HEADS, WIDTH // HEADS)}


def attention(module: torch.nn.MultiheadAttention, read: Reader, cross: bool) -> dict:
    weight, bias = read(module.in_proj_weight), read(module.in_proj_bias)
    out = {"kernel": read(module.out_proj.weight).T.reshape(HEADS, WIDTH // HEADS, WIDTH), "bias": read(module.out_proj.bias)}
    if not cross:
        return {"qkv": projection(weight, bias, 3), "out": out}
    return {"q": projection(weight[:WIDTH], bias[:WIDTH]), "kv": projection(weight[WIDTH:], bias[WIDTH:], 2), "out": out}


def layer_tree(layer: torch.nn.Module, read: Reader) -> dict:
    """A layer of torch's as our parameters, or their gradients."""
    norm = lambda module: {"scale": read(module.weight), "bias": read(module.bias)}  # noqa: E731
    dense = lambda module: {"kernel": read(module.weight).T, "bias": read(module.bias)}  # noqa: E731
    tree = {"self_attention": attention(layer.self_attn, read, False), "self_attention_norm": norm(layer.norm1)}
    if isinstance(layer, torch.nn.TransformerDecoderLayer):
        tree |= {"cross_attention": attention(layer.multihead_attn, read, True), "cross_attention_norm": norm(layer.norm2)}
        mlp_norm = norm(layer.norm3)
    else:
        mlp_norm = norm(layer.norm2)
    return tree | {"mlp": {"wi": dense(layer.linear1), "wo": dense(layer.linear2)}, "mlp_norm": mlp_norm}


def assert_parity(run, theirs: torch.nn.Module, outcome: torch.Tensor, inputs: dict[str, np.ndarray], leaves: dict[str, torch.Tensor]):
    """`run(params, inputs)` is ours; `outcome` what torch's layer made of the same, `leaves`."""
    ours, pull_back = jax.vjp(run, layer_tree(theirs, value), inputs)
    assert_equal(ours, value(outcome))
    functional = coefficients(np.random.default_rng(4), ours)
    outcome.backward(torch.tensor(functional))
    assert_equal(pull_back(functional), (layer_tree(theirs, gradient), {name: gradient(x) for name, x in leaves.items()}))


@forms
def test_encoder_layer_with_padding(norm_order, activation):
    theirs = torch_layer(torch.nn.TransformerEncoderLayer, norm_order, activation)
    inputs = {"x": normal(np.random.default_rng(3), *SOURCE_MASK_BS.shape, WIDTH)}
    leaves = {name: leaf(x) for name, x in inputs.items()}
    block, mask_B1S = Block(config_of(norm_order, activation)), SOURCE_MASK_BS[:, None]
    run = lambda params, inputs: block.apply({"params": params}, inputs["x"], 0, mask_B1S, None, None)[0]  # noqa: E731
    assert_parity(run, theirs, theirs(leaves["x"], src_key_padding_mask=torch.tensor(~SOURCE_MASK_BS)), inputs, leaves)


@forms
def test_decoder_layer_with_padding_on_both_sides_and_no_later_word(norm_order, activation):
    theirs = torch_layer(torch.nn.TransformerDecoderLayer, norm_order, activation)
    random = np.random.default_rng(3)
    inputs = {"x": normal(random, *TARGET_MASK_BT.shape, WIDTH), "memory": normal(random, *SOURCE_MASK_BS.shape, WIDTH)}
    leaves = {name: leaf(x) for name, x in inputs.items()}
    block = Block(config_of(norm_order, activation), cross=True)
    causal_TT = np.tril(np.ones((TARGET_MASK_BT.shape[1],) * 2, bool))
    masks = causal_TT & TARGET_MASK_BT[:, None], SOURCE_MASK_BS[:, None]

    def run(params, inputs):
        return block.apply({"params": params}, inputs["x"], 0, masks[0], None, None, inputs["memory"], masks[1])[0]

    outcome = theirs(
        leaves["x"],
        leaves["memory"],
        tgt_mask=torch.tensor(~causal_TT),
        tgt_key_padding_mask=torch.tensor(~TARGET_MASK_BT),
        memory_key_padding_mask=torch.tensor(~SOURCE_MASK_BS),
    )
    assert_parity(run, theirs, outcome, inputs, leaves)
