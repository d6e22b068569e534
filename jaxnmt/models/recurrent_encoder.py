"""The encoders of recurrent models, and the dropout that encoder and decoder share. Sequences lead with time: x_SBD."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxnmt import config as cfg
from jaxnmt.models import cells
from jaxnmt.models.cells import RecurrentLayer, State
from jaxnmt.models.layers import Dense, DropoutKey, dropout


def reverse_sequence(x_SBD: jax.Array, mask_SB: jax.Array) -> jax.Array:
    """Reverse each sentence's words and leave its end token and padding in place; its own inverse."""
    return cells.reverse(x_SBD, mask_SB.sum(0) - 1)


def drop(x_TBD: jax.Array, config: cfg.Recurrent, noise: DropoutKey | None, place: str) -> jax.Array:
    """Apply dropout to a sequence: with one mask for each step, or one for all steps (variational)."""
    noise = noise and noise.fold_in(place)
    if noise and config.variational:
        return x_TBD * dropout(jnp.ones_like(x_TBD[:1]), config.dropout, noise, batch_axis=1)
    return dropout(x_TBD, config.dropout, noise, batch_axis=1)


def recurrent_dropout(x_TBD: jax.Array, width: int, config: cfg.Recurrent, noise: DropoutKey | None, place: str) -> jax.Array | None:
    """Return the mask (B, U) that the state of a layer that reads x is multiplied by at every step; None without variational dropout."""
    if noise is None or not config.variational or config.dropout == 0.0:
        return None
    return dropout(jnp.ones((x_TBD.shape[1], width), x_TBD.dtype), config.dropout, noise.fold_in(place).fold_in("recurrent"))


class Encoder(nn.Module):
    """A stack of recurrent layers; a bidirectional one is two layers of half the width."""

    config: cfg.Recurrent
    mesh: Mesh | None = None

    def setup(self):
        c, width = self.config, self.config.encoder_dim or self.config.hidden_dim
        layer = functools.partial(RecurrentLayer, c.cell, c.activation, context=0, dtype=jnp.dtype(c.dtype), mesh=self.mesh)
        both = [c.bidirectional == "all" or (c.bidirectional == "first" and i == 0) for i in range(c.num_encoder_layers)]
        inputs = [c.emb_dim] + [width] * (c.num_encoder_layers - 1)
        self.layer = [layer(inputs=n, width=width // 2 if two else width) for n, two in zip(inputs, both, strict=True)]
        self.backward_layer = [layer(inputs=n, width=width // 2) if two else None for n, two in zip(inputs, both, strict=True)]

    def __call__(self, x_SBD, mask_SB1, noise: DropoutKey | None) -> tuple[jax.Array, list[State]]:
        """Return the top layer's states (S, B, D), and each layer's last state."""
        c, last = self.config, []
        for i, (forward, backward) in enumerate(zip(self.layer, self.backward_layer, strict=True)):
            directions = []
            for layer, place in ((forward, f"layer_{i}"), (backward, f"layer_{i}_backward")):
                if layer is not None:
                    mask = recurrent_dropout(x_SBD, layer.width, c, noise, place)
                    zeros = layer.zeros(x_SBD.shape[1])
                    directions.append(layer(x_SBD, zeros, mask_SB1, layer is backward, recurrent_dropout_mask=mask))
            h_SBD, state = jax.tree.map(lambda *both: jnp.concatenate(both, -1), *directions)
            last.append(state)
            x_SBD = h_SBD + x_SBD if c.residual and i > 0 else h_SBD
            if i + 1 < len(self.layer):
                x_SBD = drop(x_SBD, c, noise, f"layer_{i}")
        return x_SBD, last


class Bag(nn.Module):
    """An encoder without order and memory: each word through one feed-forward layer, and their mean as the vector."""

    config: cfg.Recurrent
    mesh: Mesh | None = None

    @nn.compact
    def __call__(self, x_SBD, mask_SB1, noise: DropoutKey | None) -> tuple[jax.Array, list[State]]:
        width = self.config.encoder_dim or self.config.hidden_dim
        h_SBD = jnp.where(mask_SB1, jnp.tanh(Dense((width,), axes="DU", mesh=self.mesh, name="words")(x_SBD)), 0)
        return h_SBD, [(h_SBD.sum(0) / jnp.maximum(mask_SB1.sum(0), 1).astype(h_SBD.dtype),)]
