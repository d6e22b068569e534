"""The decoders that attend, step after step, against NumPy written from the papers' equations: one sentence, one word at a time.

Bahdanau, Cho and Bengio 2015 (RNNsearch), Luong, Pham and Manning 2015, and See, Liu and Manning 2017 (coverage and the copy switch), by
their equations' numbers. NumPy computes in float64 and never sees padding. Kernels are ours, so a paper's W x is x @ W here. Where ours is
not what the paper prints, a comment says so.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnmt import config as cfg
from jaxnmt.models.copying import mixture
from jaxnmt.models.recurrent import Decoder, RecurrentMemory

LENGTHS, STEPS, EMB, WIDTH = [5, 3, 1], 4, 4, 6


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    return np.exp(x - np.max(x)) / np.exp(x - np.max(x)).sum()


def rnnsearch(p, config, h, states, words):
    """Bahdanau et al. 2015, appendices A.1.2 and A.2.2 -> what the output layer reads, the weights and (context, state, word) of each step,
    the last states."""
    ((s,),) = states
    cell, score, readout = p["layer_0"], p["cross_attention"], p["readout"]
    (W_r, W_z, W), (U_r, U_z, U), (C_r, C_z, C) = (
        np.moveaxis(cell[part]["kernel"], 1, 0) for part in ("input", "recurrent", "context_input")
    )
    b_r, b_z, b = cell["input"]["bias"]
    W_a, U_a, v_a = score["query_kernel"]["kernel"], score["keys_dense"]["kernel"], score["scorer"]
    U_o, V_o, C_o = np.split(readout["kernel"], [WIDTH, WIDTH + EMB])
    found, weights, read, coverage, w_c = [], [], [], np.zeros(len(h)), score.get("coverage_scorer", 0)
    for Ey in words:
        asked = s @ W_a + score["keys_dense"]["bias"]  # with a bias
        e = np.array([v_a @ np.tanh(asked + h_j @ U_a + w_c * c_j) for h_j, c_j in zip(h, coverage, strict=True)])
        alpha = softmax(e)
        coverage = coverage + alpha
        c = sum(alpha_j * h_j for alpha_j, h_j in zip(alpha, h, strict=True))
        z = sigmoid(-(Ey @ W_z + s @ U_z + c @ C_z + b_z))  # cuDNN's gate keeps where the paper's replaces: one minus it
        r = sigmoid(Ey @ W_r + s @ U_r + c @ C_r + b_r)
        new = np.tanh(Ey @ W + r * (s @ U + cell["candidate_bias"]) + c @ C + b)  # the paper: (r * s) @ U; ours as cuDNN and torch
        s = (1 - z) * s + z * new
        t = s @ U_o + Ey @ V_o + c @ C_o + readout["bias"]  # of the new state, as equation 4 has it
        found.append([max(t[2 * j], t[2 * j + 1]) for j in range(len(t) // 2)])
        weights.append(alpha)
        read.append((c, s, Ey))
    return found, weights, read, ((s,),)


def lstm(cell, z, h, c):
    """Zaremba et al. 2014, equation 1 onwards; `z`: the input's share of the gates (4, H)."""
    i, f, g, o = z + np.einsum("h,hgk->gk", h, cell["recurrent"]["kernel"])
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def luong_weights(p, config, h, h_t, coverage):
    """Luong et al. 2015, equations 7 to 10: the weight of each source state for the top state `h_t`; See et al. 2017, equation 11."""
    if config.score == "location":  # equation 8; "for short sentences, we only use the top part"
        scores = (h_t @ p["location_kernel"]["kernel"])[: len(h)]
    elif config.score == "dot":
        scores = np.array([h_t @ h_s for h_s in h])
    elif config.score == "general":
        scores = np.array([h_t @ (h_s @ p["keys_dense"]["kernel"]) for h_s in h])
    else:  # concat, with a bias
        W_a = np.concatenate([p["query_kernel"]["kernel"], p["keys_dense"]["kernel"]])
        covered = np.outer(coverage, p.get("coverage_scorer", np.zeros(len(p["scorer"])))) + p["keys_dense"]["bias"]
        scores = np.array([p["scorer"] @ np.tanh(np.concatenate([h_t, h_s]) @ W_a + w_c) for h_s, w_c in zip(h, covered, strict=True)])
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
    states, fed, found, weights, read, coverage = list(states), np.zeros(WIDTH), [], [], [], np.zeros(len(h))
    for word in words:
        x = word
        for i in range(config.num_decoder_layers):
            cell = p[f"layer_{i}"]
            z = np.einsum("d,dgk->gk", x, cell["input"]["kernel"]) + cell["input"]["bias"]
            if i == 0 and config.input_feeding:  # section 3.3
                z = z + np.einsum("d,dgk->gk", fed, cell["context_input"]["kernel"])
            states[i] = lstm(cell, z, *states[i])
            x = states[i][0]
        a_t = luong_weights(p.get("cross_attention", {}), config, h, x, coverage)
        coverage = coverage + a_t  # See et al. 2017, equation 10
        c_t = sum(a * h_s for a, h_s in zip(a_t, h, strict=True))
        fed = np.tanh(np.concatenate([c_t, x]) @ p["combine"]["kernel"])  # equation 5
        found.append(fed)
        weights.append(a_t)
        read.append((c_t, x, word))
    return found, weights, read, tuple(states)


LUONG = cfg.Recurrent(context="luong", cell="lstm", emb_dim=EMB, hidden_dim=WIDTH, encoder_dim=8, num_decoder_layers=2, dropout=0.0)
CASES = {
    "bahdanau": (rnnsearch, cfg.replace(LUONG, context="bahdanau", cell="gru", num_decoder_layers=1)),
    "dot": (luong, cfg.replace(LUONG, score="dot", encoder_dim=0)),
    "general": (luong, cfg.replace(LUONG, score="general")),
    "concat": (luong, cfg.replace(LUONG, score="concat")),
    "location": (luong, cfg.replace(LUONG, score="location", max_positions=4)),
    "local": (luong, cfg.replace(LUONG, score="general", window=2)),
    "unfed": (luong, cfg.replace(LUONG, score="general", input_feeding=False)),
    "pointer": (luong, cfg.replace(LUONG, score="concat", copy=True, coverage=0.7)),
    "unfed_pointer": (luong, cfg.replace(LUONG, score="general", input_feeding=False, copy=True)),
    "covering": (luong, cfg.replace(LUONG, score="concat", input_feeding=False, coverage=0.7)),
    "bahdanau_pointer": (rnnsearch, cfg.replace(LUONG, context="bahdanau", cell="gru", num_decoder_layers=1, copy=True, coverage=0.7)),
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
    carry, steps, weights = decoder.apply({"params": params}, memory, method="start"), [], []
    for x_BD in x_TBD:
        (outputs, carry), seen = step(carry, x_BD)
        steps.append(outputs)
        weights.append(seen["intermediates"]["cross_attention"]["attention"][0][:, 0, 0])

    features, losses = [each.features for each in steps], np.zeros((len(LENGTHS), STEPS))
    exact = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    close = lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)  # noqa: E731
    for row, length in enumerate(LENGTHS):
        one = jax.tree.map(lambda x, row=row: np.asarray(x[row], np.float64), (memory.states_BSD[:, :length], memory.initial))
        found, expected_weights, read, last = equations(exact, config, *one, np.float64(x_TBD[:, row]))
        close(np.stack(features)[:, row], found)
        close(np.stack(weights)[:, row, :length], expected_weights)
        assert (np.stack(weights)[:, row, length:] == 0).all()
        jax.tree.map(lambda ours, theirs, row=row: close(ours[row], theirs), carry["states"], last)
        if config.copy:  # See et al. 2017, equation 8
            switch = [np.concatenate(each) @ exact["switch"]["kernel"][:, 0] + exact["switch"]["bias"][0] for each in read]
            close(np.array([each.generate[row] for each in steps]), switch)
        before = np.cumsum([np.zeros(length), *expected_weights[:-1]], 0)
        losses[row] = config.coverage * np.minimum(expected_weights, before).sum(1)  # equations 12 and 13
    outputs, sown = decoder.apply({"params": params}, memory, x_TBD, None, mutable=["losses"])  # as in training
    jax.tree.map(close, outputs._replace(attention=None), jax.tree.map(lambda *each: np.stack(each), *steps)._replace(attention=None))
    close(sown["losses"]["coverage"][0] if config.coverage else np.zeros_like(losses), losses)


def test_a_word_is_generated_or_copied():
    """See et al. 2017, equation 9; a token that the source has twice gets the attention of both."""
    random = np.random.default_rng(0)
    logits, generate = random.standard_normal((2, 3, 7)), random.standard_normal((2, 3))
    attention, tokens = random.dirichlet(np.ones(4), (2, 3)), np.array([[5, 3, 5, 2], [4, 2, 0, 0]])
    attention[1, :, 2:] = 0  # padding
    expected = np.zeros((2, 3, 7))
    for b, t in np.ndindex(2, 3):
        p_gen, p_vocab = sigmoid(generate[b, t]), softmax(np.where(np.arange(7) > 0, logits[b, t], -np.inf))
        for w in range(7):
            expected[b, t, w] = p_gen * p_vocab[w] + (1 - p_gen) * sum(attention[b, t, i] for i in range(4) if tokens[b, i] == w)
    given = [jnp.asarray(x, jnp.float32) for x in (logits, generate, attention)]
    np.testing.assert_allclose(np.exp(mixture(*given, tokens))[..., 1:], expected[..., 1:], rtol=1e-5)
    assert (expected.sum(-1)[0] == pytest.approx(1)) and (expected[0, :, [3, 5]] > 0).all()


def test_what_cannot_be_generated_may_be_copied_and_no_gradient_is_infinite():
    """Only the source has token 3, and the vocabulary token 2: their probabilities are 1 - p and p. The others' are next to 0."""
    logits = jnp.array([[[0.0, -900.0, 0.0, -900.0, -jnp.inf]]])
    find = lambda *x: mixture(*x, jnp.array([[3, 0]]))[0, 0]  # noqa: E731
    given = logits, jnp.array([[1.0]]), jnp.array([[[1.0, 0.0]]])
    np.testing.assert_allclose(find(*given)[jnp.array([2, 3])], np.log([sigmoid(1.0), sigmoid(-1.0)]), rtol=1e-5)
    assert find(*given)[1] == pytest.approx(-900 + np.log(sigmoid(1.0))) and find(*given)[4] == -jnp.inf
    gradients = jax.grad(lambda *x: find(*x)[:4].sum(), (0, 1, 2))(*given)
    assert all(np.isfinite(x).all() for x in gradients)
