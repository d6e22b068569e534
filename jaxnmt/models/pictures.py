"""Turn pictures and feature vectors into states that a decoder can attend to, one for each region.

A picture is (rows, columns, channels). Its regions are squares of `patch` pixels, numbered row by row; their number is S. Each region has a
learned position. Parameters are float32, and `dtype` is the type of the computation.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxnmt.config import Captioning
from jaxnmt.models.layers import Dense, Norm, Positions
from jaxnmt.parallel.axes import declare
from jaxnmt.parallel.numbers import at_least_float32
from jaxnmt.parallel.sharding import constrain


class Regions(nn.Module):
    """The regions of pictures, or a vector as the only region.

    Attributes:
        task: says how a picture becomes regions, and has been checked (`Captioning.problems`).
        width: of a region's state.
    """

    task: Captioning
    width: int
    dtype: Any = jnp.float32
    mesh: Mesh | None = None

    @nn.compact
    def __call__(self, source: jax.Array) -> jax.Array:
        """Return (B, S, D) from pictures, uint8 (B, rows, columns, channels), or from vectors (B, N)."""
        if self.task.source == "vectors":
            x_BSN = source[:, None].astype(self.dtype)
        else:
            pictures = (source.astype(jnp.float32) / 127.5 - 1).astype(self.dtype)
            x_BSN = self._convolved(pictures) if self.task.regions == "convolution" else patches(pictures, self.task.patch)
        x_BSD = Dense((self.width,), axes="ND", mesh=self.mesh, name="projection")(x_BSN)
        if self.task.source == "pictures":
            count = x_BSD.shape[1]
            x_BSD = Positions("learned", self.width, count, name="positions")(x_BSD, jnp.arange(count)[None], count)
        return constrain(x_BSD, "BSD", self.mesh)

    def _convolved(self, x: jax.Array) -> jax.Array:
        """Return (B, S, D): convolutions of 3 x 3 pixels halve the picture until a region is one pixel.

        This is the convolutional stem of Xiao et al. 2021 ("Early convolutions help transformers see better"), with LayerNorm in place of
        batch normalisation: no picture depends on others of its batch. A region sees a little more than its patch.
        """
        halvings = self.task.patch.bit_length() - 1
        init = declare(nn.initializers.he_normal(), "33NN")
        for i in range(halvings):  # the last has the model's width, each before it half as many channels
            channels = max(self.width >> (halvings - 1 - i), 1)
            options = {"strides": 2, "padding": 1, "use_bias": False, "dtype": self.dtype, "kernel_init": init}
            x = nn.relu(Norm(mesh=self.mesh, name=f"norm_{i}")(nn.Conv(channels, (3, 3), name=f"convolution_{i}", **options)(x)))
        return x.reshape(x.shape[0], -1, x.shape[-1])


def patches(pictures: jax.Array, patch: int) -> jax.Array:
    """Return the pixels of each patch, (B, S, N) (ViT, Dosovitskiy et al. 2021, equation 1, without the class token)."""
    batch, rows, columns, channels = pictures.shape
    x = pictures.reshape(batch, rows // patch, patch, columns // patch, patch, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, patch * patch * channels)


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
