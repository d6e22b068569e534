"""Layers that all models share: dropout, dense layers, norms, embeddings, positions, feed-forward.

The letters at the end of names are axes; `parallel/axes.py` has the legend.
"""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxnmt.models.linear import add_bias, broadcast, multiply
from jaxnmt.parallel.axes import declare
from jaxnmt.parallel.numbers import at_least_float32 as at_least_float32  # which users' own models find here
from jaxnmt.parallel.numbers import mix
from jaxnmt.parallel.sharding import constrain, is_replicated, keeps_heads, num_shards

NORM_EPSILON = 1e-5
SYMBOLIC_POSITIONS = 2048
"""Sinusoidal positions in a program whose lengths are symbolic dimensions (`jax.export`); the program must not have more."""


class DropoutKey(NamedTuple):
    """The source of dropout's random bits: a hash of (seed, step, layer, place, element).

    A mask therefore depends neither on the mesh nor on how a batch is split into parts.

    Attributes:
        key: uint32 scalar, the hash of everything but the element.
        rows_B: uint32, the index in the whole batch of each row at hand.
    """

    key: jax.Array
    rows_B: jax.Array

    @staticmethod
    def of(seed: int, step: jax.Array, rows_B: jax.Array) -> DropoutKey:
        """Return the key of one training step."""
        return DropoutKey(mix(mix(jnp.uint32(seed)) + step.astype(jnp.uint32)), rows_B.astype(jnp.uint32))

    def fold_in(self, place: str | jax.Array | int) -> DropoutKey:
        """Return the key of a named place in the model, or of a numbered layer."""
        number = jnp.uint32(zlib.crc32(place.encode())) if isinstance(place, str) else jnp.asarray(place, jnp.uint32)
        return DropoutKey(mix(self.key ^ mix(number + jnp.uint32(0x9E3779B9))), self.rows_B)

    def at(self, place: str | jax.Array | int) -> DropoutKey:  # the name in earlier versions: runs keep the code of a user's own model
        """Return `fold_in(place)`."""
        return self.fold_in(place)

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


def dropout(x: jax.Array, rate: float, noise: DropoutKey | None, batch_axis: int = 0) -> jax.Array:
    """Zero elements with probability `rate` and scale up the rest; return x itself without noise."""
    if noise is None or rate == 0.0:
        return x
    keep = noise.bits(x.shape, batch_axis) >= jnp.uint32(int(rate * 2**32))
    return jnp.where(keep, x * jnp.asarray(1.0 / (1.0 - rate), x.dtype), jnp.zeros((), x.dtype))


class Dense(nn.Module):
    """x @ kernel + bias over the last `inputs` axes of x; parameters are float32, the product is computed in x's type.

    Attributes:
        shape: the output axes.
        inputs: number of input axes.
        axes: letters of the kernel's axes, inputs first; "" declares nothing.
        mesh: that x lies on; None: one device.
    """

    shape: tuple[int, ...]
    inputs: int = 1
    use_bias: bool = True
    axes: str = ""
    mesh: Mesh | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel, bias = self.parameters(x)
        return self.biased(self.product(x, kernel), bias)

    @nn.nowrap  # so that operations are named after the layer, not after its method
    def parameters(self, x: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        """Return the kernel, in x's type, and the bias, in float32."""
        input_shape = x.shape[x.ndim - self.inputs :]
        fan_in, fan_out = math.prod(input_shape), math.prod(self.shape[-2:])

        def init(key, shape):  # Glorot and Bengio 2010, for each matrix of a fused kernel separately
            bound = math.sqrt(6.0 / (fan_in + fan_out))
            return jax.random.uniform(key, shape, jnp.float32, -bound, bound)

        kernel = self.param("kernel", declare(init, self.axes, multiplied=True), (*input_shape, *self.shape)).astype(x.dtype)
        zeros = declare(nn.initializers.zeros, self.axes[self.inputs :])
        return kernel, self.param("bias", zeros, self.shape) if self.use_bias else None

    @nn.nowrap
    def product(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """Return x @ kernel."""
        if self.keeps_heads or not is_replicated("H", self.mesh):  # a head axis that is split must stay an axis
            return jnp.tensordot(x, kernel, self.inputs)
        fan_in = math.prod(x.shape[x.ndim - self.inputs :])
        y = multiply(x.reshape(-1, fan_in), kernel.reshape(fan_in, -1), self.mesh)
        return y.reshape(*x.shape[: x.ndim - self.inputs], *self.shape)

    @nn.nowrap
    def biased(self, y: jax.Array, bias: jax.Array | None) -> jax.Array:
        """Return y + bias in y's type, see `add_bias`."""
        return y if bias is None else add_bias(y, bias, self.mesh)

    @property
    def keeps_heads(self) -> bool:
        """Whether heads stay an axis of every product because that is faster on the mesh's devices. Such kernels are never `Int8`."""
        return "H" in self.axes and keeps_heads(self.mesh)


class Projections(Dense):
    """Several dense layers that read the same input: one kernel, whose first output axis counts them."""

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
        kernel, bias = self.parameters(x)
        count = self.shape[0]
        if self.keeps_heads:
            products = [self.product(x, kernel[:, i]) for i in range(count)]
        else:
            products = [y.squeeze(-3) for y in jnp.split(self.product(x, kernel), count, -3)]
        biases = [None] * count if bias is None else bias
        return tuple(map(self.biased, products, biases))


class Matrix(nn.Module):
    """A kernel, and with `bias_init` a bias, for others to multiply by and add, inside a scan for example.

    Attributes:
        axes: letters of the kernel's axes; the bias has all but the first.
    """

    shape: tuple[int, ...]
    axes: str
    init: Callable = nn.initializers.glorot_uniform()
    bias_init: Callable | None = None

    def setup(self):
        multiplied = "P" not in self.axes  # scores of positions are multiplied otherwise, to float32
        self.kernel = self.param("kernel", declare(self.init, self.axes, multiplied), self.shape)
        if self.bias_init:
            self.bias = self.param("bias", declare(self.bias_init, self.axes[1:]), self.shape[1:])


def normalise(x: jax.Array, scale: jax.Array, bias: jax.Array | None, mesh: Mesh | None = None) -> jax.Array:
    """Apply LayerNorm (Ba et al. 2016) over the last axis, or RMSNorm (Zhang and Sennrich 2019) if there is no bias; in float32."""
    y = x.astype(at_least_float32(x.dtype))
    if bias is not None:
        y = y - y.mean(-1, keepdims=True)
    y = y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + NORM_EPSILON) * broadcast(scale, y.shape, mesh)
    return (y if bias is None else y + broadcast(bias, y.shape, mesh)).astype(x.dtype)


class Norm(nn.Module):
    """`normalise` with its parameters; `kind` is `layernorm` or `rmsnorm`."""

    kind: str = "layernorm"
    mesh: Mesh | None = None

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        width = x_BTD.shape[-1:]
        scale = self.param("scale", declare(nn.initializers.ones, "D"), width)
        bias = self.param("bias", declare(nn.initializers.zeros, "D"), width) if self.kind == "layernorm" else None
        return normalise(x_BTD, scale, bias, self.mesh)


class Embedding(nn.Module):
    """A table of token vectors.

    Attributes:
        is_output: whether the table is the output layer's matrix too.
        is_scaled: multiply what is looked up by sqrt(width) (Vaswani et al. 2017, section 3.4).
    """

    size: int
    width: int
    is_output: bool = False
    mesh: Mesh | None = None
    is_scaled: bool = True

    def setup(self):
        init = declare(nn.initializers.normal(self.width**-0.5), "VD", multiplied=self.is_output)
        self.table = self.param("table", init, (self.size, self.width))

    def __call__(self, tokens_BT: jax.Array, dtype) -> jax.Array:
        x_BTD = look_up(self.table, tokens_BT, self.mesh if self.is_output else None).astype(dtype)
        return x_BTD * jnp.asarray(math.sqrt(self.width), dtype) if self.is_scaled else x_BTD


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def look_up(table_VD: jax.Array, tokens_BT: jax.Array, mesh: Mesh | None) -> jax.Array:
    """Return the vectors of tokens, (B, T, D)."""
    return table_VD[tokens_BT]


def _look_up(table_VD, tokens_BT, mesh):
    return table_VD[tokens_BT], (tokens_BT, jnp.zeros(0, table_VD.dtype), table_VD.shape[0])


def _look_up_gradient(mesh, residuals, x_BTD):
    """On a mesh each part of the rows has a gradient of its own; the sum over devices is left for last, when it is one for all uses."""
    tokens_BT, like, size = residuals
    parts = num_shards("B", mesh)
    split = lambda x: x.reshape(parts, -1, *x.shape[1:])  # noqa: E731
    of_part = lambda tokens, x: jnp.zeros((size, x.shape[-1]), like.dtype).at[tokens].add(x.astype(like.dtype))  # noqa: E731
    return constrain(jax.vmap(of_part)(split(tokens_BT), split(x_BTD)), "BVD", mesh).sum(0), None


look_up.defvjp(_look_up, _look_up_gradient)


def sinusoids(length: int, width: int, kind: str = "sinusoidal") -> np.ndarray:
    """Return the position vectors of Vaswani et al. 2017, section 3.5, as [sines | cosines]: float32 (length, width).

    With `kind` fairseq, as in its module SinusoidalPositionalEmbedding: the last frequency is 1/10000, not the one before it, and
    positions are counted from 2, the number after the id of padding.
    """
    half = width // 2
    first, steps = (2, half - 1) if kind == "fairseq" else (0, half)
    angles = np.arange(first, first + length)[:, None] * 10000.0 ** (-np.arange(half) / max(steps, 1))
    return np.pad(np.concatenate([np.sin(angles), np.cos(angles)], 1), ((0, 0), (0, width % 2))).astype(np.float32)


class Positions(nn.Module):
    """Position vectors that are added to the embeddings.

    `kind` is learned, sinusoidal, fairseq (see `sinusoids`), rotary (done inside attention: nothing is added) or none.
    """

    kind: str
    width: int
    max_positions: int

    @nn.compact
    def __call__(self, x_BTD: jax.Array, positions_BT: jax.Array, bound: int) -> jax.Array:
        """Return x plus the vectors of its positions, all of which are below `bound`."""
        if self.kind == "learned":
            table = self.param("table", declare(nn.initializers.normal(self.width**-0.5), "PD"), (self.max_positions, self.width))
            vectors = table[jnp.minimum(positions_BT, self.max_positions - 1)]
        elif self.kind in ("sinusoidal", "fairseq"):
            length = bound if isinstance(bound, int) else SYMBOLIC_POSITIONS
            vectors = jnp.asarray(sinusoids(length, self.width, self.kind))[positions_BT]
        else:
            return x_BTD
        return x_BTD + vectors.astype(x_BTD.dtype)


def rotate(x_BTHK: jax.Array, positions_BT: jax.Array) -> jax.Array:
    """Rotate each pair (x_i, x_{i+K/2}) by an angle proportional to the position (rotary positions, Su et al. 2021, equation 34).

    Computed in float32: a sine in bfloat16 has two digits.
    """
    half, dtype = x_BTHK.shape[-1] // 2, at_least_float32(x_BTHK.dtype)
    frequency = 10000.0 ** (-jnp.arange(half, dtype=dtype) / half)
    angle = positions_BT[..., None, None].astype(dtype) * frequency
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    a, b = x_BTHK[..., :half].astype(dtype), x_BTHK[..., half:].astype(dtype)
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], -1).astype(x_BTHK.dtype)


_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nn.relu,
    "gelu": nn.gelu,
    "gelu_exact": functools.partial(nn.gelu, approximate=False),
    "silu": nn.silu,
    "swiglu": nn.silu,
}


class FeedForward(nn.Module):
    """Two dense layers with a non-linearity between (Vaswani et al. 2017, equation 2), or gated (SwiGLU, Shazeer 2020)."""

    width: int
    hidden: int
    activation: str
    dropout: float
    mesh: Mesh | None = None

    @nn.compact
    def __call__(self, x_BTD: jax.Array, noise: DropoutKey | None) -> jax.Array:
        hidden = functools.partial(Dense, (self.hidden,), axes="DF", mesh=self.mesh)
        h_BTF = _ACTIVATIONS[self.activation](hidden(name="wi")(x_BTD))
        if self.activation == "swiglu":
            h_BTF = h_BTF * hidden(name="gate")(x_BTD)
        h_BTF = constrain(dropout(h_BTF, self.dropout, noise and noise.fold_in("mlp")), "BTF", self.mesh)
        return Dense((self.width,), axes="FD", mesh=self.mesh, name="wo")(h_BTF)
