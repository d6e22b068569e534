"""The inner values of a recurrent model at each decoding step, from its own `step` and the equations of its attention."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnmt import config as cfg
from jaxnmt.data.special_tokens import BOS
from jaxnmt.models.recurrent import RecurrentMemory, RecurrentModule, reverse_sequence
from jaxnmt.models.seq2seq import Seq2Seq


class Steps(NamedTuple):
    """A sentence of S tokens and T decoding steps.

    Attributes:
        states_SD: the encoder's top states, in word order, without padding.
        readers: see `readers`.
        vector_D: its last state (encoder bag: the mean), the only input of a decoder with a fixed context.
        initial_D: the decoder's top state before the first word.
        each: for each step: state, the decoder's top state after it; joined, the input of the output layer; and with attention: query;
            scores (S,), before the softmax; weights (S,); context, the weighted sum of the encoder's states.
    """

    states_SD: np.ndarray
    readers: list[list[int]]
    vector_D: np.ndarray
    initial_D: np.ndarray
    each: list[dict[str, np.ndarray]]


def steps(config: cfg.Recurrent, model: Seq2Seq, params: Any, source_tokens: np.ndarray, source: int, target: list[int]) -> Steps:
    """Decode a given translation step by step.

    Args:
        source_tokens: int32 (1, S), padded; the first `source` are real.
        target: ids, with EOS.
    """
    memory = jax.jit(model.encode)(params, {"encoder_input_tokens": source_tokens})
    carry = model.start(params, memory, len(target))
    step = jax.jit(functools.partial(_step, config, model))
    each = []
    initial_D = np.asarray(top(config, carry["states"])[0], np.float32)
    for token in [BOS, *target[:-1]]:
        carry, values = step(params, memory, carry, jnp.full((1,), token, jnp.int32))
        rows = {name: np.asarray(x[0], np.float32) for name, x in values.items()}
        each.append({name: x[:source] if name in ("scores", "weights") else x for name, x in rows.items()})
    states_SD = np.asarray(memory.states_BSD[0, :source], np.float32)
    return Steps(states_SD, readers(config, source), np.asarray(memory.vector_BD[0], np.float32), initial_D, each)


def readers(config: cfg.Recurrent, source: int) -> list[list[int]]:
    """Return, for each reader of the encoder's top layer (two if it reads in both directions), word positions in the order of reading.

    A word's state is complete once every reader has read it. A bag has no order: its words are listed as they are.
    """
    if config.encoder == "bag":
        return [list(range(source))]
    places_S1 = jnp.arange(source)[:, None]
    order_S1 = reverse_sequence(places_S1, jnp.ones_like(places_S1, bool)) if config.reverse_source else places_S1
    order = order_S1[:, 0].tolist()
    both = config.bidirectional == "all" or (config.bidirectional == "first" and config.num_encoder_layers == 1)
    return [order, order[::-1]] if both else [order]


def top(config: cfg.Recurrent, states: tuple) -> jax.Array:
    """Return the output of the top layer, (B, D), residual sums included."""
    return sum(state[0] for state in states) if config.residual else states[-1][0]  # type: ignore[return-value]


def _step(config: cfg.Recurrent, model: Seq2Seq, params, memory: RecurrentMemory, before, token_B):
    _, after = model.step(params, memory, before, token_B)
    values = model.module.apply({"params": params}, memory, before, after, token_B, method=functools.partial(_values, config))
    return after, values


def _values(config: cfg.Recurrent, module: RecurrentModule, memory: RecurrentMemory, before, after, token_B) -> dict[str, jax.Array]:
    decoder, state_BD = module.decoder, top(config, after["states"])
    values, context_BD = {"state": state_BD}, memory.vector_BD
    if config.context != "fixed":
        form = decoder.cross_attention
        weights = form.weights(memory.keys_BSA, memory.states_BSD, memory.mask_BS)
        query_BD = before["states"][0][0] if config.context == "bahdanau" else state_BD
        scores_B1S = form.scores(weights, query_BD[:, None])
        context_B1D, shares_B1S = form.attend(weights, query_BD[:, None])
        context_BD = context_B1D[:, 0]
        values |= {"query": query_BD, "scores": scores_B1S[:, 0], "weights": shares_B1S[:, 0], "context": context_BD}
    if config.context == "luong":  # Luong et al. 2015, equation 5
        values["joined"] = jnp.tanh(jnp.concatenate([context_BD, state_BD], -1) @ decoder.combine.kernel.astype(state_BD.dtype))
    else:
        values["joined"] = decoder.output(state_BD, module.embed_target(token_B, module.dtype), context_BD)
    return values
