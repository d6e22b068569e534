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
from jax.sharding import Mesh

from jaxnmt import config as cfg
from jaxnmt.models import cells
from jaxnmt.models.attention import SourceAttention
from jaxnmt.models.cells import STATES, RecurrentLayer, State
from jaxnmt.models.encoder_decoder import Batch, EncoderDecoder, SourceStates
from jaxnmt.models.layers import Dense, DropoutKey, Matrix, at_least_float32
from jaxnmt.models.pictures import doubly_stochastic
from jaxnmt.models.recurrent_encoder import Bag, Encoder, drop, recurrent_dropout, reverse_sequence
from jaxnmt.models.scans import scan
from jaxnmt.parallel.sharding import constrain


class RecurrentMemory(NamedTuple):
    """What a decoder reads of the source: one row for each sentence, never repeated over beams.

    Attributes:
        states_BSD: the top encoder layer's states, zero at padding, in the order of the source's words.
        mask_BS: true for words.
        keys_BSA: what attention compares queries with; the states themselves if it needs no others, or there is no attention.
        vector_BD: the last state: the fixed context.
        initial: the decoder's first state, one tuple for each layer.
        tokens_BS: the source's tokens, for a decoder that copies them.
    """

    states_BSD: jax.Array
    mask_BS: jax.Array
    keys_BSA: jax.Array
    vector_BD: jax.Array
    initial: tuple[State, ...]
    tokens_BS: jax.Array | None = None


class Step(NamedTuple):
    """What the layers and the attention of a decoder compute, in one step or, with time as the first axis, in several.

    Attributes:
        h: the top layer's output; with Luong's attention the attentional vector.
        context: what they read of the source.
        attention: weights on source positions, at least float32; None without attention.
        state: the top layer's output, if `h` is the attentional vector.
    """

    h: jax.Array
    context: Any = None
    attention: Any = None
    state: Any = None


class Outputs(NamedTuple):
    """What a word is predicted from.

    Attributes:
        features: what the output layer reads.
        generate: the logit of the probability that the word is from the vocabulary and not copied; None: it always is.
        attention: weights on source positions; None without attention.
    """

    features: jax.Array
    generate: Any
    attention: Any


class Decoder(nn.Module):
    """Recurrent layers and attention; returns what words are predicted from."""

    config: cfg.Recurrent
    keeps_attention: bool = False
    mesh: Mesh | None = None

    def setup(self):
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        states = c.encoder_dim or c.hidden_dim
        every, fed = states if c.reads_context else 0, c.hidden_dim if c.feeds_back else 0
        layer = functools.partial(RecurrentLayer, c.cell, c.activation, width=c.hidden_dim, dtype=dtype, mesh=self.mesh)
        above = [layer(inputs=c.hidden_dim, context=every) for _ in range(c.num_decoder_layers - 1)]
        self.layer = [layer(inputs=c.emb_dim, context=every or fed), *above]
        if c.context != "fixed":
            score = "additive" if c.context == "bahdanau" or c.score == "concat" else c.score
            window = c.window if c.context == "luong" else 0
            covers = c.coverage > 0
            self.cross_attention = SourceAttention(
                score, c.hidden_dim, states, c.hidden_dim, window, c.max_positions, dtype, covers, self.mesh
            )
        if c.copy:
            self.switch = Dense((1,), axes="DN", mesh=self.mesh)
        if c.context == "luong":
            self.combine = Matrix((states + c.hidden_dim, c.hidden_dim), "DU")
        if c.reads_context:
            self.readout = Dense((2 * c.emb_dim,), axes="DU", mesh=self.mesh)

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

    def _attend(self, weights, query_RD, coverage_RS=None):
        """Return context (R, D) and attention weights (R, S); a sentence may have several adjacent rows (beams)."""
        sentences = weights["attention"]["mask"].shape[0]
        by_sentence = [x if x is None else x.reshape(sentences, -1, x.shape[-1]) for x in (query_RD, coverage_RS)]
        found = self.cross_attention.attend(weights["attention"], *by_sentence)
        return [x.reshape(query_RD.shape[0], x.shape[-1]) for x in found]

    def _combine(self, weights, context_TBD, h_TBD, noise: DropoutKey | None):
        """Return the attentional vector (Luong et al. 2015, equation 5)."""
        h_TBD = jnp.tanh(jnp.concatenate([context_TBD, h_TBD], -1) @ weights["combine"])
        return drop(h_TBD, self.config, noise, "features")

    def _advance(self, weights, carry: dict[str, Any], z_BZ, noise: DropoutKey | None, masks: dict[str, Any]):
        """Take one step with the first layers.

        Args:
            carry: see `start`, with the states of these layers.
            z_BZ: the input word's part of the bottom layer's gates.
            masks: `recurrent_dropout` by layer.

        Returns:
            (the carry, the `Step`).
        """
        c, after, states, top_BD = self.config, [], carry["states"], None
        context, attention_weights, coverage = carry.get("fed"), None, carry.get("coverage")
        if c.context == "bahdanau":
            context, attention_weights = self._attend(weights, states[0][0], coverage)
        elif c.context == "fixed" and c.reads_context:
            context = jnp.repeat(weights["vector"], z_BZ.shape[0] // weights["vector"].shape[0], 0)
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
            top_BD = x_BD
            context, attention_weights = self._attend(weights, x_BD, coverage)
            x_BD = self._combine(weights, context[None], x_BD[None], noise)[0]
        carry = {"states": tuple(after)} | ({"fed": x_BD} if c.feeds_back else {})
        if coverage is not None:
            carry["coverage"] = coverage + attention_weights  # See et al. 2017, equation 10
        return carry, Step(x_BD, context, attention_weights, top_BD)

    # ---- all steps

    def __call__(self, memory: RecurrentMemory, x_TBD, noise: DropoutKey | None) -> Outputs:
        """Return what words are predicted from after each input word, (T, B, ...)."""
        c = self.config
        stepped = {"fixed": 0, "bahdanau": 1, "luong": len(self.layer) if c.feeds_back or c.coverage else 0}[c.context]
        made = Step(x_TBD, memory.vector_BD[None] if c.context == "fixed" and c.reads_context else None)
        if stepped:
            made = self._scan(memory, x_TBD, noise, stepped)
        h_TBD = made.h
        for i in range(stepped, len(self.layer)):
            below = drop(h_TBD, c, noise, f"layer_{i - 1}") if i > stepped else h_TBD
            mask = recurrent_dropout(x_TBD, c.hidden_dim, c, noise, f"layer_{i}")
            h_TBD, _ = self.layer[i](below, memory.initial[i], context_TBD=made.context, recurrent_dropout_mask=mask)
            h_TBD = h_TBD + below if c.residual and i > 0 else h_TBD
        made = made._replace(h=h_TBD)
        if c.context == "luong" and not stepped:
            weights = self._weights(memory, 0)
            found = self.cross_attention.attend(weights["attention"], jnp.moveaxis(h_TBD, 0, 1))
            read_TBD, weights_TBS = (jnp.moveaxis(x, 1, 0) for x in found)
            made = Step(self._combine(weights, read_TBD, h_TBD, noise), read_TBD, weights_TBS, h_TBD)
        if made.attention is not None:
            self.cross_attention.sow("intermediates", "attention", jnp.moveaxis(made.attention, 1, 0)[:, None])
        if c.coverage:  # See et al. 2017, equations 12 and 13
            before_TBS = made.attention.cumsum(0) - made.attention
            self.sow("losses", "coverage", c.coverage * jnp.minimum(made.attention, before_TBS).sum(-1).T)
        return self._outputs(made, x_TBD, noise)

    def _scan(self, memory: RecurrentMemory, x_TBD, noise: DropoutKey | None, layers: int) -> Step:
        """Return what is needed of all steps of the first layers and the attention that they read."""
        c = self.config
        attention = c.copy or c.coverage > 0 or self.keeps_attention or self.is_mutable_collection("intermediates")
        wanted = {"attention": attention, "state": c.copy}
        wanted["context"] = c.copy or not c.feeds_back
        weights = self._weights(memory, layers)
        masks = {f"layer_{i}": recurrent_dropout(x_TBD, c.hidden_dim, c, noise, f"layer_{i}") for i in range(layers)}

        def step(weights, carry, x):
            z_BZ, t = x
            fresh = noise and (noise if c.variational else noise.fold_in(t))
            carry, made = self._advance(weights, carry, z_BZ, fresh, masks)
            return carry, made._replace(**{name: None for name, is_wanted in wanted.items() if not is_wanted})

        z_TBZ = x_TBD @ weights["layer_0"]["input"] + weights["layer_0"]["bias"]
        first = self.start(memory) | {"states": memory.initial[:layers]}
        return scan(step, weights, first, (z_TBZ, jnp.arange(x_TBD.shape[0])), self.mesh)[1]

    def _outputs(self, made: Step, x, noise: DropoutKey | None = None) -> Outputs:
        generate = None
        if self.config.copy:  # See et al. 2017, equation 8
            generate = self.switch(jnp.concatenate([made.context, made.h if made.state is None else made.state, x], -1))[..., 0]
        return Outputs(self.output(made.h, x, made.context, noise), generate, made.attention)

    def output(self, h, x, context, noise: DropoutKey | None = None) -> jax.Array:
        """Return what the output layer reads, for (T, B, D) or for one step's (B, D)."""
        if not self.config.reads_context:  # Luong's is combined, and has its dropout, already
            return drop(h, self.config, noise, "features") if self.config.context == "fixed" else h
        context = jnp.broadcast_to(context, (*h.shape[:-1], context.shape[-1]))
        pieces = self.readout(jnp.concatenate([h, x, context], -1))  # Bahdanau et al. 2015, section A.2.2: maxout in pairs
        return drop(pieces.reshape(*pieces.shape[:-1], -1, 2).max(-1), self.config, noise, "features")

    # ---- decoding

    def start(self, memory: RecurrentMemory) -> dict[str, Any]:
        """Return the carry before the first word.

        It has `states`; `fed`, the attentional vector, if it is fed back; and `coverage`, the sum of all attention, if attention reads it.
        """
        carry: dict[str, Any] = {"states": memory.initial}
        if self.config.feeds_back:
            carry["fed"] = jnp.zeros((memory.vector_BD.shape[0], self.config.hidden_dim), memory.vector_BD.dtype)
        if self.config.coverage:
            carry["coverage"] = jnp.zeros(memory.mask_BS.shape, at_least_float32(memory.vector_BD.dtype))
        return carry

    def step(self, memory: RecurrentMemory, carry, x_BD) -> tuple[Outputs, dict[str, Any]]:
        """Return what the next word is predicted from after one word's vector, and the carry."""
        weights = self._weights(memory, len(self.layer))
        z_BZ = x_BD @ weights["layer_0"]["input"] + weights["layer_0"]["bias"]
        carry, made = self._advance(weights, carry, z_BZ, None, {})
        if made.attention is not None:
            self.cross_attention.sow("intermediates", "attention", made.attention[:, None, None])
        return self._outputs(made, x_BD), carry


class RecurrentEncoderDecoder(EncoderDecoder):
    """Encoder and decoder, for modules that say in `predict` how words are chosen."""

    config: cfg.Recurrent
    source_side = ("encoder", "regions", "cross_attention/keys_dense")

    def setup(self):
        c = self.config
        self.make_embeddings(c.emb_dim if c.reads_context else c.hidden_dim)
        self.encoder = Bag(c, self.mesh) if c.encoder == "bag" else Encoder(c, self.mesh)
        self.decoder = Decoder(c, getattr(self.task, "attention_penalty", 0.0) > 0, self.mesh)
        if c.bridge == "dense":
            self.bridge = Dense((c.num_decoder_layers, STATES[c.cell], c.hidden_dim), axes="DNNU", mesh=self.mesh)

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
        """Return the encoder's states (B, S, D), where there are words (B, S), and each layer's last state; of a picture, the mean."""
        if self.task.vectors:
            states_BSD, segments_BS = self.read_regions(batch)
            return states_BSD, segments_BS > 0, [(states_BSD.mean(1),)]
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
        copied = batch["encoder_input_tokens"] if c.copy else None
        return RecurrentMemory(states_BSD, mask_BS, self.decoder.keys(states_BSD), vector_BD, tuple(last), copied)

    def read(self, memory: RecurrentMemory, batch: Batch, noise: DropoutKey | None = None) -> Outputs:
        """Return what words are predicted from, (B, T, ...), for every target position at once (teacher forcing)."""
        noise = noise and noise.fold_in("decoder")
        x_TBD = drop(self.embed_target(batch["decoder_input_tokens"].T, self.dtype), self.config, noise, "embedding")
        outputs = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), self.decoder(memory, x_TBD, noise))
        if penalty := getattr(self.task, "attention_penalty", 0.0):
            words_BT = batch["decoder_input_tokens"] > 0
            unseen_B = penalty * doubly_stochastic(outputs.attention, words_BT)
            self.sow("losses", "unseen", jnp.zeros(words_BT.shape, unseen_B.dtype).at[:, 0].set(unseen_B))
        return outputs._replace(features=constrain(outputs.features, "BTD", self.mesh))

    def predict(self, memory: RecurrentMemory, outputs: Outputs) -> jax.Array:
        """Return the next token's logits."""
        return self.logits(outputs.features)

    def start(self, memory: RecurrentMemory, max_length: int):
        """Return the decoder's state before the first word, one row for each sentence, whatever `max_length` is."""
        return self.decoder.start(memory)

    def step(self, memory: RecurrentMemory, carry, token_B: jax.Array):
        """Return the next token's logits (B, V), and the carry after `token_B`; B may be a multiple of the memory's rows."""
        outputs, carry = self.decoder.step(memory, carry, self.embed_target(token_B, self.dtype))
        return self.predict(memory, outputs), carry


class RecurrentModule(RecurrentEncoderDecoder):
    """Encoder, decoder and output layer, with the four methods that `seq2seq.Seq2Seq` calls."""

    def features(self, memory: RecurrentMemory, batch: Batch, noise: DropoutKey | None = None) -> jax.Array:
        """Return what the output layer reads, (B, T, D), for every target position at once (teacher forcing)."""
        return self.read(memory, batch, noise).features
