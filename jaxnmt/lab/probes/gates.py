"""The gates of an LSTM (Hochreiter and Schmidhuber 1997, Gers et al. 2000) or a GRU (Cho et al. 2014) while the encoder reads a sentence.

The model's own cells compute them, from the inputs of its layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnmt import Recurrent, UserError
from jaxnmt.lab import figures
from jaxnmt.models import cells
from jaxnmt.models.cells import RecurrentLayer
from jaxnmt.models.recurrent_encoder import reverse_sequence
from jaxnmt.models.seq2seq import Seq2Seq

LSTM = ("input", "forget", "output", "cell")
GRU = ("reset", "update", "state")
SHOWN = {"lstm": LSTM, "layernorm_lstm": LSTM, "gru": GRU}
TITLE = "Gates over a sentence: mean over a layer's units"


def check(config: Any) -> None:
    """Refuse a model without gates.

    Raises:
        UserError: it is not recurrent, or its cell or encoder has no gates.
    """
    cell, encoder = getattr(config, "cell", "none"), getattr(config, "encoder", "recurrent")
    if encoder == "bag" or cell not in SHOWN:
        what = "encoder bag" if encoder == "bag" else f"cell {cell}"
        raise UserError(f"a {type(config).__name__} with {what} has no gates: give a run with cell lstm, layernorm_lstm or gru")


def read(config: Recurrent, model: Seq2Seq, params: Any, source: Sequence[int]) -> dict[str, dict[str, np.ndarray]]:
    """Return the gates of each encoder layer over one sentence.

    Args:
        source: the sentence's ids, with EOS.

    Returns:
        By layer, "layer 1" or "layer 1, backwards": (S, H) each, float32, in word order: input, forget and output, or reset and update,
        between 0 and 1; candidate; cell, the input of an LSTM's output gate, |tanh c|; and h, the state.
    """
    found: dict[str, dict[str, jax.Array]] = {}

    def tap(call, args, kwargs, context):
        if isinstance(context.module, RecurrentLayer) and context.method_name == "__call__":
            found[context.module.name] = _gates(context.module, *args, **kwargs)
        return call(*args, **kwargs)

    tokens_BS = jnp.asarray([source], jnp.int32)
    with nn.intercept_methods(tap):
        model.encode(params, {"encoder_input_tokens": tokens_BS})
    if config.reverse_source:
        mask_SB = (tokens_BS > 0).T
        found = jax.tree.map(lambda x_SBU: reverse_sequence(x_SBU, mask_SB), found)
    layers = {}
    for name, gates in found.items():  # layer_0, backward_layer_0
        *backward, _, number = name.split("_")
        layers[int(number), bool(backward)] = {gate: np.asarray(x[:, 0], np.float32) for gate, x in gates.items()}
    return {f"layer {number + 1}{', backwards' if backward else ''}": layers[number, backward] for number, backward in sorted(layers)}


def _gates(
    layer: RecurrentLayer, x_TBD, state, mask_TB1=None, reverse=False, context_TBD=None, recurrent_dropout_mask=None
) -> dict[str, jax.Array]:
    """Repeat the steps of `RecurrentLayer.__call__` over a sentence without padding. Returns (T, B, U) of each gate and of the state."""
    weights = layer.weights()

    def step(state, z_BZ):
        state, values = cells.advance(layer.kind, layer.activation, weights, z_BZ, state)
        if layer.kind != "gru":
            values["cell"] = jnp.abs(values["cell"])
        return state, values | {"h": state[0]}

    return jax.lax.scan(step, state, x_TBD @ weights["input"] + weights["bias"], reverse=reverse)[1]


def report(layers: dict[str, dict[str, np.ndarray]], pieces: Sequence[str], shown: Sequence[str]) -> figures.Report:
    """Return a heat map for each layer, gates by source position, and its numbers, by the suffix of their files, and a table of means.

    A gate's value is the mean over the layer's units; `state` is that of |h|.
    """
    grids, numbers, rows = {}, [], []
    for name, gates in layers.items():
        means = [np.abs(gates["h" if gate == "state" else gate]).mean(-1) for gate in shown]
        grids[name] = figures.Grid([mean.tolist() for mean in means], shown, pieces)
        for gate, mean in zip(shown, means, strict=True):
            numbers += [(name, gate, place, pieces[place], value) for place, value in enumerate(mean.tolist())]
        rows.append((name, *(f"{mean.mean():.3f}" for mean in means)))
    files = {
        ".svg": figures.heat_maps(grids, TITLE, "", "", 0.0, 1.0),
        ".csv": figures.to_csv(["layer", "gate", "position", "piece", "mean"], numbers),
    }
    note = "0: closed, 1: open; a GRU's update gate at 1 keeps the state." if "update" in shown else "0: closed, 1: open; cell: |tanh c|."
    return files, figures.Table("Mean over the sentence", ("layer", *shown), rows, note)
