"""Recurrent cells as functions of explicit arrays, and a layer that runs one over a sequence, forwards or backwards.

Gates of a fused kernel are in the order of torch.nn: LSTM input, forget, cell, output; GRU reset, update, candidate. Sequences inside a
recurrent model lead with time (T or S), then the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.experimental import rnn
from jax.sharding import Mesh

from jaxnmt.models.int8 import Int8
from jaxnmt.models.layers import Matrix, normalise
from jaxnmt.models.linear import broadcast, multiply
from jaxnmt.models.scans import scan
from jaxnmt.parallel.axes import declare

State = tuple[jax.Array, ...]
"""What a cell hands from step to step: (h,), or (h, c) of an LSTM; (B, U) each."""

GATES = {"rnn": 1, "gru": 3, "lstm": 4, "layernorm_lstm": 4}
STATES = {"rnn": 1, "gru": 1, "lstm": 2, "layernorm_lstm": 2}
_ACTIVATIONS: dict[str, Callable] = {"tanh": jnp.tanh, "relu": nn.relu}


def advance(
    kind: str, activation: str, weights: dict[str, jax.Array], z_BZ, state: State, recurrent_dropout_mask=None
) -> tuple[State, dict[str, jax.Array]]:
    """Return the state after one step of a cell, and what it computed of it: (B, U) each.

    An LSTM and a GRU have gates, between 0 and 1, and the candidate for the new state; an LSTM also has `cell`, which its output gate
    multiplies.

    Args:
        weights: of `RecurrentLayer.weights`.
        z_BZ: the input's part of the gates, W x + b (layernorm_lstm: W x).
        recurrent_dropout_mask: (B, U), multiplied with the state that is read (variational dropout).
    """
    h_BU = state[0] if recurrent_dropout_mask is None else state[0] * recurrent_dropout_mask
    r_BZ = h_BU @ weights["recurrent"]
    if kind == "rnn":  # Elman 1990
        return (_ACTIVATIONS[activation](z_BZ + r_BZ),), {}
    if kind == "gru":  # Cho et al. 2014, with the reset gate after the product, as in cuDNN and torch
        (z_reset, z_update, z_new), (r_reset, r_update, r_new) = (jnp.split(x, 3, -1) for x in (z_BZ, r_BZ))
        reset, update = jax.nn.sigmoid(z_reset + r_reset), jax.nn.sigmoid(z_update + r_update)
        candidate = jnp.tanh(z_new + reset * (r_new + weights["candidate_bias"]))
        return (candidate + update * (state[0] - candidate),), {"reset": reset, "update": update, "candidate": candidate}
    if kind == "layernorm_lstm":  # Ba et al. 2016, equations 20-22
        z_BZ = normalise(z_BZ, weights["input_scale"], weights["input_bias"])
        r_BZ = normalise(r_BZ, weights["recurrent_scale"], weights["recurrent_bias"])
    input_gate, forget_gate, candidate, output_gate = jnp.split(z_BZ + r_BZ, 4, -1)
    gates = {"input": input_gate, "forget": forget_gate, "output": output_gate}
    gates = {name: jax.nn.sigmoid(x) for name, x in gates.items()} | {"candidate": jnp.tanh(candidate)}
    c_BU = gates["forget"] * state[1] + gates["input"] * gates["candidate"]
    read_BU = normalise(c_BU, weights["cell_scale"], weights["cell_bias"]) if kind == "layernorm_lstm" else c_BU
    gates["cell"] = jnp.tanh(read_BU)
    return (gates["output"] * gates["cell"], c_BU), gates


def reverse(x_TBD: jax.Array, length_B: jax.Array) -> jax.Array:
    """Reverse the first `length_B` steps of each row and leave the others in place; its own inverse."""
    step_T1 = jnp.arange(x_TBD.shape[0])[:, None]
    index_TB = jnp.where(step_T1 < length_B, length_B - 1 - step_T1, step_T1)
    return jnp.take_along_axis(x_TBD, index_TB.reshape(index_TB.shape + (1,) * (x_TBD.ndim - 2)), 0)


def _for_each_gate(init: Callable) -> Callable:
    """Return an initializer of (inputs, gates, width) that draws each gate's matrix separately."""

    def stacked(key, shape):
        inputs, gates, width = shape
        return jnp.stack([init(k, (inputs, width), jnp.float32) for k in jax.random.split(key, gates)], 1)

    return stacked


def _remembering(_, shape) -> jax.Array:
    """Initialize a bias (gates, width): an LSTM begins by remembering (Gers et al. 2000)."""
    return jnp.zeros(shape).at[1].set(1.0) if shape[0] == GATES["lstm"] else jnp.zeros(shape)


class RecurrentLayer(nn.Module):
    """One cell and its parameters.

    Attributes:
        inputs: width of what it reads at each step.
        width: units of its state.
        context: width of the context that it reads as well; 0: none.
        mesh: that it computes on; None: one device.
    """

    kind: str
    activation: str
    inputs: int
    width: int
    context: int
    dtype: Any
    mesh: Mesh | None = None

    def setup(self):
        gates, glorot = GATES[self.kind], _for_each_gate(nn.initializers.glorot_uniform())
        orthogonal = _for_each_gate(nn.initializers.orthogonal())  # Saxe et al. 2014
        self.input = Matrix((self.inputs, gates, self.width), "DGU", glorot, _remembering)
        self.recurrent = Matrix((self.width, gates, self.width), "DGU", orthogonal)
        if self.context:
            self.context_input = Matrix((self.context, gates, self.width), "DGU", glorot)
        if self.kind == "gru":
            self.candidate_bias = self.param("candidate_bias", declare(nn.initializers.zeros, "U"), (self.width,))
        if self.kind == "layernorm_lstm":
            sizes = {"input": gates * self.width, "recurrent": gates * self.width, "cell": self.width}
            ones, zeros = declare(nn.initializers.ones, "Z"), declare(nn.initializers.zeros, "Z")
            self.scales = {name: self.param(f"{name}_norm_scale", ones, (n,)) for name, n in sizes.items()}
            self.biases = {name: self.param(f"{name}_norm_bias", zeros, (n,)) for name, n in sizes.items() if name != "input"}

    def weights(self) -> dict[str, jax.Array]:
        """Return kernels (..., Z) and the other parameters, for use inside a scan."""
        found = {"input": self.input.kernel, "bias": self.input.bias, "recurrent": self.recurrent.kernel}
        if self.context:
            found["context"] = self.context_input.kernel
        found = {name: x.astype(self.dtype).reshape(*x.shape[:-2], -1) for name, x in found.items()}
        if self.kind == "gru":
            found["candidate_bias"] = self.candidate_bias.astype(self.dtype)
        if self.kind == "layernorm_lstm":  # its bias is added after the norm
            found |= {f"{name}_scale": x for name, x in self.scales.items()} | {f"{name}_bias": x for name, x in self.biases.items()}
            found |= {"input_bias": found["bias"], "bias": jnp.zeros_like(found["bias"])}
        return found

    def zeros(self, rows: int) -> State:
        """Return the state before anything is read."""
        return (jnp.zeros((rows, self.width), self.dtype),) * STATES[self.kind]

    def __call__(self, x_TBD, state: State, mask_TB1=None, reverse: bool = False, context_TBD=None, recurrent_dropout_mask=None):
        """Return h (T, B, U) of every step, and the last state. Where the mask is false, h is zero and the state stays as it was.

        Args:
            context_TBD: read at each step, (1 or T, B, context).
            recurrent_dropout_mask: (B, U), multiplied with the recurrent state at each step (variational dropout).
        """
        weights = self.weights()
        is_int8 = isinstance(weights["input"], Int8)
        if recurrent_dropout_mask is None and fits_cudnn(self.kind, self.dtype) and not is_int8:
            if context_TBD is not None:
                context_TBD = jnp.broadcast_to(context_TBD, (*x_TBD.shape[:2], self.context))
                x_TBD = jnp.concatenate([x_TBD, context_TBD], -1)
                weights["input"] = jnp.concatenate([weights["input"], weights["context"]])
            return cudnn_lstm(weights, x_TBD, state, mask_TB1, reverse)
        z_TBZ = multiply(x_TBD, weights["input"], self.mesh)
        z_TBZ = z_TBZ + broadcast(weights["bias"], z_TBZ.shape, self.mesh, batch_axis=1)
        if context_TBD is not None:
            z_TBZ = z_TBZ + context_TBD @ weights["context"]

        def step(weights: dict[str, jax.Array], state: State, x):
            z_BZ, mask_B1 = x
            new, _ = advance(self.kind, self.activation, weights, z_BZ, state, recurrent_dropout_mask)
            if mask_B1 is None:
                return new, new[0]
            return tuple(jnp.where(mask_B1, a, b) for a, b in zip(new, state, strict=True)), jnp.where(mask_B1, new[0], 0)

        state, h_TBU = scan(step, weights, state, (z_TBZ, mask_TB1), self.mesh, reverse)
        return h_TBU, state


def fits_cudnn(kind: str, dtype) -> bool:
    """Return whether cuDNN can be used: for an LSTM in float32 on one GPU (it neither takes bfloat16 nor can be split over a mesh)."""
    return kind == "lstm" and dtype == jnp.float32 and jax.default_backend() == "gpu" and jax.device_count() == 1


def cudnn_lstm(weights: dict[str, jax.Array], x_TBD: jax.Array, state: State, mask_TB1, backwards: bool) -> tuple[jax.Array, State]:
    """Return what an LSTM's `RecurrentLayer` does, by NVIDIA's kernel for a whole sequence instead of a scan.

    Args:
        weights: of `RecurrentLayer.weights`; `input` has a row for each number of x.
        mask_TB1: true for words, which padding follows; None: every step counts.
    """
    steps, rows, inputs = x_TBD.shape
    width = weights["recurrent"].shape[0]
    length_B = jnp.full((rows,), steps, jnp.int32) if mask_TB1 is None else mask_TB1[..., 0].sum(0, dtype=jnp.int32)
    x_TBD = reverse(x_TBD, length_B) if backwards else x_TBD
    bias = weights["bias"]
    flat = jnp.concatenate([weights["input"].T.ravel(), weights["recurrent"].T.ravel(), bias, jnp.zeros_like(bias)])
    first_h, first_c = (x[None] for x in state)
    at_least_one = jnp.maximum(length_B, 1)  # cuDNN refuses empty sequences
    h_BTU, *last = rnn.lstm(jnp.moveaxis(x_TBD, 1, 0), first_h, first_c, flat, at_least_one, inputs, width, 1, 0.0, False)
    h_TBU = jnp.where((jnp.arange(steps)[:, None] < length_B)[..., None], jnp.moveaxis(h_BTU, 0, 1), 0)
    last = tuple(jnp.where((length_B > 0)[:, None], new[0], old) for new, old in zip(last, state, strict=True))
    return (reverse(h_TBU, length_B) if backwards else h_TBU), last
