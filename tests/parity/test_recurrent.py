"""Recurrent layers against torch.nn's with the same weights: outputs, last states, and every gradient of a random linear functional."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from parity.torch_side import LENGTHS, Reader, assert_equal, coefficients, gradient, leaf, normal, randomised, value

from jaxnmt import config as cfg
from jaxnmt.models.cells import RecurrentLayer
from jaxnmt.models.recurrent import Encoder

CELLS = [("lstm", "tanh"), ("gru", "tanh"), ("rnn", "tanh"), ("rnn", "relu")]
INPUTS, WIDTH, STEPS, ROWS = 6, 5, int(LENGTHS.max()), len(LENGTHS)


def torch_module(cell: str, activation: str, inputs: int, **settings) -> torch.nn.RNNBase:
    extra = {"nonlinearity": activation} if cell == "rnn" else {}
    torch.manual_seed(0)
    return randomised({"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}[cell](inputs, WIDTH, **settings, **extra))


def layer_tree(cell: str, module: torch.nn.RNNBase, read: Reader, name: str, inputs: int | None = None) -> dict:
    """The layer that torch calls `name`, as our parameters or their gradients; input columns from `inputs` on are the context's.

    Torch adds two biases wherever it has two, except in a GRU's candidate: so ours is their sum, its gradient that of either.
    """
    of = lambda part: read(getattr(module, f"{part}_{name}"))  # noqa: E731
    kernel = lambda x_ZI: {"kernel": x_ZI.T.reshape(x_ZI.shape[1], -1, WIDTH)}  # noqa: E731
    w_ZI, bias, second = of("weight_ih"), of("bias_ih").reshape(-1, WIDTH), of("bias_hh").reshape(-1, WIDTH)
    added = np.where((np.arange(len(bias)) == 2)[:, None] & (cell == "gru"), 0, second) if read is value else 0
    tree = {"input": kernel(w_ZI[:, :inputs]) | {"bias": bias + added}, "recurrent": kernel(of("weight_hh"))}
    if inputs is not None:
        tree["context_input"] = kernel(w_ZI[:, inputs:])
    return tree | ({"candidate_bias": second[2]} if cell == "gru" else {})


def as_tuple(state) -> tuple[torch.Tensor, ...]:
    return state if isinstance(state, tuple) else (state,)


def differentiate(outputs, functional) -> None:
    torch.autograd.backward(jax.tree.leaves(outputs), [torch.tensor(x) for x in jax.tree.leaves(functional)])


@pytest.mark.parametrize(("cell", "activation"), CELLS)
def test_two_bidirectional_layers_with_lengths(cell, activation):
    random = np.random.default_rng(1)
    theirs = torch_module(cell, activation, INPUTS, num_layers=2, bidirectional=True)
    config = cfg.Recurrent(cell=cell, activation=activation, emb_dim=INPUTS, hidden_dim=2 * WIDTH, num_encoder_layers=2)
    mask_SB1 = (np.arange(STEPS)[:, None] < LENGTHS)[..., None]

    def tree(read: Reader) -> dict:
        directions = {"layer": "", "backward_layer": "_reverse"}
        return {f"{ours}_{i}": layer_tree(cell, theirs, read, f"l{i}{name}") for i in range(2) for ours, name in directions.items()}

    x_SBD = normal(random, STEPS, ROWS, INPUTS)  # padding is noise, which must not be seen
    ours, pull_back = jax.vjp(lambda p, x: Encoder(config).apply({"params": p}, x, mask_SB1, None), tree(value), x_SBD)

    x = leaf(x_SBD)
    packed, last = theirs(torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor(LENGTHS), enforce_sorted=False))
    h_SBD = torch.nn.utils.rnn.pad_packed_sequence(packed)[0]
    states = [tuple(torch.cat([part[2 * i], part[2 * i + 1]], -1) for part in as_tuple(last)) for i in range(2)]
    assert_equal(ours, jax.tree.map(value, (h_SBD, states)))

    functional = coefficients(random, ours)
    differentiate((h_SBD, states), functional)
    assert_equal(pull_back(functional), (tree(gradient), gradient(x)))


@pytest.mark.parametrize(("cell", "activation"), CELLS)
def test_a_layer_that_begins_in_a_state_and_reads_a_context(cell, activation):
    """As the decoder runs it; torch reads the context joined to the input."""
    random, context = np.random.default_rng(2), 4
    theirs = torch_module(cell, activation, INPUTS + context)
    layer = RecurrentLayer(cell, activation, INPUTS, WIDTH, context, jnp.float32)
    tree = lambda read: layer_tree(cell, theirs, read, "l0", INPUTS)  # noqa: E731
    x_TBD, context_TBD = normal(random, STEPS, ROWS, INPUTS), normal(random, STEPS, ROWS, context)
    state = tuple(normal(random, ROWS, WIDTH) for _ in range(2 if cell == "lstm" else 1))

    def run(params, x_TBD, context_TBD, state):
        return layer.apply({"params": params}, x_TBD, state, context_TBD=context_TBD)

    ours, pull_back = jax.vjp(run, tree(value), x_TBD, context_TBD, state)

    x, c, first = leaf(x_TBD), leaf(context_TBD), tuple(leaf(part) for part in state)
    begun = tuple(part[None] for part in first)
    h_TBD, last = theirs(torch.cat([x, c], -1), begun if cell == "lstm" else begun[0])
    outputs = h_TBD, tuple(part[0] for part in as_tuple(last))
    assert_equal(ours, jax.tree.map(value, outputs))

    functional = coefficients(random, ours)
    differentiate(outputs, functional)
    assert_equal(pull_back(functional), (tree(gradient), gradient(x), gradient(c), tuple(gradient(part) for part in first)))
