"""The Transformer of Vaswani et al. 2017, figure 1, with pre- or post-norm and unrolled or scanned layers."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxnmt import config as cfg
from jaxnmt.models.attention import CrossAttention, SelfAttention, of_layer
from jaxnmt.models.cache import Cache
from jaxnmt.models.encoder_decoder import Batch, EncoderDecoder, Memory, SourceStates
from jaxnmt.models.fused_attention import Mask
from jaxnmt.models.layers import DropoutKey, FeedForward, Norm, Positions, dropout
from jaxnmt.parallel.sharding import constrain

_POLICIES = {"dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable, "full": None}


class Block(nn.Module):
    """One encoder layer, or with `cross` one decoder layer: sublayers, each with a residual sum and a norm."""

    config: cfg.Transformer
    cross: bool = False
    mesh: Mesh | None = None

    def setup(self):
        c = self.config
        heads = (c.num_heads, c.head_dim or c.emb_dim // c.num_heads, c.emb_dim, c.attention_dropout, self.mesh)
        self.self_attention = SelfAttention(*heads, rotary=c.positions == "rotary")
        self.self_attention_norm = Norm(c.norm, self.mesh)
        if self.cross:
            self.cross_attention = CrossAttention(*heads)
            self.cross_attention_norm = Norm(c.norm, self.mesh)
        self.mlp = FeedForward(c.emb_dim, c.mlp_dim, c.activation, c.activation_dropout, self.mesh)
        self.mlp_norm = Norm(c.norm, self.mesh)

    def _before(self, norm, x):
        """Return what a sublayer reads."""
        return norm(x) if self.config.norm_order == "pre" else x

    def _after(self, norm, x, y, noise: DropoutKey | None):
        """Return the residual sum of x and a sublayer's output y."""
        x = x + dropout(y, self.config.dropout, noise and noise.fold_in("residual"))
        return x if self.config.norm_order == "pre" else norm(x)

    def __call__(
        self, x_BTD, layer, self_mask, positions_BT, noise: DropoutKey | None, memory=None, cross_mask=None, cache=None, shared=False
    ):
        """Return (B, T, D), and the cache.

        Args:
            layer: its index.
            self_mask, cross_mask: a Mask, or booleans (B, T, S).
            memory: the encoder's states, or keys and values that are projected already.
            cache: as in SelfAttention.
            shared: the cache is one array for all layers, as scanned layers have it.
        """
        noise = noise and noise.fold_in(layer)
        own, cross, mlp = (noise and noise.fold_in(name) for name in ("self", "cross", "mlp"))
        x = x_BTD
        read = self._before(self.self_attention_norm, x)
        y, cache = self.self_attention(read, self_mask, positions_BT, own, cache, layer if shared else None)
        x = self._after(self.self_attention_norm, x, y, own)
        if self.cross:
            keys_values = memory if isinstance(memory, tuple) else self.cross_attention.project(memory)
            y = self.cross_attention(self._before(self.cross_attention_norm, x), keys_values, cross_mask, cross)
            x = self._after(self.cross_attention_norm, x, y, cross)
        x = self._after(self.mlp_norm, x, self.mlp(self._before(self.mlp_norm, x), mlp), mlp)
        return constrain(x, "BTD", self.mesh), cache

    def step(self, carry, layer, self_mask, positions_B1, memory, cross_mask):
        """Take one layer of a scanned decoder's step.

        Args:
            carry: (B, 1, D), and the cache of all layers.
            memory: keys and values of all layers, (B, L, H, K, S) each; None: there is no source.
        """
        read = memory and tuple(of_layer(x, layer) for x in memory)
        return self(carry[0], layer, self_mask, positions_B1, None, read, cross_mask, carry[1], shared=True), None

    def project(self, states_BSD, _=None):
        """Return the encoder's states, and this layer's keys and values of them."""
        return states_BSD, self.cross_attention.project(states_BSD)


class Stack(nn.Module):
    """The layers of an encoder or a decoder, and the norm at the end of a pre-norm stack.

    Attributes:
        gather: returns a whole parameter of a scanned layer from its path and a device's part of it; None: each device has all.
    """

    config: cfg.Transformer
    depth: int
    cross: bool = False
    mesh: Mesh | None = None
    gather: Any = None

    def setup(self):
        c = self.config
        block = Block if c.remat == "none" else nn.remat(Block, policy=_POLICIES[c.remat])
        if c.scan_layers:
            stacked: dict[str, Any] = {
                "variable_axes": {"params": 0, "intermediates": 0},
                "split_rngs": {"params": True},
                "length": self.depth,
                "metadata_params": {nn.PARTITION_NAME: "L"},
                "data_transform": self.gather and functools.partial(_gathered, self.gather),
            }
            methods = {
                "__call__": stacked | {"in_axes": (0,) + (nn.broadcast,) * 5},
                "step": stacked | {"in_axes": (0,) + (nn.broadcast,) * 4},
                "project": stacked | {"out_axes": 1},
            }
            self.layers = nn.scan(block, methods=methods)(c, self.cross, self.mesh)
        else:
            self.layer = [block(c, self.cross, self.mesh) for _ in range(self.depth)]
        if c.norm_order == "pre":
            self.final_norm = Norm(c.norm, self.mesh)

    def __call__(self, x_BTD, self_mask, positions_BT, noise, memory=None, cross_mask=None, cache=None):
        """Return (B, T, D), and the cache.

        Args:
            memory: the encoder's states, or what `project` returns.
            cache: `Cache.layers`, filled by earlier steps; None: all positions are read at once.
        """
        if self.config.scan_layers:
            layers = jnp.arange(self.depth, dtype=jnp.uint32)
            if cache is None:
                x_BTD, _ = self.layers(x_BTD, layers, self_mask, positions_BT, noise, memory, cross_mask)
            else:
                (x_BTD, cache), _ = self.layers.step((x_BTD, cache), layers, self_mask, positions_BT, memory, cross_mask)
        else:
            before, cache = cache or {}, {}
            for i, layer in enumerate(self.layer):
                read, name = memory[i] if isinstance(memory, tuple) else memory, f"layer_{i}"
                x_BTD, cache[name] = layer(x_BTD, i, self_mask, positions_BT, noise, read, cross_mask, before.get(name))
        return (self.final_norm(x_BTD) if self.config.norm_order == "pre" else x_BTD), cache

    def project(self, states_BSD):
        """Project the encoder's states for `step`. Returns (keys, values) of each layer, or of all layers stacked if they are scanned."""
        if self.config.scan_layers:
            return self.layers.project(states_BSD)[1]
        return tuple(layer.cross_attention.project(states_BSD) for layer in self.layer)

    def empty_cache(self, rows: int, length: int, dtype: Any) -> Cache:
        """Return an empty cache for this many positions."""
        c, depth = self.config, (self.depth,) if self.config.scan_layers else ()
        heads, width = (rows, *depth, c.num_heads), c.head_dim or c.emb_dim // c.num_heads
        make = lambda: {"k": jnp.zeros((*heads, width, length), dtype), "v": jnp.zeros((*heads, length, width), dtype)}  # noqa: E731
        return Cache(make() if self.config.scan_layers else {f"layer_{i}": make() for i in range(self.depth)})


def _gathered(gather: Callable[[Any, jax.Array], jax.Array], groups: Any, keys: Any) -> tuple[Any, Any]:
    """Return the variables that flax gives a scanned layer, with its parameters gathered."""
    return jax.tree_util.tree_map_with_path(gather, groups), keys


class TransformerModule(EncoderDecoder):
    """Encoder, decoder and output layer, with the four methods that `seq2seq.Seq2Seq` calls.

    Attributes:
        gather: as of a `Stack`, with the stack's name before the path.
    """

    uses_kernels_once = True

    config: cfg.Transformer
    gather: Any = dataclasses.field(default=None, kw_only=True)

    def setup(self):
        c = self.config
        self.make_embeddings(c.emb_dim)
        self.encoder_positions, self.decoder_positions = (Positions(c.positions, c.emb_dim, c.max_positions) for _ in range(2))
        encoder, decoder = (self.gather and functools.partial(self.gather, stack) for stack in ("encoder", "decoder"))
        self.encoder = Stack(c, c.num_encoder_layers, mesh=self.mesh, gather=encoder)
        self.decoder = Stack(c, c.num_decoder_layers, cross=self.reads_source, mesh=self.mesh, gather=decoder)

    def _begin(self, side: str, batch: Batch, segments_BT, noise: DropoutKey | None):
        """Return what the layers of the encoder or the decoder read: vectors (B, T, D), segments, positions, and the noise of that side."""
        tokens_BT = batch[f"{side}_input_tokens"]
        embed, add_positions = (
            (self.embed_source, self.encoder_positions) if side == "encoder" else (self.embed_target, self.decoder_positions)
        )
        segments_BT = batch.get(f"{side}_segment_ids", segments_BT)
        positions_BT = batch.get(f"{side}_positions", jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape))
        noise = noise and noise.fold_in(side)
        x_BTD = add_positions(embed(tokens_BT, self.dtype), positions_BT, tokens_BT.shape[1])
        x_BTD = dropout(x_BTD, self.config.dropout, noise and noise.fold_in("embedding"))
        return constrain(x_BTD, "BTD", self.mesh), segments_BT, positions_BT, noise

    def read_source(self, batch: Batch, noise: DropoutKey | None = None) -> SourceStates:
        """Return the encoder's states."""
        if self.task.vectors:
            x_BSD, segments_BS = self.read_regions(batch)
            positions_BS, noise = jnp.broadcast_to(jnp.arange(x_BSD.shape[1]), segments_BS.shape), noise and noise.fold_in("encoder")
            x_BSD = dropout(x_BSD, self.config.dropout, noise and noise.fold_in("embedding"))
        else:
            words_BS = (batch["encoder_input_tokens"] > 0).astype(jnp.int32)
            x_BSD, segments_BS, positions_BS, noise = self._begin("encoder", batch, words_BS, noise)
        states_BSD, _ = self.encoder(x_BSD, Mask(segments_BS, segments_BS), positions_BS, noise)
        return SourceStates(states_BSD, segments_BS, None)

    def empty_memory(self, rows: int) -> Memory:
        """Return an empty memory with this many rows, for a decoder without a source."""
        return Memory(jnp.zeros((rows, 1, 1), self.dtype), jnp.ones((rows, 1), jnp.int32), None)

    def encode(self, batch: Batch, noise: DropoutKey | None = None) -> Memory:
        """Return encoder states, and the cross-attention keys and values of every decoder layer.

        Scanned layers read the latter in a step alone: training is compiled without them.
        """
        states_BSD, segments_BS, _ = self.read_source(batch, noise)
        skips = self.config.scan_layers and self.is_initializing()  # fresh parameters do not depend on who asks for them first
        return Memory(states_BSD, segments_BS, None if skips else self.decoder.project(states_BSD))

    def features(self, memory: Memory, batch: Batch, noise: DropoutKey | None = None) -> jax.Array:
        """Return what the output layer reads, (B, T, D), for every target position at once (teacher forcing)."""
        ones_BT = jnp.ones_like(batch["decoder_input_tokens"])
        x_BTD, segments_BT, positions_BT, noise = self._begin("decoder", batch, ones_BT, noise)
        read = memory.states_BSD if self.config.scan_layers or memory.keys_values is None else memory.keys_values
        masks = Mask(segments_BT, segments_BT, self.config.causal), Mask(segments_BT, memory.segments_BS)
        return self.decoder(x_BTD, masks[0], positions_BT, noise, read, masks[1])[0]

    def start(self, memory: Memory, max_length: int):
        """Return an empty key-value cache with one row for each sentence, at position 0."""
        rows = memory.states_BSD.shape[0]
        return {"cache": self.decoder.empty_cache(rows, max_length, self.dtype), "position": jnp.zeros((rows,), jnp.int32)}

    def step(self, memory: Memory, carry, token_B: jax.Array):
        """Return the next token's logits (B, V), and the carry after `token_B`; B may be a multiple of the memory's rows."""
        position_B, cache = carry["position"], carry["cache"].written(carry["position"])
        position_B1 = position_B[: 1 if cache.aligned else None, None]
        x_B1D = self.decoder_positions(self.embed_target(token_B[:, None], self.dtype), position_B1, cache.length)
        masks = cache.visible(position_B), (memory.segments_BS > 0)[:, None]
        x_B1D, layers = self.decoder(x_B1D, masks[0], position_B1, None, memory.keys_values, masks[1], cache.layers)
        return self.logits(x_B1D[:, 0]), {"cache": dataclasses.replace(cache, layers=layers), "position": carry["position"] + 1}
