"""What happens inside a recurrent model, decoding step by decoding step: by its own `step`, and by the equations of its attention."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnmt import config as cfg
from jaxnmt.data.special_tokens import BOS
from jaxnmt.models import alignment
from jaxnmt.models.recurrent import RecurrentMemory, RecurrentModule, reverse_sequence
from jaxnmt.models.seq2seq import Seq2Seq


class Steps(NamedTuple):
    """A sentence of S tokens and T decoding steps.

    Attributes:
        states_SD: the encoder's top states, in the order of the words; without padding.
        readers: `readers` of them.
        vector_D: its last state (encoder bag: the mean): all that a fixed context is.
        initial_D: the decoder's top state before the first word.
        each: for each step: state, the decoder's top state after it; joined, what the output layer reads; and with attention query, the
            state that asks; scores (S,), before the softmax; weights (S,); context, the weighted sum of the encoder's states.
    """

    states_SD: np.ndarray
    readers: list[list[int]]
    vector_D: np.ndarray
    initial_D: np.ndarray
    each: list[dict[str, np.ndarray]]


def steps(config: cfg.Recurrent, model: Seq2Seq, params: Any, source_tokens: np.ndarray, source: int, target: list[int]) -> Steps:
    """Walk through a translation.

    Args:
        source_tokens: int32 (1, S), padded; the first `source` are real.
        target: ids, the end included.
    """
    memory = jax.jit(model.encode)(params, {"encoder_input_tokens": source_tokens})
    carry = model.start(params, memory, len(target))
    walk = jax.jit(functools.partial(_step, config, model))
    each = []
    initial_D = np.asarray(top(config, carry["states"])[0], np.float32)
    for token in [BOS, *target[:-1]]:
        carry, told = walk(params, memory, carry, jnp.full((1,), token, jnp.int32))
        told = {name: np.asarray(x[0], np.float32) for name, x in told.items()}
        each.append({name: x[:source] if name in ("scores", "weights") else x for name, x in told.items()})
    states_SD = np.asarray(memory.states_BSD[0, :source], np.float32)
    return Steps(states_SD, readers(config, source), np.asarray(memory.vector_BD[0], np.float32), initial_D, each)


def readers(config: cfg.Recurrent, source: int) -> list[list[int]]:
    """For each reader in the encoder's top layer, one or (both directions) two, the words' places in the order in which it reads them.

    A word's state is whole once every reader has read it. A bag has no order: its words are taken as they stand.
    """
    if config.encoder == "bag":
        return [list(range(source))]
    places_S1 = jnp.arange(source)[:, None]
    order_S1 = reverse_sequence(places_S1, jnp.ones_like(places_S1, bool)) if config.reverse_source else places_S1
    order = order_S1[:, 0].tolist()
    both = config.bidirectional == "all" or (config.bidirectional == "first" and config.num_encoder_layers == 1)
    return [order, order[::-1]] if both else [order]


def top(config: cfg.Recurrent, states: tuple) -> jax.Array:
    """What the top layer hands on, (B, D): its state, residual sums included."""
    return sum(state[0] for state in states) if config.residual else states[-1][0]  # type: ignore[return-value]


def _step(config: cfg.Recurrent, model: Seq2Seq, params, memory: RecurrentMemory, before, token_B):
    _, after = model.step(params, memory, before, token_B)
    told = model.module.apply({"params": params}, memory, before, after, token_B, method=functools.partial(_told, config))
    return after, told


def _told(config: cfg.Recurrent, module: RecurrentModule, memory: RecurrentMemory, before, after, token_B) -> dict[str, jax.Array]:
    decoder, state_BD = module.decoder, top(config, after["states"])
    told, context_BD = {"state": state_BD}, memory.vector_BD
    if config.context != "fixed":
        form = decoder.cross_attention
        weights = form.weights(memory.keys_BSA, memory.states_BSD, memory.mask_BS)
        query_BD = before["states"][0][0] if config.context == "bahdanau" else state_BD
        scores_B1S = alignment.scores(form.score, weights, query_BD[:, None])
        context_B1D, shares_B1S = alignment.attend(form.score, form.window, weights, query_BD[:, None])
        context_BD = context_B1D[:, 0]
        told |= {"query": query_BD, "scores": scores_B1S[:, 0], "weights": shares_B1S[:, 0], "context": context_BD}
    if config.context == "luong":  # Luong et al. 2015, equation 5
        told["joined"] = jnp.tanh(jnp.concatenate([context_BD, state_BD], -1) @ decoder.combine(state_BD.dtype))
    else:
        told["joined"] = decoder.output(state_BD, module.embed_target(token_B, module.dtype), context_BD)
    return told
