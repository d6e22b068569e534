"""Parts that every rung shares: dropout, dense layers, norms, embeddings, positions, feed-forward.

Letters in names are axes: B batch, S source, T target, D width, H heads, K head width, F MLP width, V vocabulary.
"""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnmt.parallel.sharding import constrain, whole

NORM_EPSILON = 1e-5


def at_least_float32(dtype) -> jnp.dtype:
    """Return the type for sums, softmax and loss of numbers of `dtype`: float32, or `dtype` where that is wider."""
    return jnp.promote_types(dtype, jnp.float32)


def mix(x: jax.Array) -> jax.Array:
    """Hash uint32 by a bijection in which every input bit moves every output bit (xor-shift and multiply, twice)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Noise:
    """Where dropout's randomness comes from: a hash of (seed, step, layer, site, element), so that a mask depends neither
    on the mesh nor on how a batch is split into parts.

    Attributes:
        key: uint32 scalar, made of everything but the element.
        rows_B: uint32, the index in the whole batch of each row at hand.
    """

    key: jax.Array
    rows_B: jax.Array

    @staticmethod
    def of(seed: int, step: jax.Array, rows_B: jax.Array) -> Noise:
        """The noise of one training step."""
        return Noise(mix(mix(jnp.uint32(seed)) + step.astype(jnp.uint32)), rows_B.astype(jnp.uint32))

    def at(self, place: str | jax.Array | int) -> Noise:
        """The noise of a named part, or of a numbered layer."""
        number = jnp.uint32(zlib.crc32(place.encode())) if isinstance(place, str) else jnp.asarray(place, jnp.uint32)
        return Noise(mix(self.key ^ mix(number + jnp.uint32(0x9E3779B9))), self.rows_B)

    def bits(self, shape: Sequence[int], batch_axis: int = 0) -> jax.Array:
        """Return one uniform uint32 for each element of an array.

        The bits are a Weyl sequence over the elements, mixed: the key sets both its start and its stride. With the start alone, the masks
        of two keys that share their high bits would be permutations of each other.
        """
        start, stride = mix(self.key), mix(self.key + jnp.uint32(0x9E3779B9)) | jnp.uint32(1)
        others = [1 if axis == batch_axis else size for axis, size in enumerate(shape)]
        inner = math.prod(others)
        row = (self.rows_B * jnp.uint32(inner)).reshape([-1 if axis == batch_axis else 1 for axis in range(len(shape))])
        element = jnp.arange(inner, dtype=jnp.uint32).reshape(others)
        return mix(start + stride * (row + element))


def dropout(x: jax.Array, rate: float, noise: Noise | None, batch_axis: int = 0) -> jax.Array:
    """Zero elements with probability `rate` and scale up the rest; the identity without noise."""
    if noise is None or rate == 0.0:
        return x
    keep = noise.bits(x.shape, batch_axis) >= jnp.uint32(int(rate * 2**32))
    return jnp.where(keep, x * jnp.asarray(1.0 / (1.0 - rate), x.dtype), jnp.zeros((), x.dtype))


class Dense(nn.Module):
    """x @ kernel + bias over the last `inputs` axes of x, to any shape of outputs; parameters float32, computed in x's type."""

    shape: tuple[int, ...]  # of the output axes
    inputs: int = 1
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        input_shape = x.shape[x.ndim - self.inputs :]
        fan_in, fan_out = math.prod(input_shape), self.shape[-1] * (self.shape[-2] if len(self.shape) > 1 else 1)

        def init(key, shape):  # Glorot and Bengio 2010, each matrix of a fused kernel for itself
            bound = math.sqrt(6.0 / (fan_in + fan_out))
            return jax.random.uniform(key, shape, jnp.float32, -bound, bound)

        kernel = self.param("kernel", init, (*input_shape, *self.shape)).astype(x.dtype)
        if whole("H"):  # one plain matrix product is the fastest spelling; but a head axis that is split must stay an axis
            y = (x.reshape(-1, fan_in) @ kernel.reshape(fan_in, -1)).reshape(*x.shape[: x.ndim - self.inputs], *self.shape)
        else:
            y = jax.lax.dot_general(x, kernel, ((tuple(range(x.ndim - self.inputs, x.ndim)), tuple(range(self.inputs))), ((), ())))
        if self.use_bias:
            # In float32, so that its gradient is: a sum over all positions in bfloat16 would lose most of them.
            y = (y.astype(at_least_float32(y.dtype)) + self.param("bias", nn.initializers.zeros, self.shape)).astype(x.dtype)
        return y


def normalise(x: jax.Array, scale: jax.Array, bias: jax.Array | None) -> jax.Array:
    """LayerNorm (Ba et al. 2016) over the last axis; without a bias RMSNorm (Zhang and Sennrich 2019). Computed in float32."""
    y = x.astype(at_least_float32(x.dtype))
    if bias is not None:
        y = y - y.mean(-1, keepdims=True)
    y = y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + NORM_EPSILON) * scale
    return (y if bias is None else y + bias).astype(x.dtype)


class Norm(nn.Module):
    """`normalise` with parameters of its own: `layernorm` or `rmsnorm`."""

    kind: str = "layernorm"

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        width = x_BTD.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, width)
        return normalise(x_BTD, scale, self.param("bias", nn.initializers.zeros, width) if self.kind == "layernorm" else None)


class Embedding(nn.Module):
    """A table of vectors, scaled by sqrt(width) on the way in (Vaswani et al. 2017, section 3.4)."""

    size: int
    width: int

    def setup(self):
        self.table = self.param("table", nn.initializers.normal(self.width**-0.5), (self.size, self.width))

    def __call__(self, tokens_BT: jax.Array, dtype) -> jax.Array:
        return self.table[tokens_BT].astype(dtype) * jnp.asarray(math.sqrt(self.width), dtype)


def sinusoids(length: int, width: int) -> np.ndarray:
    """Position vectors of Vaswani et al. 2017, section 3.5, as [sines | cosines]: float32 (length, width)."""
    half = width // 2
    angles = np.arange(length)[:, None] * 10000.0 ** (-np.arange(half) / max(half, 1))
    return np.pad(np.concatenate([np.sin(angles), np.cos(angles)], 1), ((0, 0), (0, width % 2))).astype(np.float32)


class Positions(nn.Module):
    """What is added to the embeddings to tell a token's place; nothing for rotary (done inside attention) and none."""

    kind: str
    width: int
    max_positions: int

    @nn.compact
    def __call__(self, x_BTD: jax.Array, positions_BT: jax.Array, bound: int) -> jax.Array:
        """`bound`: no position reaches it."""
        if self.kind == "learned":
            table = self.param("table", nn.initializers.normal(self.width**-0.5), (self.max_positions, self.width))
            vectors = table[jnp.minimum(positions_BT, self.max_positions - 1)]
        elif self.kind == "sinusoidal":
            vectors = jnp.asarray(sinusoids(bound, self.width))[positions_BT]
        else:
            return x_BTD
        return x_BTD + vectors.astype(x_BTD.dtype)


def rotate(x_BTHK: jax.Array, positions_BT: jax.Array) -> jax.Array:
    """Turn each pair (x_i, x_{i+K/2}) by an angle proportional to the position: rotary positions (Su et al. 2021, equation 34).

    Computed in float32: a sine in bfloat16 has two digits.
    """
    half, dtype = x_BTHK.shape[-1] // 2, at_least_float32(x_BTHK.dtype)
    frequency = 10000.0 ** (-jnp.arange(half, dtype=dtype) / half)
    angle = positions_BT[..., None, None].astype(dtype) * frequency
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    a, b = x_BTHK[..., :half].astype(dtype), x_BTHK[..., half:].astype(dtype)
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], -1).astype(x_BTHK.dtype)


_ACTIVATIONS = {"relu": nn.relu, "gelu": nn.gelu, "silu": nn.silu, "swiglu": nn.silu}


class FeedForward(nn.Module):
    """Two dense layers with a non-linearity between (Vaswani et al. 2017, equation 2), or gated (SwiGLU, Shazeer 2020)."""

    width: int
    hidden: int
    activation: str
    dropout: float

    @nn.compact
    def __call__(self, x_BTD: jax.Array, noise: Noise | None) -> jax.Array:
        h_BTF = _ACTIVATIONS[self.activation](Dense((self.hidden,), name="wi")(x_BTD))
        if self.activation == "swiglu":
            h_BTF = h_BTF * Dense((self.hidden,), name="gate")(x_BTD)
        h_BTF = constrain(dropout(h_BTF, self.dropout, noise and noise.at("mlp")), "BTF")
        return Dense((self.width,), name="wo")(h_BTF)
