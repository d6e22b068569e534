"""Recurrent encoder–decoders: one fixed vector (Sutskever et al. 2014, Cho et al. 2014), or attention (Bahdanau, Luong et al. 2015).

Inside, sequences lead with time: x_TBD. Only what the next step reads is computed inside the scan. Input projections, the output layer,
and attention that is not fed back are computed for all steps at once.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnmt import config as cfg
from jaxnmt.models import cells
from jaxnmt.models.attention import SourceAttention
from jaxnmt.models.cells import STATES, RecurrentLayer, State
from jaxnmt.models.layers import Dense, DropoutKey, Matrix, dropout
from jaxnmt.models.seq2seq import Batch, EncoderDecoder, SourceStates
from jaxnmt.parallel.sharding import constrain


class RecurrentMemory(NamedTuple):
    """What a decoder reads of the source: one row for each sentence, never repeated over beams.

    Attributes:
        states_BSD: the top encoder layer's states, zero at padding, in the order of the source's words.
        mask_BS: true for words.
        keys_BSA: what attention compares queries with; the states themselves if it needs no others, or there is no attention.
        vector_BD: the last state: the fixed context.
        initial: the decoder's first state, one tuple for each layer.
    """

    states_BSD: jax.Array
    mask_BS: jax.Array
    keys_BSA: jax.Array
    vector_BD: jax.Array
    initial: tuple[State, ...]


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

    def setup(self):
        c, width = self.config, self.config.encoder_dim or self.config.hidden_dim
        layer = functools.partial(RecurrentLayer, c.cell, c.activation, context=0, dtype=jnp.dtype(c.dtype))
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

    @nn.compact
    def __call__(self, x_SBD, mask_SB1, noise: DropoutKey | None) -> tuple[jax.Array, list[State]]:
        width = self.config.encoder_dim or self.config.hidden_dim
        h_SBD = jnp.where(mask_SB1, jnp.tanh(Dense((width,), axes="DU", name="words")(x_SBD)), 0)
        return h_SBD, [(h_SBD.sum(0) / jnp.maximum(mask_SB1.sum(0), 1).astype(h_SBD.dtype),)]


class Decoder(nn.Module):
    """Recurrent layers and attention; returns what the output layer reads."""

    config: cfg.Recurrent

    def setup(self):
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        states = c.encoder_dim or c.hidden_dim
        every, fed = states if c.reads_context else 0, c.hidden_dim if c.feeds_back else 0
        layer = functools.partial(RecurrentLayer, c.cell, c.activation, width=c.hidden_dim, dtype=dtype)
        above = [layer(inputs=c.hidden_dim, context=every) for _ in range(c.num_decoder_layers - 1)]
        self.layer = [layer(inputs=c.emb_dim, context=every or fed), *above]
        if c.context != "fixed":
            score = "additive" if c.context == "bahdanau" or c.score == "concat" else c.score
            window = c.window if c.context == "luong" else 0
            self.cross_attention = SourceAttention(score, c.hidden_dim, states, c.hidden_dim, window, c.max_positions, dtype)
        if c.context == "luong":
            self.combine = Matrix((states + c.hidden_dim, c.hidden_dim), "DU")
        if c.reads_context:
            self.readout = Dense((2 * c.emb_dim,), axes="DU")

    def keys(self, states_BSD: jax.Array) -> jax.Array:
        """Return what queries are compared with, computed once for a sentence."""
        return states_BSD if self.config.context == "fixed" else self.cross_attention.keys(states_BSD)

    # ---- one step

    def _weights(self, memory: RecurrentMemory, layers: int) -> dict[str, Any]:
        """Return the arrays that `_advance` needs for the first `layers` layers."""
        found: dict[str, Any] = {f"layer_{i}": self.layer[i].weights() for i in range(layers)}
        if self.config.context == "fixed":
            return found | {"vector": memory.vector_BD}
        if self.config.context == "luong":
            found["combine"] = self.combine.kernel.astype(memory.states_BSD.dtype)
        return found | {"attention": self.cross_attention.weights(memory.keys_BSA, memory.states_BSD, memory.mask_BS)}

    def _attend(self, weights, query_RD):
        """Return context (R, D) and attention weights (R, S); a sentence may have several adjacent rows (beams)."""
        sentences = weights["attention"]["mask"].shape[0]
        found = self.cross_attention.attend(weights["attention"], query_RD.reshape(sentences, -1, query_RD.shape[-1]))
        return [x.reshape(query_RD.shape[0], x.shape[-1]) for x in found]

    def _combine(self, weights, context_TBD, h_TBD, noise: DropoutKey | None):
        """Return the attentional vector (Luong et al. 2015, equation 5)."""
        h_TBD = jnp.tanh(jnp.concatenate([context_TBD, h_TBD], -1) @ weights["combine"])
        return drop(h_TBD, self.config, noise, "features")

    def _advance(self, weights, states: tuple[State, ...], fed, z_BZ, noise: DropoutKey | None, masks: dict[str, Any]):
        """Take one step with the first `len(states)` layers.

        Args:
            fed: the attentional vector of the last step, if it is fed back.
            z_BZ: the input word's part of the bottom layer's gates.
            masks: `recurrent_dropout` by layer.

        Returns:
            (states, the top h or the attentional vector, context, attention weights or None).
        """
        c, after, context, attention_weights = self.config, [], fed, None
        if c.context == "bahdanau":
            context, attention_weights = self._attend(weights, states[0][0])
        elif c.context == "fixed" and c.reads_context:
            context = jnp.repeat(weights["vector"], len(z_BZ) // len(weights["vector"]), 0)
        x_BD: Any = None
        for i, state in enumerate(states):
            own = weights[f"layer_{i}"]
            z = z_BZ if i == 0 else x_BD @ own["input"] + own["bias"]
            if self.layer[i].context:
                z = z + context @ own["context"]
            state, _ = cells.advance(c.cell, c.activation, own, z, state, masks.get(f"layer_{i}"))
            after.append(state)
            x_BD = state[0] + x_BD if c.residual and i > 0 else state[0]
            if i + 1 < len(self.layer):
                x_BD = drop(x_BD[None], c, noise, f"layer_{i}")[0]
        if c.context == "luong":
            context, attention_weights = self._attend(weights, x_BD)
            x_BD = self._combine(weights, context[None], x_BD[None], noise)[0]
        return tuple(after), x_BD, context, attention_weights

    # ---- all steps

    def __call__(self, memory: RecurrentMemory, x_TBD, noise: DropoutKey | None) -> jax.Array:
        """Return what the output layer reads after each input word, (T, B, D)."""
        c = self.config
        stepped = {"fixed": 0, "bahdanau": 1, "luong": len(self.layer) if c.feeds_back else 0}[c.context]
        h_TBD, context_TBD, weights_TBS = x_TBD, None, None
        if c.context == "fixed" and c.reads_context:
            context_TBD = memory.vector_BD[None]
        if stepped:
            h_TBD, context_TBD, weights_TBS = self._scan(memory, x_TBD, noise, stepped)
        for i in range(stepped, len(self.layer)):
            below = drop(h_TBD, c, noise, f"layer_{i - 1}") if i > stepped else h_TBD
            mask = recurrent_dropout(x_TBD, c.hidden_dim, c, noise, f"layer_{i}")
            h_TBD, _ = self.layer[i](below, memory.initial[i], context_TBD=context_TBD, recurrent_dropout_mask=mask)
            h_TBD = h_TBD + below if c.residual and i > 0 else h_TBD
        if c.context == "luong" and not stepped:
            weights = self._weights(memory, 0)
            found = self.cross_attention.attend(weights["attention"], jnp.moveaxis(h_TBD, 0, 1))
            read_TBD, weights_TBS = (jnp.moveaxis(x, 1, 0) for x in found)
            h_TBD = self._combine(weights, read_TBD, h_TBD, noise)
        if weights_TBS is not None:
            self.cross_attention.sow("intermediates", "attention", jnp.moveaxis(weights_TBS, 1, 0)[:, None])
        return self.output(h_TBD, x_TBD, context_TBD, noise)

    def _scan(self, memory: RecurrentMemory, x_TBD, noise: DropoutKey | None, layers: int):
        """Return h, contexts and attention weights of all steps, of the first layers and the attention that they read."""
        c, wanted = self.config, self.is_mutable_collection("intermediates")
        weights = self._weights(memory, layers)
        masks = {f"layer_{i}": recurrent_dropout(x_TBD, c.hidden_dim, c, noise, f"layer_{i}") for i in range(layers)}

        def step(carry, x):
            (states, fed), (z_BZ, t) = carry, x
            fresh = noise and (noise if c.variational else noise.fold_in(t))
            states, h, context, attention_weights = self._advance(weights, states, fed, z_BZ, fresh, masks)
            return (states, h if c.feeds_back else fed), (h, None if c.feeds_back else context, attention_weights if wanted else None)

        z_TBZ = x_TBD @ weights["layer_0"]["input"] + weights["layer_0"]["bias"]
        fed = self.start(memory).get("fed")
        return jax.lax.scan(step, (memory.initial[:layers], fed), (z_TBZ, jnp.arange(x_TBD.shape[0])))[1]

    def output(self, h, x, context, noise: DropoutKey | None = None) -> jax.Array:
        """Return what the output layer reads, for (T, B, D) or for one step's (B, D)."""
        if not self.config.reads_context:  # Luong's is combined, and has its dropout, already
            return drop(h, self.config, noise, "features") if self.config.context == "fixed" else h
        context = jnp.broadcast_to(context, (*h.shape[:-1], context.shape[-1]))
        pieces = self.readout(jnp.concatenate([h, x, context], -1))  # Bahdanau et al. 2015, section A.2.2: maxout in pairs
        return drop(pieces.reshape(*pieces.shape[:-1], -1, 2).max(-1), self.config, noise, "features")

    # ---- decoding

    def start(self, memory: RecurrentMemory) -> dict[str, Any]:
        """Return the carry before the first word: the states, and `fed`, the attentional vector, if it is fed back."""
        carry: dict[str, Any] = {"states": memory.initial}
        if self.config.feeds_back:
            carry["fed"] = jnp.zeros((len(memory.vector_BD), self.config.hidden_dim), memory.vector_BD.dtype)
        return carry

    def step(self, memory: RecurrentMemory, carry, x_BD) -> tuple[jax.Array, dict[str, Any]]:
        """Return what the output layer reads after one word's vector, and the carry."""
        weights = self._weights(memory, len(self.layer))
        z_BZ = x_BD @ weights["layer_0"]["input"] + weights["layer_0"]["bias"]
        states, h, context, attention_weights = self._advance(weights, carry["states"], carry.get("fed"), z_BZ, None, {})
        if attention_weights is not None:
            self.cross_attention.sow("intermediates", "attention", attention_weights[:, None, None])
        return self.output(h, x_BD, context), {"states": states} | ({"fed": h} if self.config.feeds_back else {})


class RecurrentModule(EncoderDecoder):
    """Encoder, decoder and output layer, with the four methods that `seq2seq.Seq2Seq` calls."""

    config: cfg.Recurrent
    source_side = ("encoder", "cross_attention/keys_dense")

    def setup(self):
        c = self.config
        self.make_embeddings(c.emb_dim if c.reads_context else c.hidden_dim)
        self.encoder = Bag(c) if c.encoder == "bag" else Encoder(c)
        self.decoder = Decoder(c)
        if c.bridge == "dense":
            self.bridge = Dense((c.num_decoder_layers, STATES[c.cell], c.hidden_dim), axes="DNNU")

    @property
    def states_width(self) -> int:
        """Width of the encoder's states."""
        return self.config.encoder_dim or self.config.hidden_dim

    def read_source(self, batch: Batch, noise: DropoutKey | None = None) -> SourceStates:
        """Return the encoder's states, in the order of the source's words, and the last one."""
        states_BSD, mask_BS, last = self._read(batch, noise)
        return SourceStates(states_BSD, mask_BS, last[-1][0])

    def empty_memory(self, rows: int) -> RecurrentMemory:
        """Return what a decoder without a source reads: zeros."""
        states_BSD = jnp.zeros((rows, 1, self.states_width), self.dtype)
        initial = tuple(layer.zeros(rows) for layer in self.decoder.layer)
        return RecurrentMemory(states_BSD, jnp.ones((rows, 1), bool), states_BSD, states_BSD[:, 0], initial)

    def _read(self, batch: Batch, noise: DropoutKey | None) -> tuple[jax.Array, jax.Array, list[State]]:
        """Return the encoder's states (B, S, D), where there are words (B, S), and each layer's last state."""
        c, noise = self.config, noise and noise.fold_in("encoder")
        tokens_SB = batch["encoder_input_tokens"].T
        mask_SB = tokens_SB > 0
        x_SBD = self.embed_source(reverse_sequence(tokens_SB, mask_SB) if c.reverse_source else tokens_SB, self.dtype)
        states_SBD, last = self.encoder(drop(x_SBD, c, noise, "embedding"), mask_SB[..., None], noise)
        if c.reverse_source:
            states_SBD = reverse_sequence(states_SBD, mask_SB)
        return constrain(jnp.moveaxis(states_SBD, 1, 0), "BSD", self.mesh), mask_SB.T, last

    def encode(self, batch: Batch, noise: DropoutKey | None = None) -> RecurrentMemory:
        """Return encoder states, what attention compares queries with, and the decoder's first state."""
        c, (states_BSD, mask_BS, last) = self.config, self._read(batch, noise)
        vector_BD = last[-1][0]
        if c.bridge == "dense":  # Bahdanau et al. 2015, section A.2.2
            last_BNNU = jnp.tanh(self.bridge(vector_BD))
            last = [tuple(last_BNNU[:, i, n] for n in range(STATES[c.cell])) for i in range(c.num_decoder_layers)]
        return RecurrentMemory(states_BSD, mask_BS, self.decoder.keys(states_BSD), vector_BD, tuple(last))

    def features(self, memory: RecurrentMemory, batch: Batch, noise: DropoutKey | None = None) -> jax.Array:
        """Return what the output layer reads, (B, T, D), for every target position at once (teacher forcing)."""
        noise = noise and noise.fold_in("decoder")
        x_TBD = drop(self.embed_target(batch["decoder_input_tokens"].T, self.dtype), self.config, noise, "embedding")
        return constrain(jnp.moveaxis(self.decoder(memory, x_TBD, noise), 0, 1), "BTD", self.mesh)

    def start(self, memory: RecurrentMemory, max_length: int):
        """Return the decoder's state before the first word, one row for each sentence, whatever `max_length` is."""
        return self.decoder.start(memory)

    def step(self, memory: RecurrentMemory, carry, token_B: jax.Array):
        """Return the next token's logits (B, V), and the carry after `token_B`; B may be a multiple of the memory's rows."""
        features, carry = self.decoder.step(memory, carry, self.embed_target(token_B, self.dtype))
        return self.logits(features), carry
