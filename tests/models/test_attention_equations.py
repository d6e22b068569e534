"""The decoders that attend, step after step, against NumPy written from the papers' equations: one sentence, one word at a time.

Bahdanau, Cho and Bengio 2015 (RNNsearch) and Luong, Pham and Manning 2015, by their equations' numbers. NumPy computes in float64 and
never sees padding. Kernels are ours, so a paper's W x is x @ W here. Where ours is not what the paper prints, a comment says so.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnmt import config as cfg
from jaxnmt.models.recurrent import Decoder, RecurrentMemory

LENGTHS, STEPS, EMB, WIDTH = [5, 3, 1], 4, 4, 6


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    return np.exp(x - np.max(x)) / np.exp(x - np.max(x)).sum()


def rnnsearch(p, config, h, states, words):
    """Bahdanau et al. 2015, appendices A.1.2 and A.2.2 -> what the output layer reads and the weights of each step, the last states."""
    ((s,),) = states
    cell, score, readout = p["layer_0"], p["cross_attention"], p["readout"]
    (W_r, W_z, W), (U_r, U_z, U), (C_r, C_z, C) = (
        np.moveaxis(cell[part]["kernel"], 1, 0) for part in ("input", "recurrent", "context_input")
    )
    b_r, b_z, b = cell["input"]["bias"]
    W_a, U_a, v_a = score["query_kernel"]["kernel"], score["keys_dense"]["kernel"], score["scorer"]
    U_o, V_o, C_o = np.split(readout["kernel"], [WIDTH, WIDTH + EMB])
    found, weights = [], []
    for Ey in words:
        e = np.array([v_a @ np.tanh(s @ W_a + h_j @ U_a + score["keys_dense"]["bias"]) for h_j in h])  # with a bias
        alpha = softmax(e)
        c = sum(alpha_j * h_j for alpha_j, h_j in zip(alpha, h, strict=True))
        z = sigmoid(-(Ey @ W_z + s @ U_z + c @ C_z + b_z))  # cuDNN's gate keeps where the paper's replaces: one minus it
        r = sigmoid(Ey @ W_r + s @ U_r + c @ C_r + b_r)
        new = np.tanh(Ey @ W + r * (s @ U + cell["candidate_bias"]) + c @ C + b)  # the paper: (r * s) @ U; ours as cuDNN and torch
        s = (1 - z) * s + z * new
        t = s @ U_o + Ey @ V_o + c @ C_o + readout["bias"]  # of the new state, as equation 4 has it
        found.append([max(t[2 * j], t[2 * j + 1]) for j in range(len(t) // 2)])
        weights.append(alpha)
    return found, weights, ((s,),)


def lstm(cell, z, h, c):
    """Zaremba et al. 2014, equation 1 onwards; `z`: the input's share of the gates (4, H)."""
    i, f, g, o = z + np.einsum("h,hgk->gk", h, cell["recurrent"]["kernel"])
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def luong_weights(p, config, h, h_t):
    """Luong et al. 2015, equations 7 to 10: the weight of each source state for the top state `h_t`."""
    if config.score == "location":  # equation 8; "for short sentences, we only use the top part"
        scores = (h_t @ p["location_kernel"]["kernel"])[: len(h)]
    elif config.score == "dot":
        scores = np.array([h_t @ h_s for h_s in h])
    elif config.score == "general":
        scores = np.array([h_t @ (h_s @ p["keys_dense"]["kernel"]) for h_s in h])
    else:  # concat, with a bias
        W_a = np.concatenate([p["query_kernel"]["kernel"], p["keys_dense"]["kernel"]])
        scores = np.array([p["scorer"] @ np.tanh(np.concatenate([h_t, h_s]) @ W_a + p["keys_dense"]["bias"]) for h_s in h])
    a_t = np.zeros(len(h))
    if not config.window:
        a_t[: len(scores)] = softmax(scores)
        return a_t
    D = config.window
    p_t = len(h) * sigmoid(p["place_scorer"] @ np.tanh(h_t @ p["place_kernel"]["kernel"]))  # equation 9; words are counted from 0
    inside = [s for s in range(len(h)) if p_t - D <= s <= p_t + D]
    a_t[inside] = softmax(scores[inside]) * [np.exp(-((s - p_t) ** 2) / (2 * (D / 2) ** 2)) for s in inside]  # equation 10
    return a_t


def luong(p, config, h, states, words):
    """Luong et al. 2015, section 3, over a stack of LSTMs -> as `rnnsearch`."""
    states, fed, found, weights = list(states), np.zeros(WIDTH), [], []
    for x in words:
        for i in range(config.num_decoder_layers):
            cell = p[f"layer_{i}"]
            z = np.einsum("d,dgk->gk", x, cell["input"]["kernel"]) + cell["input"]["bias"]
            if i == 0 and config.input_feeding:  # section 3.3
                z = z + np.einsum("d,dgk->gk", fed, cell["context_input"]["kernel"])
            states[i] = lstm(cell, z, *states[i])
            x = states[i][0]
        a_t = luong_weights(p.get("cross_attention", {}), config, h, x)
        c_t = sum(a * h_s for a, h_s in zip(a_t, h, strict=True))
        fed = np.tanh(np.concatenate([c_t, x]) @ p["combine"]["kernel"])  # equation 5
        found.append(fed)
        weights.append(a_t)
    return found, weights, tuple(states)


LUONG = cfg.Recurrent(context="luong", cell="lstm", emb_dim=EMB, hidden_dim=WIDTH, encoder_dim=8, num_decoder_layers=2, dropout=0.0)
CASES = {
    "bahdanau": (rnnsearch, cfg.replace(LUONG, context="bahdanau", cell="gru", num_decoder_layers=1)),
    "dot": (luong, cfg.replace(LUONG, score="dot", encoder_dim=0)),
    "general": (luong, cfg.replace(LUONG, score="general")),
    "concat": (luong, cfg.replace(LUONG, score="concat")),
    "location": (luong, cfg.replace(LUONG, score="location", max_positions=4)),
    "local": (luong, cfg.replace(LUONG, score="general", window=2)),
    "unfed": (luong, cfg.replace(LUONG, score="general", input_feeding=False)),
}


def decoder_and_memory(config: cfg.Recurrent, x_TBD: np.ndarray):
    """A decoder, random parameters for it, and a random memory; its padding is noise."""
    random = np.random.default_rng(0)
    normal = lambda shape, scale=1.0: jnp.asarray(scale * random.standard_normal(shape), jnp.float32)  # noqa: E731
    decoder, rows = Decoder(config), len(LENGTHS)
    states_BSD = normal((rows, max(LENGTHS), config.encoder_dim or WIDTH))
    mask_BS = jnp.arange(max(LENGTHS)) < jnp.asarray(LENGTHS)[:, None]
    form = 2 if config.cell == "lstm" else 1
    initial = tuple(tuple(normal((rows, WIDTH)) for _ in range(form)) for _ in range(config.num_decoder_layers))
    memory = RecurrentMemory(states_BSD, mask_BS, states_BSD, normal((rows, WIDTH)), initial)

    def whole(decoder, memory, x_TBD):
        return decoder(memory._replace(keys_BSA=decoder.keys(memory.states_BSD)), x_TBD, None)

    shapes = nn.unbox(jax.eval_shape(lambda *args: decoder.init(jax.random.key(0), *args, method=whole), memory, x_TBD)["params"])
    params = jax.tree.map(lambda x: normal(x.shape, 0.5), shapes)
    keys_BSA = decoder.apply({"params": params}, states_BSD, method="keys")
    return decoder, params, memory._replace(keys_BSA=keys_BSA)


@pytest.mark.parametrize("case", CASES)
def test_steps_are_the_equations(case):
    equations, config = CASES[case]
    x_TBD = np.random.default_rng(1).standard_normal((STEPS, len(LENGTHS), EMB)).astype(np.float32)
    decoder, params, memory = decoder_and_memory(config, x_TBD)

    step = jax.jit(lambda carry, x: decoder.apply({"params": params}, memory, carry, x, method="step", mutable=["intermediates"]))
    carry, features, weights = decoder.apply({"params": params}, memory, method="start"), [], []
    for x_BD in x_TBD:
        (h_BD, carry), seen = step(carry, x_BD)
        features.append(h_BD)
        weights.append(seen["intermediates"]["cross_attention"]["attention"][0][:, 0, 0])

    exact = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    close = lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)  # noqa: E731
    for row, length in enumerate(LENGTHS):
        one = jax.tree.map(lambda x, row=row: np.asarray(x[row], np.float64), (memory.states_BSD[:, :length], memory.initial))
        found, expected_weights, last = equations(exact, config, *one, np.float64(x_TBD[:, row]))
        close(np.stack(features)[:, row], found)
        close(np.stack(weights)[:, row, :length], expected_weights)
        assert (np.stack(weights)[:, row, length:] == 0).all()
        jax.tree.map(lambda ours, theirs, row=row: close(ours[row], theirs), carry["states"], last)
    close(decoder.apply({"params": params}, memory, x_TBD, None), np.stack(features))  # as in training
