"""The Transformer of Vaswani et al. 2017, figure 1, with pre- or post-norm and unrolled or scanned layers."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxnmt import config as cfg
from jaxnmt.models.attention import CrossAttention, Mask, SelfAttention
from jaxnmt.models.layers import DropoutKey, FeedForward, Norm, Positions, dropout
from jaxnmt.models.seq2seq import Batch, EncoderDecoder, Memory
from jaxnmt.parallel.sharding import constrain

_POLICIES = {"dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable, "full": None}


class Block(nn.Module):
    """One encoder layer, or with `cross` one decoder layer: sublayers, each with a residual sum and a norm."""

    config: cfg.Transformer
    cross: bool = False
    mesh: Mesh | None = None

    def setup(self):
        c = self.config
        heads = {
            "num_heads": c.num_heads,
            "head_dim": c.head_dim or c.emb_dim // c.num_heads,
            "width": c.emb_dim,
            "dropout": c.attention_dropout,
            "mesh": self.mesh,
        }
        self.self_attention = SelfAttention(**heads, rotary=c.positions == "rotary")
        self.self_attention_norm = Norm(c.norm)
        if self.cross:
            self.cross_attention = CrossAttention(**heads)
            self.cross_attention_norm = Norm(c.norm)
        self.mlp = FeedForward(c.emb_dim, c.mlp_dim, c.activation, c.activation_dropout, self.mesh)
        self.mlp_norm = Norm(c.norm)

    def _sublayer(self, x, norm, function, noise):
        """Return x + f(norm(x)), or norm(x + f(x)), and the second value if `function` returns two (else None)."""
        y = function(norm(x) if self.config.norm_order == "pre" else x)
        y, extra = y if isinstance(y, tuple) else (y, None)
        x = x + dropout(y, self.config.dropout, noise and noise.fold_in("residual"))
        return (x if self.config.norm_order == "pre" else norm(x)), extra

    def __call__(self, x_BTD, layer, self_mask, positions_BT, noise: DropoutKey | None, memory=None, cross_mask=None):
        """Return (B, T, D), and None, as `nn.scan` wants it.

        Args:
            layer: its index.
            self_mask, cross_mask: a Mask, or booleans (B, T, S).
            memory: the encoder's states, or keys and values that are projected already.
        """
        noise = noise and noise.fold_in(layer)
        at = lambda name: noise and noise.fold_in(name)  # noqa: E731
        x, _ = self._sublayer(
            x_BTD, self.self_attention_norm, lambda y: self.self_attention(y, self_mask, positions_BT, at("self")), at("self")
        )
        if self.cross:
            keys_values = memory if isinstance(memory, tuple) else self.cross_attention.project(memory)
            x, _ = self._sublayer(
                x, self.cross_attention_norm, lambda y: self.cross_attention(y, keys_values, cross_mask, at("cross")), at("cross")
            )
        x, _ = self._sublayer(x, self.mlp_norm, lambda y: self.mlp(y, at("mlp")), at("mlp"))
        return constrain(x, "BTD", self.mesh), None

    def project(self, states_BSD):
        """Return cross-attention keys and values of the encoder's states."""
        return self.cross_attention.project(states_BSD)

    def step(self, x_BD, cache, position, keys_values, mask_B1S):
        """Return (B, D) of one decoder position, and the cache; `cache` as in SelfAttention.step."""
        x, cache = self._sublayer(x_BD, self.self_attention_norm, lambda y: self.self_attention.step(y, cache, position), None)
        x, _ = self._sublayer(
            x, self.cross_attention_norm, lambda y: self.cross_attention(y[:, None], keys_values, mask_B1S, None)[:, 0], None
        )
        x, _ = self._sublayer(x, self.mlp_norm, lambda y: self.mlp(y, None), None)
        return x, cache


class Stack(nn.Module):
    """The layers of an encoder or a decoder, and the norm at the end of a pre-norm stack."""

    config: cfg.Transformer
    cross: bool = False
    mesh: Mesh | None = None

    def setup(self):
        c = self.config
        depth = c.num_decoder_layers if self.cross else c.num_encoder_layers
        block = Block if c.remat == "none" else nn.remat(Block, policy=_POLICIES[c.remat])
        if c.scan_layers:
            scanned = nn.scan(
                block,
                variable_axes={"params": 0, "intermediates": 0},
                split_rngs={"params": True},
                in_axes=(0,) + (nn.broadcast,) * 5,
                length=depth,
                metadata_params={nn.PARTITION_NAME: "L"},
            )
            self.layers = scanned(c, self.cross, self.mesh)
        else:
            self.layer = [block(c, self.cross, self.mesh) for _ in range(depth)]
        self.depth = depth
        if c.norm_order == "pre":
            self.final_norm = Norm(c.norm)

    def __call__(self, x_BTD, self_mask, positions, noise, memory=None, cross_mask=None):
        """Return (B, T, D); `memory` is the encoder's states, or a tuple of (keys, values) for each layer."""
        if self.config.scan_layers:
            x_BTD, _ = self.layers(x_BTD, jnp.arange(self.depth, dtype=jnp.uint32), self_mask, positions, noise, memory, cross_mask)
        else:
            for i, layer in enumerate(self.layer):
                x_BTD, _ = layer(x_BTD, i, self_mask, positions, noise, memory[i] if isinstance(memory, tuple) else memory, cross_mask)
        return self.close(x_BTD)

    def close(self, x):
        """Apply the final norm, if there is one."""
        return self.final_norm(x) if self.config.norm_order == "pre" else x


class TransformerModule(EncoderDecoder):
    """Encoder, decoder and output layer, with the four methods that `seq2seq.Seq2Seq` calls."""

    config: cfg.Transformer

    def setup(self):
        c = self.config
        self.make_embeddings(c.emb_dim)
        self.encoder_positions, self.decoder_positions = (Positions(c.positions, c.emb_dim, c.max_positions) for _ in range(2))
        self.encoder, self.decoder = Stack(c, mesh=self.mesh), Stack(c, cross=True, mesh=self.mesh)

    def encode(self, batch: Batch, noise: DropoutKey | None = None) -> Memory:
        """Return encoder states, and the cross-attention keys and values of every decoder layer (unless layers are scanned)."""
        tokens_BS, c = batch["encoder_input_tokens"], self.config
        segments_BS = batch.get("encoder_segment_ids", (tokens_BS > 0).astype(jnp.int32))
        positions_BS = batch.get("encoder_positions", jnp.broadcast_to(jnp.arange(tokens_BS.shape[1]), tokens_BS.shape))
        noise = noise and noise.fold_in("encoder")
        x_BSD = self.encoder_positions(self.embed_source(tokens_BS, self.dtype), positions_BS, tokens_BS.shape[1])
        x_BSD = constrain(dropout(x_BSD, c.dropout, noise and noise.fold_in("embedding")), "BSD", self.mesh)
        mask_BSS = (segments_BS[:, :, None] == segments_BS[:, None, :]) & (segments_BS > 0)[:, None, :]
        states_BSD = self.encoder(x_BSD, Mask(mask_BSS, segments_BS, segments_BS), positions_BS, noise)
        keys_values = None if c.scan_layers else tuple(layer.project(states_BSD) for layer in self.decoder.layer)
        return Memory(states_BSD, segments_BS, keys_values)

    def features(self, memory: Memory, batch: Batch, noise: DropoutKey | None = None) -> jax.Array:
        """Return what the output layer reads, (B, T, D), for every target position at once (teacher forcing)."""
        tokens_BT, c = batch["decoder_input_tokens"], self.config
        length = tokens_BT.shape[1]
        segments_BT = batch.get("decoder_segment_ids", jnp.ones_like(tokens_BT))
        positions_BT = batch.get("decoder_positions", jnp.broadcast_to(jnp.arange(length), tokens_BT.shape))
        noise = noise and noise.fold_in("decoder")
        x_BTD = self.decoder_positions(self.embed_target(tokens_BT, self.dtype), positions_BT, length)
        x_BTD = constrain(dropout(x_BTD, c.dropout, noise and noise.fold_in("embedding")), "BTD", self.mesh)
        seen_TT = jnp.ones((length, length), bool)
        self_mask_BTT = (jnp.tril(seen_TT) if c.causal else seen_TT) & (segments_BT[:, :, None] == segments_BT[:, None, :])
        cross_mask_BTS = (memory.segments_BS > 0)[:, None, :]
        if "decoder_segment_ids" in batch:
            cross_mask_BTS = cross_mask_BTS & (segments_BT[:, :, None] == memory.segments_BS[:, None, :])
        keys_values = memory.states_BSD if memory.keys_values is None else memory.keys_values
        self_mask = Mask(self_mask_BTT, segments_BT, segments_BT, c.causal)
        cross_mask = Mask(cross_mask_BTS, segments_BT, memory.segments_BS)
        return self.decoder(x_BTD, self_mask, positions_BT, noise, keys_values, cross_mask)

    def start(self, memory: Memory, max_length: int):
        """Return an empty key-value cache with one row for each sentence, at position 0."""
        c, rows = self.config, memory.states_BSD.shape[0]
        shape = (rows, max_length, c.num_heads, c.head_dim or c.emb_dim // c.num_heads)
        cache = {f"layer_{i}": {"k": jnp.zeros(shape, self.dtype), "v": jnp.zeros(shape, self.dtype)} for i in range(c.num_decoder_layers)}
        return {"cache": cache, "position": jnp.zeros((rows,), jnp.int32)}

    def step(self, memory: Memory, carry, token_B: jax.Array):
        """Return the next token's logits (B, V), and the carry after `token_B`; B may be a multiple of the memory's rows."""
        position = carry["position"][0]
        bound = carry["cache"]["layer_0"]["k"].shape[1]
        x_BD = self.decoder_positions(self.embed_target(token_B[:, None], self.dtype), carry["position"][:, None], bound)[:, 0]
        mask_B1S, cache = (memory.segments_BS > 0)[:, None, :], {}
        for i, layer in enumerate(self.decoder.layer):
            name = f"layer_{i}"
            x_BD, cache[name] = layer.step(x_BD, carry["cache"][name], position, memory.keys_values[i], mask_B1S)
        return self.logits(self.decoder.close(x_BD)), {"cache": cache, "position": carry["position"] + 1}
