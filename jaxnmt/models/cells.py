"""Recurrent cells as functions of explicit arrays, and a layer that runs one over a sequence, forwards or backwards.

Gates of a fused kernel are in the order of torch.nn: LSTM input, forget, cell, output; GRU reset, update, candidate. Letters in names:
Z is gates times width, H the width of a state; sequences inside a recurrent model lead with time (T or S), then the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnmt.models import cudnn
from jaxnmt.models.layers import normalise

State = tuple[jax.Array, ...]
"""What a cell hands from step to step: (h,), or (h, c) of an LSTM; (B, H) each."""


class Form(NamedTuple):
    """How many gates a cell's kernels hold, and how many arrays its state."""

    gates: int
    states: int


FORMS = {"rnn": Form(1, 1), "gru": Form(3, 1), "lstm": Form(4, 2), "layernorm_lstm": Form(4, 2)}
_ACTIVATIONS: dict[str, Callable] = {"tanh": jnp.tanh, "relu": nn.relu}


def gates(kind: str, weights: dict[str, jax.Array], z_BZ: jax.Array, h_BH: jax.Array) -> dict[str, jax.Array]:
    """What the gates of an LSTM or a GRU let through in one step, between 0 and 1, and the candidate for the new state: (B, H) each.

    Args:
        weights, z_BZ: as `advance` has them.
        h_BH: the state that is read.
    """
    r_BZ = h_BH @ weights["recurrent"]
    if kind == "gru":  # Cho et al. 2014, with the reset gate after the product, as in cuDNN and torch
        (z_reset, z_update, z_new), (r_reset, r_update, r_new) = (jnp.split(x, 3, -1) for x in (z_BZ, r_BZ))
        reset, update = jax.nn.sigmoid(z_reset + r_reset), jax.nn.sigmoid(z_update + r_update)
        return {"reset": reset, "update": update, "candidate": jnp.tanh(z_new + reset * (r_new + weights["candidate_bias"]))}
    if kind == "layernorm_lstm":  # Ba et al. 2016, equations 20-22
        z_BZ = normalise(z_BZ, weights["input_scale"], weights["input_bias"])
        r_BZ = normalise(r_BZ, weights["recurrent_scale"], weights["recurrent_bias"])
    let_in, keep, new, out = jnp.split(z_BZ + r_BZ, 4, -1)
    sigmoid = jax.nn.sigmoid
    return {"input": sigmoid(let_in), "forget": sigmoid(keep), "candidate": jnp.tanh(new), "output": sigmoid(out)}


def advance(kind: str, activation: str, weights: dict[str, jax.Array], z_BZ: jax.Array, state: State, keep_BH=None) -> State:
    """One step of a cell.

    Args:
        weights: of `RecurrentLayer.weights`.
        z_BZ: the input's share of the gates, W x + b (layernorm_lstm: W x).
        keep_BH: what the state that is read is multiplied by (variational dropout).
    """
    h_BH = state[0] if keep_BH is None else state[0] * keep_BH
    if kind == "rnn":  # Elman 1990
        return (_ACTIVATIONS[activation](z_BZ + h_BH @ weights["recurrent"]),)
    gate = gates(kind, weights, z_BZ, h_BH)
    if kind == "gru":
        return (gate["candidate"] + gate["update"] * (state[0] - gate["candidate"]),)
    c = gate["forget"] * state[1] + gate["input"] * gate["candidate"]
    return gate["output"] * jnp.tanh(seen(kind, weights, c)), c


def seen(kind: str, weights: dict[str, jax.Array], c_BH: jax.Array) -> jax.Array:
    """What an LSTM's output gate is given of its cell, before the tanh."""
    return normalise(c_BH, weights["cell_scale"], weights["cell_bias"]) if kind == "layernorm_lstm" else c_BH


class Affine(nn.Module):
    """A kernel (inputs, gates, width), and a bias (gates, width) where asked for, that others multiply by and add."""

    inputs: int
    gates: int
    width: int
    use_bias: bool = False
    recurrent: bool = False

    @nn.compact
    def __call__(self, dtype) -> tuple[jax.Array, jax.Array | None]:
        """-> kernel (inputs, Z), bias (Z,) or None."""

        def init(key, shape):  # each gate's matrix for itself: orthogonal (Saxe et al. 2014), or Glorot and Bengio 2010
            one = nn.initializers.orthogonal() if self.recurrent else nn.initializers.glorot_uniform()
            return jnp.stack([one(k, (self.inputs, self.width), jnp.float32) for k in jax.random.split(key, self.gates)], 1)

        def bias_init(_, shape):  # an LSTM begins by remembering (Gers et al. 2000)
            return jnp.zeros(shape).at[1].set(1.0) if self.gates == FORMS["lstm"].gates else jnp.zeros(shape)

        kernel = self.param("kernel", init, (self.inputs, self.gates, self.width)).astype(dtype).reshape(self.inputs, -1)
        bias = self.param("bias", bias_init, (self.gates, self.width)).astype(dtype).reshape(-1) if self.use_bias else None
        return kernel, bias


class RecurrentLayer(nn.Module):
    """One cell and its parameters; reads `inputs` numbers a step, and `context` more where the decoder joins a context to them."""

    kind: str
    activation: str
    inputs: int
    width: int
    context: int
    dtype: Any

    def setup(self):
        gates = FORMS[self.kind].gates
        self.input = Affine(self.inputs, gates, self.width, use_bias=True)
        self.recurrent = Affine(self.width, gates, self.width, recurrent=True)
        if self.context:
            self.context_input = Affine(self.context, gates, self.width)
        if self.kind == "gru":
            self.candidate_bias = self.param("candidate_bias", nn.initializers.zeros, (self.width,))
        if self.kind == "layernorm_lstm":
            sizes = {"input": gates * self.width, "recurrent": gates * self.width, "cell": self.width}
            self.scales = {name: self.param(f"{name}_norm_scale", nn.initializers.ones, (n,)) for name, n in sizes.items()}
            self.biases = {
                name: self.param(f"{name}_norm_bias", nn.initializers.zeros, (n,)) for name, n in sizes.items() if name != "input"
            }

    def weights(self) -> dict[str, jax.Array]:
        """Kernels (…, Z) and the rest, as arrays that a scan's step can use."""
        kernel, bias = self.input(self.dtype)
        found = {"input": kernel, "bias": bias, "recurrent": self.recurrent(self.dtype)[0]}
        if self.context:
            found["context"] = self.context_input(self.dtype)[0]
        if self.kind == "gru":
            found["candidate_bias"] = self.candidate_bias.astype(self.dtype)
        if self.kind == "layernorm_lstm":  # its bias is added after the norm
            found |= {f"{name}_scale": x for name, x in self.scales.items()} | {f"{name}_bias": x for name, x in self.biases.items()}
            found |= {"input_bias": bias, "bias": jnp.zeros_like(bias)}
        return found

    def zeros(self, rows: int) -> State:
        """The state before anything is read."""
        return (jnp.zeros((rows, self.width), self.dtype),) * FORMS[self.kind].states

    def __call__(self, x_TBD, state: State, mask_TB1=None, reverse: bool = False, context_TBC=None, keep_BH=None):
        """-> h (T, B, H) of every step, and the last state. Where the mask is false, h is zero and the state stays as it was.

        `keep_BH`: what the recurrent state is multiplied by at each step (variational dropout).
        """
        weights = self.weights()
        if keep_BH is None and cudnn.fits(self.kind, self.dtype):
            if context_TBC is not None:
                context_TBC = jnp.broadcast_to(context_TBC, (*x_TBD.shape[:2], self.context))
                x_TBD = jnp.concatenate([x_TBD, context_TBC], -1)
                weights["input"] = jnp.concatenate([weights["input"], weights["context"]])
            return cudnn.lstm(weights, x_TBD, state, mask_TB1, reverse)
        z_TBZ = x_TBD @ weights["input"] + weights["bias"]
        if context_TBC is not None:
            z_TBZ = z_TBZ + context_TBC @ weights["context"]

        def step(state: State, x):
            z_BZ, mask_B1 = x
            new = advance(self.kind, self.activation, weights, z_BZ, state, keep_BH)
            if mask_B1 is None:
                return new, new[0]
            return tuple(jnp.where(mask_B1, a, b) for a, b in zip(new, state, strict=True)), jnp.where(mask_B1, new[0], 0)

        state, h_TBH = jax.lax.scan(step, state, (z_TBZ, mask_TB1), reverse=reverse)
        return h_TBH, state
