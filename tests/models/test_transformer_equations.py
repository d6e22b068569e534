"""The Transformer's parts and a layer made of them against NumPy in float64, written from the papers' equations.

Vaswani et al. 2017; Su et al. 2021 (rotary positions, version 5 of arXiv 2104.09864); Zhang and Sennrich 2019 (RMSNorm); Shazeer 2020
(arXiv 2002.05202: Swish with beta 1, which is SiLU, and SwiGLU). Where ours is not what the paper prints, a comment says so. What
torch.nn has too (LayerNorm, ReLU, GELU, attention without positions) `make parity` compares with it.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxnmt import config as cfg
from jaxnmt.models.layers import FeedForward, Norm, Positions, rotate, sinusoids
from jaxnmt.models.transformer import Block

WIDTH, HEADS, HIDDEN = 12, 2, 10
PLACES = np.array([[0, 1, 2, 3, 4], [0, 1, 0, 1, 2], [7, 300, 2, 2, 511]])  # one sentence, two packed into a row, and any
PACKED = {"positions": np.array([[0, 1, 2, 3, 4, 5], [0, 1, 0, 1, 2, 3], [0, 0, 1, 2, 3, 4]])}
PACKED["segment_ids"] = np.cumsum(PACKED["positions"] == 0, axis=1)


def halves_of_pairs(width):
    """The papers' features in our order, 1, 3, 5, … and then 2, 4, 6, …: their pair (2i - 1, 2i) is our (i, i + width / 2)."""
    return [*range(0, width, 2), *range(1, width, 2)]


def rms_norm(a, g):
    """Zhang and Sennrich 2019, equation 4; ours adds 1e-5 under the root, as LayerNorm does."""
    return a / np.sqrt((a**2).sum() / len(a) + 1e-5) * g


def layer_norm(a, g, b):
    """Ba et al. 2016, equation 4, with the same addition."""
    return (a - a.mean()) / np.sqrt(((a - a.mean()) ** 2).mean() + 1e-5) * g + b


def swish(x, beta=1.0):
    return x / (1 + np.exp(-beta * x))


def feed_forward(x, p, activation):
    """Shazeer 2020, equations 3 and 6; ours has biases, which he leaves out."""
    hidden = swish(x @ p["wi"]["kernel"] + p["wi"]["bias"])
    if activation == "swiglu":
        hidden = hidden * (x @ p["gate"]["kernel"] + p["gate"]["bias"])
    return hidden @ p["wo"]["kernel"] + p["wo"]["bias"]


def rotation(m, d):
    """Su et al. 2021, equation 15: the matrix of position m."""
    R = np.zeros((d, d))
    for i in range(1, d // 2 + 1):
        angle = m * 10000 ** (-2 * (i - 1) / d)
        R[2 * i - 2 : 2 * i, 2 * i - 2 : 2 * i] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return R


def attention(x, p, places, seen):
    """Vaswani et al. 2017, equation 1 and section 3.2.2, of one sentence; queries and keys rotated (Su et al. 2021, equation 16)."""
    d = WIDTH // HEADS
    to_pairs = np.argsort(halves_of_pairs(d))
    heads = []
    for head in range(HEADS):
        q, k, v = (x @ p["qkv"]["kernel"][:, part, head] + p["qkv"]["bias"][part, head] for part in range(3))
        q, k = (np.array([rotation(m, d) @ row[to_pairs] for m, row in zip(places, y, strict=True)]) for y in (q, k))
        weights = np.where(seen, np.exp(q @ k.T / np.sqrt(d)), 0)
        heads.append(weights / weights.sum(1, keepdims=True) @ v)
    return sum(head @ p["out"]["kernel"][i] for i, head in enumerate(heads)) + p["out"]["bias"]


def normal(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def filled(module, *args, **options):
    """A module's parameters, random, and the same in float64."""
    shapes = nn.unbox(jax.eval_shape(lambda: module.init(jax.random.key(0), *args, **options))["params"])
    params = jax.tree.map(lambda x: jnp.asarray(0.5 * normal(x.shape, sum(x.shape))), shapes)
    return params, jax.tree.map(np.float64, params)


assert_close = functools.partial(tiny.assert_close, atol=1e-5)


@pytest.mark.parametrize("width", [6, 64])
def test_rotary_positions_turn_each_pair_by_its_angle(width):
    x = normal((*PLACES.shape, 3, width))
    ours = np.asarray(rotate(jnp.asarray(x), jnp.asarray(PLACES)))
    order = halves_of_pairs(width)
    for row, places in enumerate(PLACES):
        for place, m in enumerate(places):
            pairs = np.float64(x[row, place])[:, np.argsort(order)]
            np.testing.assert_allclose(ours[row, place], (pairs @ rotation(m, width).T)[:, order], atol=2e-4)  # of 511 radians in float32


def test_rotated_queries_and_keys_know_only_how_far_they_are_apart():
    q, k = normal((1, 1, 1, 64), 1), normal((1, 1, 1, 64), 2)
    at = lambda x, place: np.asarray(rotate(jnp.asarray(x), jnp.full((1, 1), place)))[0, 0, 0]  # noqa: E731
    products = {apart: [at(q, m + apart) @ at(k, m) for m in (0, 5, 100)] for apart in (-3, 0, 8)}
    for found in products.values():
        np.testing.assert_allclose(found, found[0], atol=1e-3)
    assert products[0][0] == pytest.approx(float(q.ravel() @ k.ravel()), abs=1e-4)
    assert abs(products[8][0] - products[0][0]) > 0.1


def test_rms_norm():
    x = 3 + normal((4, WIDTH))
    params, exact = filled(Norm("rmsnorm"), x)
    assert list(params) == ["scale"]
    assert_close(Norm("rmsnorm").apply({"params": params}, x), [rms_norm(a, exact["scale"]) for a in np.float64(x)])


@pytest.mark.parametrize("activation", ["silu", "swiglu"])
def test_feed_forward(activation):
    module, x = FeedForward(WIDTH, HIDDEN, activation, 0.0), normal((2, 3, WIDTH))
    params, exact = filled(module, x, None)
    assert ("gate" in params) == (activation == "swiglu")
    assert_close(module.apply({"params": params}, x, None), feed_forward(np.float64(x), exact, activation))


@pytest.mark.parametrize("norm_order", ["pre", "post"])
@pytest.mark.parametrize(("norm", "activation"), [("rmsnorm", "swiglu"), ("layernorm", "silu")])
def test_a_layer_of_them(norm_order, norm, activation):
    config = cfg.replace(tiny.BASE, emb_dim=WIDTH, num_heads=HEADS, mlp_dim=HIDDEN, positions="rotary")
    block = Block(cfg.replace(config, norm=norm, norm_order=norm_order, activation=activation))
    x, seen = normal((*PLACES.shape, WIDTH)), np.broadcast_to(np.tri(PLACES.shape[1], dtype=bool), (3, 5, 5)).copy()
    seen[1, 2:, :2] = False  # another sentence's words
    params, p = filled(block, x, 0, seen, PLACES, None)
    ours, _ = block.apply({"params": params}, x, 0, seen, PLACES, None)

    def normed(h, name):
        form = rms_norm if norm == "rmsnorm" else layer_norm
        return np.array([form(row, *(p[f"{name}_norm"][key] for key in ("scale", "bias") if key in p[f"{name}_norm"])) for row in h])

    for row, h in enumerate(np.float64(x)):
        parts = {
            "self_attention": lambda h, row=row: attention(h, p["self_attention"], PLACES[row], seen[row]),
            "mlp": lambda h: feed_forward(h, p["mlp"], activation),
        }
        for name, part in parts.items():
            h = h + part(normed(h, name)) if norm_order == "pre" else normed(h + part(h), name)
        np.testing.assert_allclose(ours[row], h, atol=2e-4 if row == 2 else 2e-5)  # 511 radians in float32


@pytest.mark.parametrize("width", [512, 6])
def test_sinusoidal_positions_are_the_papers_table(width):
    pos, i = np.mgrid[:600, : width // 2]
    table = np.empty((600, width))  # section 3.5: PE(pos, 2i), PE(pos, 2i + 1)
    table[:, 0::2], table[:, 1::2] = np.sin(pos / 10000 ** (2 * i / width)), np.cos(pos / 10000 ** (2 * i / width))
    np.testing.assert_allclose(sinusoids(600, width), table[:, halves_of_pairs(width)], atol=1e-7)  # ours: all sines, then all cosines


def test_fairseqs_positions_are_tensor2tensors_timing_signal_from_two():
    pos, i = np.mgrid[2:602, :32]  # frequencies from 1 to 1/10000 in 31 equal steps of their logarithm
    angles = pos * np.exp(-i * np.log(10000) / 31)
    np.testing.assert_allclose(sinusoids(600, 64, "fairseq"), np.concatenate([np.sin(angles), np.cos(angles)], 1), atol=1e-7)


def test_row_t_of_the_learned_table_is_added_to_word_t():
    module, x = Positions("learned", WIDTH, max_positions=400), normal((*PLACES.shape, WIDTH))
    params, exact = filled(module, x, PLACES, 512)
    assert_close(
        module.apply({"params": params}, x, PLACES, 512), x + exact["table"][np.minimum(PLACES, 399)]
    )  # those too far share the last


@pytest.mark.parametrize("kind", ["learned", "sinusoidal", "fairseq", "none"])
def test_both_sides_begin_with_words_and_positions(kind):
    """A model without layers hands on what it begins with; its words are scaled by sqrt(d) (Vaswani et al. 2017, section 3.4)."""
    config = cfg.replace(tiny.VARIANTS["learned"], positions=kind, num_encoder_layers=0, num_decoder_layers=0)
    model = tiny.model_of(config)
    params = tiny.params_of(model)
    tokens = np.random.default_rng(1).integers(4, 20, (3, 6))
    batch = {"encoder_input_tokens": jnp.asarray(tokens), "decoder_input_tokens": jnp.asarray(tokens)}
    packed = {f"{side}_{name}": jnp.asarray(x) for side in ("encoder", "decoder") for name, x in PACKED.items()}
    for given, places in ((batch, np.tile(np.arange(6), (3, 1))), (batch | packed, PACKED["positions"])):
        memory = model.encode(params, given)
        for side, found in (("source", memory.states_BSD), ("target", model.features(params, memory, given))):
            table = {name: sinusoids(6, config.emb_dim, name) for name in ("sinusoidal", "fairseq")} | {
                "none": np.zeros((6, config.emb_dim))
            }
            if kind == "learned":
                table["learned"] = params[f"{'encoder' if side == 'source' else 'decoder'}_positions"]["table"]
            assert_close(found, np.sqrt(config.emb_dim) * params[f"{side}_embedding"]["table"][tokens] + table[kind][places])
