"""Recurrent cells as functions of explicit arrays, and a layer that runs one over a sequence, forwards or backwards.

Gates of a fused kernel are in the order of torch.nn: LSTM input, forget, cell, output; GRU reset, update, candidate. Sequences inside a
recurrent model lead with time (T or S), then the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnmt.models import cudnn
from jaxnmt.models.layers import normalise
from jaxnmt.parallel.axes import declare

State = tuple[jax.Array, ...]
"""What a cell hands from step to step: (h,), or (h, c) of an LSTM; (B, U) each."""


class Form(NamedTuple):
    """Number of gates in a cell's kernels, and of arrays in its state."""

    gates: int
    states: int


FORMS = {"rnn": Form(1, 1), "gru": Form(3, 1), "lstm": Form(4, 2), "layernorm_lstm": Form(4, 2)}
_ACTIVATIONS: dict[str, Callable] = {"tanh": jnp.tanh, "relu": nn.relu}


def gates(kind: str, weights: dict[str, jax.Array], z_BZ: jax.Array, h_BU: jax.Array) -> dict[str, jax.Array]:
    """Return the gates of an LSTM or a GRU in one step, between 0 and 1, and the candidate for the new state: (B, U) each.

    Args:
        weights, z_BZ: as in `advance`.
        h_BU: the state that is read.
    """
    r_BZ = h_BU @ weights["recurrent"]
    if kind == "gru":  # Cho et al. 2014, with the reset gate after the product, as in cuDNN and torch
        (z_reset, z_update, z_new), (r_reset, r_update, r_new) = (jnp.split(x, 3, -1) for x in (z_BZ, r_BZ))
        reset, update = jax.nn.sigmoid(z_reset + r_reset), jax.nn.sigmoid(z_update + r_update)
        return {"reset": reset, "update": update, "candidate": jnp.tanh(z_new + reset * (r_new + weights["candidate_bias"]))}
    if kind == "layernorm_lstm":  # Ba et al. 2016, equations 20-22
        z_BZ = normalise(z_BZ, weights["input_scale"], weights["input_bias"])
        r_BZ = normalise(r_BZ, weights["recurrent_scale"], weights["recurrent_bias"])
    input_gate, forget_gate, candidate, output_gate = jnp.split(z_BZ + r_BZ, 4, -1)
    found = {"input": input_gate, "forget": forget_gate, "output": output_gate}
    return {name: jax.nn.sigmoid(x) for name, x in found.items()} | {"candidate": jnp.tanh(candidate)}


def advance(kind: str, activation: str, weights: dict[str, jax.Array], z_BZ, state: State, recurrent_dropout_mask=None) -> State:
    """Return the state after one step of a cell.

    Args:
        weights: of `RecurrentLayer.weights`.
        z_BZ: the input's part of the gates, W x + b (layernorm_lstm: W x).
        recurrent_dropout_mask: (B, U), multiplied with the state that is read (variational dropout).
    """
    h_BU = state[0] if recurrent_dropout_mask is None else state[0] * recurrent_dropout_mask
    if kind == "rnn":  # Elman 1990
        return (_ACTIVATIONS[activation](z_BZ + h_BU @ weights["recurrent"]),)
    gate = gates(kind, weights, z_BZ, h_BU)
    if kind == "gru":
        return (gate["candidate"] + gate["update"] * (state[0] - gate["candidate"]),)
    c = gate["forget"] * state[1] + gate["input"] * gate["candidate"]
    return gate["output"] * jnp.tanh(cell_output(kind, weights, c)), c


def cell_output(kind: str, weights: dict[str, jax.Array], c_BU: jax.Array) -> jax.Array:
    """Return what an LSTM's output gate reads of its cell, before the tanh."""
    return normalise(c_BU, weights["cell_scale"], weights["cell_bias"]) if kind == "layernorm_lstm" else c_BU


class Affine(nn.Module):
    """A kernel (inputs, gates, width), and with `use_bias` a bias (gates, width), for others to multiply by and add."""

    inputs: int
    gates: int
    width: int
    use_bias: bool = False
    recurrent: bool = False

    @nn.compact
    def __call__(self, dtype) -> tuple[jax.Array, jax.Array | None]:
        """Return the kernel (inputs, Z), and the bias (Z,) or None."""

        def init(key, shape):  # each gate's matrix separately: orthogonal (Saxe et al. 2014), or Glorot and Bengio 2010
            one = nn.initializers.orthogonal() if self.recurrent else nn.initializers.glorot_uniform()
            return jnp.stack([one(k, (self.inputs, self.width), jnp.float32) for k in jax.random.split(key, self.gates)], 1)

        def bias_init(_, shape):  # an LSTM begins by remembering (Gers et al. 2000)
            return jnp.zeros(shape).at[1].set(1.0) if self.gates == FORMS["lstm"].gates else jnp.zeros(shape)

        kernel = self.param("kernel", declare(init, "DGU"), (self.inputs, self.gates, self.width)).astype(dtype).reshape(self.inputs, -1)
        if not self.use_bias:
            return kernel, None
        return kernel, self.param("bias", declare(bias_init, "GU"), (self.gates, self.width)).astype(dtype).reshape(-1)


class RecurrentLayer(nn.Module):
    """One cell and its parameters.

    Attributes:
        inputs: width of what it reads at each step.
        width: units of its state.
        context: width of the context that it reads as well; 0: none.
    """

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
            self.candidate_bias = self.param("candidate_bias", declare(nn.initializers.zeros, "U"), (self.width,))
        if self.kind == "layernorm_lstm":
            sizes = {"input": gates * self.width, "recurrent": gates * self.width, "cell": self.width}
            ones, zeros = declare(nn.initializers.ones, "Z"), declare(nn.initializers.zeros, "Z")
            self.scales = {name: self.param(f"{name}_norm_scale", ones, (n,)) for name, n in sizes.items()}
            self.biases = {name: self.param(f"{name}_norm_bias", zeros, (n,)) for name, n in sizes.items() if name != "input"}

    def weights(self) -> dict[str, jax.Array]:
        """Return kernels (..., Z) and the other parameters, for use inside a scan."""
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
        """Return the state before anything is read."""
        return (jnp.zeros((rows, self.width), self.dtype),) * FORMS[self.kind].states

    def __call__(self, x_TBD, state: State, mask_TB1=None, reverse: bool = False, context_TBD=None, recurrent_dropout_mask=None):
        """Return h (T, B, U) of every step, and the last state. Where the mask is false, h is zero and the state stays as it was.

        Args:
            context_TBD: read at each step, (1 or T, B, context).
            recurrent_dropout_mask: (B, U), multiplied with the recurrent state at each step (variational dropout).
        """
        weights = self.weights()
        if recurrent_dropout_mask is None and cudnn.fits(self.kind, self.dtype):
            if context_TBD is not None:
                context_TBD = jnp.broadcast_to(context_TBD, (*x_TBD.shape[:2], self.context))
                x_TBD = jnp.concatenate([x_TBD, context_TBD], -1)
                weights["input"] = jnp.concatenate([weights["input"], weights["context"]])
            return cudnn.lstm(weights, x_TBD, state, mask_TB1, reverse)
        z_TBZ = x_TBD @ weights["input"] + weights["bias"]
        if context_TBD is not None:
            z_TBZ = z_TBZ + context_TBD @ weights["context"]

        def step(state: State, x):
            z_BZ, mask_B1 = x
            new = advance(self.kind, self.activation, weights, z_BZ, state, recurrent_dropout_mask)
            if mask_B1 is None:
                return new, new[0]
            return tuple(jnp.where(mask_B1, a, b) for a, b in zip(new, state, strict=True)), jnp.where(mask_B1, new[0], 0)

        state, h_TBU = jax.lax.scan(step, state, (z_TBZ, mask_TB1), reverse=reverse)
        return h_TBU, state
