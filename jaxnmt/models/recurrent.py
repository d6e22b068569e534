"""Recurrent encoder–decoders: one fixed vector (Sutskever et al. 2014, Cho et al. 2014), or attention (Bahdanau, Luong et al. 2015).

Inside, sequences lead with time: x_TBD. Only what the next step reads is computed inside the scan. Input projections, the output layer,
and attention that is not fed back are computed for all steps at once.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnmt import config as cfg
from jaxnmt.models import alignment, cells
from jaxnmt.models.alignment import SourceAttention, attend
from jaxnmt.models.cells import FORMS, RecurrentLayer, State
from jaxnmt.models.layers import Dense, DropoutKey, dropout
from jaxnmt.models.seq2seq import Batch, EncoderDecoder
from jaxnmt.parallel.sharding import constrain


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RecurrentMemory:
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
    words_B, place_S1 = mask_SB.sum(0) - 1, jnp.arange(mask_SB.shape[0])[:, None]
    index_SB = jnp.where(place_S1 < words_B, words_B - 1 - place_S1, place_S1)
    return jnp.take_along_axis(x_SBD, index_SB.reshape(index_SB.shape + (1,) * (x_SBD.ndim - 2)), 0)


def drop(x_TBD: jax.Array, config: cfg.Recurrent, noise: DropoutKey | None, place: str) -> jax.Array:
    """Apply dropout to a sequence: with one mask for each step, or one for all steps (variational)."""
    if noise is None or config.dropout == 0.0:
        return x_TBD
    noise = noise.fold_in(place)
    if config.variational:
        return x_TBD * dropout(jnp.ones_like(x_TBD[:1]), config.dropout, noise, batch_axis=1)
    return dropout(x_TBD, config.dropout, noise, batch_axis=1)


def recurrent_dropout(config: cfg.Recurrent, rows: int, width: int, noise: DropoutKey | None, place: str, dtype) -> jax.Array | None:
    """Return the mask (B, U) that a layer's recurrent state is multiplied by at every step; None without variational dropout."""
    if noise is None or not config.variational or config.dropout == 0.0:
        return None
    return dropout(jnp.ones((rows, width), dtype), config.dropout, noise.fold_in(place).fold_in("recurrent"))


class Encoder(nn.Module):
    """A stack of recurrent layers; a bidirectional one is two layers of half the width."""

    config: cfg.Recurrent

    def setup(self):
        c, width, dtype = self.config, self.config.encoder_dim or self.config.hidden_dim, jnp.dtype(self.config.dtype)
        both = [c.bidirectional == "all" or (c.bidirectional == "first" and i == 0) for i in range(c.num_encoder_layers)]
        inputs = [c.emb_dim] + [width] * (c.num_encoder_layers - 1)
        layer = functools.partial(RecurrentLayer, c.cell, c.activation, context=0, dtype=dtype)
        self.layer = [layer(inputs=n, width=width // 2 if two else width) for n, two in zip(inputs, both, strict=True)]
        self.backward_layer = [layer(inputs=n, width=width // 2) if two else None for n, two in zip(inputs, both, strict=True)]

    def __call__(self, x_SBD, mask_SB1, noise: DropoutKey | None) -> tuple[jax.Array, list[State]]:
        """Return the top layer's states (S, B, D), and each layer's last state."""
        last = []
        for i, (layer, backward) in enumerate(zip(self.layer, self.backward_layer, strict=True)):
            place = f"layer_{i}"
            h_SBD, state = self._run(layer, x_SBD, mask_SB1, noise, place, False)
            if backward is not None:
                h_back, state_back = self._run(backward, x_SBD, mask_SB1, noise, f"{place}_backward", True)
                h_SBD = jnp.concatenate([h_SBD, h_back], -1)
                state = tuple(jnp.concatenate(pair, -1) for pair in zip(state, state_back, strict=True))
            last.append(state)
            x_SBD = h_SBD + x_SBD if self.config.residual and i > 0 else h_SBD
            if i + 1 < len(self.layer):
                x_SBD = drop(x_SBD, self.config, noise, place)
        return x_SBD, last

    def _run(self, layer: RecurrentLayer, x_SBD, mask_SB1, noise, place, reverse):
        rows = x_SBD.shape[1]
        mask = recurrent_dropout(self.config, rows, layer.width, noise, place, x_SBD.dtype)
        return layer(x_SBD, layer.zeros(rows), mask_SB1, reverse, recurrent_dropout_mask=mask)


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
        every = states if c.reads_context else 0
        fed = c.hidden_dim if c.feeds_back else 0
        layer = functools.partial(RecurrentLayer, c.cell, c.activation, width=c.hidden_dim, dtype=dtype)
        self.layer = [
            layer(inputs=c.hidden_dim if i else c.emb_dim, context=every if every or i else fed) for i in range(c.num_decoder_layers)
        ]
        if c.context != "fixed":
            score = "additive" if c.context == "bahdanau" or c.score == "concat" else c.score
            self.cross_attention = SourceAttention(
                score, c.hidden_dim, states, c.hidden_dim, c.window if c.context == "luong" else 0, c.max_positions, dtype
            )
        if c.context == "luong":
            self.combine = alignment.Matrix((states + c.hidden_dim, c.hidden_dim), "DU")
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
        found["attention"] = self.cross_attention.weights(memory.keys_BSA, memory.states_BSD, memory.mask_BS)
        return found | ({"combine": self.combine(memory.states_BSD.dtype)} if self.config.context == "luong" else {})

    def _attend(self, weights, query_RD):
        """Return context (R, D) and attention weights (R, S); a sentence may have several adjacent rows (beams)."""
        form, sentences = self.cross_attention, weights["attention"]["mask"].shape[0]
        found = attend(form.score, form.window, weights["attention"], query_RD.reshape(sentences, -1, query_RD.shape[-1]))
        context, attention_weights = (x.reshape(query_RD.shape[0], x.shape[-1]) for x in found)
        return context, attention_weights

    def _advance(self, weights, before: tuple[State, ...], fed, z_BZ, noise: DropoutKey | None, masks: dict[str, Any]):
        """Take one step with the first `len(before)` layers.

        Args:
            before: their states.
            fed: the attentional vector of the last step, if it is fed back.
            z_BZ: the input word's part of the bottom layer's gates.
            masks: `recurrent_dropout` by layer.

        Returns:
            (states, the top h or the attentional vector, context, attention weights or None).
        """
        c, states, context, attention_weights = self.config, list(before), fed, None
        if c.context == "bahdanau":
            context, attention_weights = self._attend(weights, states[0][0])
        elif c.context == "fixed" and c.reads_context:
            context = jnp.repeat(weights["vector"], len(z_BZ) // len(weights["vector"]), 0)
        x_BD = None
        for i in range(len(states)):
            place = f"layer_{i}"
            own = weights[place]
            z = z_BZ if i == 0 else x_BD @ own["input"] + own["bias"]
            if self.layer[i].context:
                z = z + context @ own["context"]
            states[i] = cells.advance(c.cell, c.activation, own, z, states[i], masks.get(place))
            x_BD = states[i][0] + x_BD if c.residual and i > 0 else states[i][0]
            if i + 1 < len(self.layer):
                x_BD = drop(x_BD[None], c, noise, place)[0]
        if c.context == "luong" and len(states) == len(self.layer):
            context, attention_weights = self._attend(weights, x_BD)
            x_BD = jnp.tanh(jnp.concatenate([context, x_BD], -1) @ weights["combine"])  # Luong et al. 2015, equation 5
            x_BD = drop(x_BD[None], c, noise, "features")[0]
        return tuple(states), x_BD, context, attention_weights

    # ---- all steps

    def __call__(self, memory: RecurrentMemory, x_TBD, noise: DropoutKey | None) -> jax.Array:
        """Return what the output layer reads after each input word, (T, B, D)."""
        c, rows = self.config, x_TBD.shape[1]
        stepped = {"fixed": 0, "bahdanau": 1, "luong": len(self.layer) if c.feeds_back else 0}[c.context]
        h_TBD, context_TBD, weights_TBS = x_TBD, None, None
        if c.context == "fixed" and c.reads_context:
            context_TBD = memory.vector_BD[None]
        if stepped:
            h_TBD, context_TBD, weights_TBS = self._scan(memory, x_TBD, noise, stepped)
        for i in range(stepped, len(self.layer)):
            layer, place = self.layer[i], f"layer_{i}"
            below = drop(h_TBD, c, noise, f"layer_{i - 1}") if i and i > stepped else h_TBD
            mask = recurrent_dropout(c, rows, c.hidden_dim, noise, place, x_TBD.dtype)
            h_TBD, _ = layer(below, memory.initial[i], context_TBD=context_TBD, recurrent_dropout_mask=mask)
            h_TBD = h_TBD + below if c.residual and i > 0 else h_TBD
        if c.context == "luong" and not stepped:
            h_TBD, weights_TBS = self._attend_all(memory, h_TBD, noise)
        if weights_TBS is not None:
            self.cross_attention.sow("intermediates", "attention", jnp.moveaxis(weights_TBS, 1, 0)[:, None])
        return self.output(h_TBD, x_TBD, context_TBD, noise)

    def _scan(self, memory: RecurrentMemory, x_TBD, noise: DropoutKey | None, layers: int):
        """Return h, contexts and attention weights of all steps, of the first layers and the attention that they read."""
        c, rows, wanted = self.config, x_TBD.shape[1], self.is_mutable_collection("intermediates")
        weights = self._weights(memory, layers)
        masks = {f"layer_{i}": recurrent_dropout(c, rows, c.hidden_dim, noise, f"layer_{i}", x_TBD.dtype) for i in range(layers)}

        def step(carry, x):
            (states, fed), (z_BZ, t) = carry, x
            fresh = noise and (noise if c.variational else noise.fold_in(t))
            states, h, context, attention_weights = self._advance(weights, states, fed, z_BZ, fresh, masks)
            return (states, h if c.feeds_back else fed), (h, None if c.feeds_back else context, attention_weights if wanted else None)

        z_TBZ = x_TBD @ weights["layer_0"]["input"] + weights["layer_0"]["bias"]
        fed = jnp.zeros((rows, c.hidden_dim), x_TBD.dtype) if c.feeds_back else None
        return jax.lax.scan(step, (memory.initial[:layers], fed), (z_TBZ, jnp.arange(x_TBD.shape[0])))[1]

    def _attend_all(self, memory: RecurrentMemory, h_TBD, noise: DropoutKey | None):
        """Apply Luong's attention without feedback to all steps at once; return (T, B, D) and the weights (T, B, S)."""
        weights, form = self._weights(memory, 0), self.cross_attention
        found = attend(form.score, form.window, weights["attention"], jnp.moveaxis(h_TBD, 0, 1))
        context_TBD, weights_TBS = (jnp.moveaxis(x, 1, 0) for x in found)
        h_TBD = jnp.tanh(jnp.concatenate([context_TBD, h_TBD], -1) @ weights["combine"])
        return drop(h_TBD, self.config, noise, "features"), weights_TBS

    def output(self, h, x, context, noise: DropoutKey | None = None) -> jax.Array:
        """Return what the output layer reads, for (T, B, D) or for one step's (B, D)."""
        if not self.config.reads_context:  # Luong's is combined, and has its dropout, already
            return drop(h, self.config, noise, "features") if self.config.context == "fixed" else h
        context = jnp.broadcast_to(context, (*h.shape[:-1], context.shape[-1]))
        pieces = self.readout(jnp.concatenate([h, x, context], -1))  # Bahdanau et al. 2015, section A.2.2: maxout in pairs
        return drop(pieces.reshape(*pieces.shape[:-1], -1, 2).max(-1), self.config, noise, "features")

    # ---- decoding

    def start(self, memory: RecurrentMemory) -> dict[str, Any]:
        """Return the carry before the first word."""
        rows, dtype = memory.vector_BD.shape[0], memory.vector_BD.dtype
        fed = {"fed": jnp.zeros((rows, self.config.hidden_dim), dtype)} if self.config.feeds_back else {}
        return {"states": memory.initial} | fed

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
        self.form = FORMS[c.cell]
        if c.bridge == "dense":
            self.bridge = Dense((c.num_decoder_layers, self.form.states, c.hidden_dim), axes="DNNU")

    def encode(self, batch: Batch, noise: DropoutKey | None = None) -> RecurrentMemory:
        """Return encoder states, what attention compares queries with, and the decoder's first state."""
        c, noise = self.config, noise and noise.fold_in("encoder")
        if "encoder_segment_ids" in batch:
            raise ValueError("a recurrent model reads one sentence a row, not packed rows: batching.layout buckets")
        tokens_SB = batch["encoder_input_tokens"].T
        mask_SB = tokens_SB > 0
        x_SBD = self.embed_source(reverse_sequence(tokens_SB, mask_SB) if c.reverse_source else tokens_SB, self.dtype)
        states_SBD, last = self.encoder(drop(x_SBD, c, noise, "embedding"), mask_SB[..., None], noise)
        if c.reverse_source:
            states_SBD = reverse_sequence(states_SBD, mask_SB)
        states_BSD = constrain(jnp.moveaxis(states_SBD, 1, 0), "BSD", self.mesh)
        vector_BD = last[-1][0]
        return RecurrentMemory(states_BSD, mask_SB.T, self.decoder.keys(states_BSD), vector_BD, self._initial(last))

    def _initial(self, last: list[State]) -> tuple[State, ...]:
        if self.config.bridge == "copy":
            return tuple(last)
        first_BNNU = jnp.tanh(self.bridge(last[-1][0]))  # Bahdanau et al. 2015, section A.2.2
        return tuple(tuple(first_BNNU[:, i, n] for n in range(self.form.states)) for i in range(self.config.num_decoder_layers))

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
