"""Turns pictures and feature vectors into states that a decoder can attend to, one for each region.

A picture is (rows, columns, channels). Its regions are squares of `patch` pixels, numbered row by row; their number is S. Each has a
learned position. Parameters are float32, and `dtype` is the type of the computation.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxnmt.errors import UserError
from jaxnmt.models.layers import Dense, Norm, Positions
from jaxnmt.parallel.axes import declare
from jaxnmt.parallel.numbers import at_least_float32
from jaxnmt.parallel.sharding import constrain


def scaled(pictures: jax.Array, dtype: Any) -> jax.Array:
    """Return pictures in a float type: bytes are scaled to -1..1, floats are taken as they are."""
    if pictures.dtype == jnp.uint8:
        return (pictures.astype(jnp.float32) / 127.5 - 1).astype(dtype)
    return pictures.astype(dtype)


def regions_of(pictures: jax.Array, patch: int) -> int:
    """Return S, the number of regions.

    Raises:
        UserError: the patches do not divide the picture.
    """
    rows, columns = pictures.shape[1:3]
    if rows % patch or columns % patch:
        raise UserError(f"pictures of {rows} x {columns} pixels cannot be cut into patches of {patch} x {patch}: choose a divisor of both")
    return rows // patch * (columns // patch)


def _with_positions(x_BSD: jax.Array, mesh: Mesh | None) -> jax.Array:
    """Add the vector of each region's place; called inside a compact module."""
    count, width = x_BSD.shape[1:]
    return constrain(Positions("learned", width, count, name="positions")(x_BSD, jnp.arange(count)[None], count), "BSD", mesh)


class Patches(nn.Module):
    """A linear map of each patch's pixels (ViT, Dosovitskiy et al. 2021, equation 1, without the class token)."""

    width: int
    patch: int
    dtype: Any = jnp.float32
    mesh: Mesh | None = None

    @nn.compact
    def __call__(self, pictures: jax.Array) -> jax.Array:
        """Return (B, S, D) from (B, rows, columns, channels).

        Raises:
            UserError: the patches do not divide the picture.
        """
        count, patch = regions_of(pictures, self.patch), self.patch
        batch, rows, columns, channels = pictures.shape
        x = scaled(pictures, self.dtype).reshape(batch, rows // patch, patch, columns // patch, patch, channels)
        x_BSN = x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, count, patch * patch * channels)
        return _with_positions(Dense((self.width,), axes="ND", mesh=self.mesh, name="projection")(x_BSN), self.mesh)


class Convolution(nn.Module):
    """Convolutions of 3 x 3 pixels, each of which halves the picture until a region is one pixel, and then a linear map of each.

    This is the convolutional stem of Xiao et al. 2021 ("Early convolutions help transformers see better"), with LayerNorm in
    place of batch normalisation: no picture depends on others of its batch. A region sees a little more than its patch.

    Attributes:
        patch: a power of two.
    """

    width: int
    patch: int
    dtype: Any = jnp.float32
    mesh: Mesh | None = None

    @nn.compact
    def __call__(self, pictures: jax.Array) -> jax.Array:
        """Return (B, S, D) from (B, rows, columns, channels).

        Raises:
            UserError: the patches do not divide the picture, or are no power of two.
        """
        count, x = regions_of(pictures, self.patch), scaled(pictures, self.dtype)
        halvings = self.patch.bit_length() - 1
        if self.patch != 1 << halvings:
            raise UserError(
                f"convolutions cannot make regions of {self.patch} x {self.patch} pixels: choose a power of two, such as {1 << halvings}"
            )
        init = declare(nn.initializers.he_normal(), "33NN")
        for i in range(halvings):  # the last has the model's width, each before it half as many channels
            channels = max(self.width >> (halvings - 1 - i), 1)
            options = {"strides": 2, "padding": 1, "use_bias": False, "dtype": self.dtype, "kernel_init": init}
            x = nn.relu(Norm(name=f"norm_{i}")(nn.Conv(channels, (3, 3), name=f"convolution_{i}", **options)(x)))
        x_BSN = x.reshape(len(x), count, -1)
        return _with_positions(Dense((self.width,), axes="ND", mesh=self.mesh, name="projection")(x_BSN), self.mesh)


class FeatureVector(nn.Module):
    """A linear map of a vector that was computed elsewhere, to one region."""

    width: int
    dtype: Any = jnp.float32
    mesh: Mesh | None = None

    @nn.compact
    def __call__(self, features_BN: jax.Array) -> jax.Array:
        """Return (B, 1, D) from (B, N)."""
        x_BD = Dense((self.width,), axes="ND", mesh=self.mesh, name="projection")(features_BN.astype(self.dtype))
        return constrain(x_BD[:, None], "BSD", self.mesh)


class Regions(nn.Module):
    """The regions of pictures, or the one of vectors, as a task wants them: see `config.Captioning`."""

    task: Any
    width: int
    dtype: Any = jnp.float32
    mesh: Mesh | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return (B, S, D)."""
        if self.task.source == "vectors":
            return FeatureVector(self.width, self.dtype, self.mesh, name="vector")(x)
        kind = Convolution if self.task.regions == "convolution" else Patches
        return kind(self.width, self.task.patch, self.dtype, self.mesh, name=self.task.regions)(x)


def doubly_stochastic(weights_BTS: jax.Array, mask_BT: jax.Array) -> jax.Array:
    """Return (B,): the sum over regions of (1 - sum over target words of attention) squared (Xu et al. 2015, section 4.2.1).

    A loss with this term makes a decoder look at every region in the course of a caption. A row without target words has 0.

    Args:
        weights_BTS: each word's attention over the regions.
        mask_BT: true for target words, false for padding.
    """
    weights_BTS = weights_BTS.astype(at_least_float32(weights_BTS.dtype))
    seen_BS = jnp.where(mask_BT[..., None], weights_BTS, 0).sum(1)
    return jnp.where(mask_BT.any(1), jnp.square(1 - seen_BS).sum(1), 0)
