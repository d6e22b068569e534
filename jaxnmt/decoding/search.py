"""Greedy and beam search over a model's `step` and its carry: one while-loop, compiled once for each shape and structure.

W is the number of beams; rows of a carry are sentence-major: hypothesis k of sentence b is row b * W + k.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnmt.data.special_tokens import BOS, EOS, PAD
from jaxnmt.models.seq2seq import Batch, Seq2Seq
from jaxnmt.parallel.sharding import any_across_devices

NEVER = -1e9
_choose = jax.vmap(lambda x, places: x[places])  # of each sentence, the hypotheses at these places

# (tokens so far (B, W, T), how many of them are written, log-probabilities (B, W, V)) -> log-probabilities
LogitProcessor = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


class Hypotheses(NamedTuple):
    """The translations of each sentence, best first.

    Attributes:
        tokens_BWT: int32, each ended by EOS and padded with PAD, without BOS.
        scores_BW: float32, log-probability divided by the length penalty; NEVER for places that no hypothesis took.
        log_probs_BW: float32, log-probability, EOS included.
    """

    tokens_BWT: jax.Array
    scores_BW: jax.Array
    log_probs_BW: jax.Array


@functools.partial(jax.tree_util.register_dataclass, data_fields=["length_penalty"], meta_fields=["beam_size", "max_length", "processors"])
@dataclasses.dataclass(frozen=True)
class SearchOptions:
    """The options of a search, a pytree. Options that change the compiled program are static; numbers are its arguments.

    Attributes:
        beam_size: W.
        max_length: T, the maximum length of a hypothesis in tokens, EOS included. No sentence's limit may exceed it.
        length_penalty: alpha of ((5 + length) / 6) ** alpha (Wu et al. 2016, equation 14). Not static.
        processors: change log-probabilities before each choice.
    """

    beam_size: int
    max_length: int
    length_penalty: float | jax.Array = 1.0
    processors: tuple[LogitProcessor, ...] = ()


def length_penalty(length: jax.Array, alpha: float | jax.Array) -> jax.Array:
    """Return GNMT's length penalty, ((5 + length) / 6) ** alpha (Wu et al. 2016, equation 14)."""
    return ((5.0 + length) / 6.0) ** alpha


def search(
    model: Seq2Seq, options: SearchOptions, params, batch: Batch, limits_B: jax.Array, mesh: jax.sharding.Mesh | None = None
) -> Hypotheses:
    """Return the best translations of each sentence of a batch.

    Args:
        batch: `encoder_input_tokens` (B, S), one sentence a row.
        limits_B: int32, the longest translation of each sentence, EOS included, at most `options.max_length`. A limit depends on its
            sentence alone, and so a translation does not depend on its batch.
        mesh: that `per_device` runs this search on; None: one device.
    """
    return (_greedy if options.beam_size == 1 else _beam)(model, options, params, batch, limits_B, mesh)


def _log_probs(options: SearchOptions, logits_RV, tokens_BWT, written, limits_B) -> jax.Array:
    """Return log-probabilities (B, W, V) of the next token. PAD and BOS are masked; at the length limit, all tokens but EOS are."""
    B, W, _ = tokens_BWT.shape
    log_p = jax.nn.log_softmax(logits_RV.at[:, jnp.array([PAD, BOS])].set(-jnp.inf)).reshape(B, W, -1)
    for process in options.processors:
        log_p = process(tokens_BWT, written, log_p)
    at_limit_B11 = (written + 1 >= limits_B)[:, None, None]
    return jnp.where(at_limit_B11 & (jnp.arange(log_p.shape[-1]) != EOS), NEVER, jnp.maximum(log_p, NEVER))


def _greedy(model, options, params, batch, limits_B, mesh) -> Hypotheses:
    memory = model.encode(params, batch)
    B, T = batch["encoder_input_tokens"].shape[0], options.max_length
    carry = model.start(params, memory, T)
    state = (jnp.int32(0), carry, jnp.full((B,), BOS, jnp.int32), jnp.zeros((B, T), jnp.int32), jnp.zeros((B,)), jnp.zeros((B,), bool))

    def unfinished(state):
        return any_across_devices(~state[-1] & (state[0] < limits_B), mesh)

    def body(state):
        t, carry, token_B, tokens_BT, log_prob_B, done_B = state
        logits, carry = model.step(params, memory, carry, token_B)
        log_p = _log_probs(options, logits, tokens_BT[:, None], t, limits_B)[:, 0]
        token_B = jnp.where(done_B, PAD, log_p.argmax(-1)).astype(jnp.int32)
        log_prob_B = log_prob_B + jnp.where(done_B, 0.0, log_p.max(-1))
        return t + 1, carry, token_B, tokens_BT.at[:, t].set(token_B), log_prob_B, done_B | (token_B == EOS)

    _, _, _, tokens_BT, log_prob_B, _ = jax.lax.while_loop(unfinished, body, state)
    length_B = (tokens_BT != PAD).sum(-1)
    return Hypotheses(tokens_BT[:, None], (log_prob_B / length_penalty(length_B, options.length_penalty))[:, None], log_prob_B[:, None])


class Beams(NamedTuple):
    """Live hypotheses and the best finished ones, W of each a sentence, after `t` steps.

    Attributes:
        live_BWT: tokens, best first; places that no hypothesis takes have a log-probability of NEVER or less.
    """

    t: jax.Array
    carry: Any
    live_BWT: jax.Array
    live_log_probs_BW: jax.Array
    done: Hypotheses


def _beam(model, options, params, batch, limits_B, mesh) -> Hypotheses:
    memory, beams = _begin(model, options, params, batch)
    unfinished = lambda beams: _unfinished(options, limits_B, beams, mesh)  # noqa: E731
    advance = lambda beams: _advance(model, options, params, memory, limits_B, beams)  # noqa: E731
    return jax.lax.while_loop(unfinished, advance, beams).done


def beam_steps(model: Seq2Seq, options: SearchOptions, params, batch: Batch, limits_B: jax.Array) -> Iterator[Beams]:
    """Yield the beams after each step of the same beam search; `done` of the last ones is what `search` returns."""
    memory, beams = jax.jit(functools.partial(_begin, model))(options, params, batch)
    advance = jax.jit(functools.partial(_advance, model))
    while _unfinished(options, limits_B, beams):
        beams = advance(options, params, memory, limits_B, beams)
        yield beams


def _begin(model, options, params, batch):
    """Return the memory, and the beams before the first token."""
    memory = model.encode(params, batch)
    B, W, T = batch["encoder_input_tokens"].shape[0], options.beam_size, options.max_length
    carry = jax.tree.map(lambda x: jnp.repeat(x, W, 0), model.start(params, memory, T))
    nothing = Hypotheses(jnp.zeros((B, W, T), jnp.int32), jnp.full((B, W), NEVER), jnp.full((B, W), NEVER))
    only_first_BW = jnp.tile(jnp.where(jnp.arange(W) == 0, 0.0, NEVER), (B, 1))
    return memory, Beams(jnp.int32(0), carry, jnp.zeros((B, W, T), jnp.int32), only_first_BW, nothing)


def _unfinished(options, limits_B, beams: Beams, mesh=None) -> jax.Array:
    # A sentence is finished at its limit, or when no live hypothesis can still beat the worst finished one: log-probabilities only fall,
    # and the penalty is largest at the limit (for alpha < 0, at the next step).
    alpha = options.length_penalty
    longest_B = jnp.where(jnp.asarray(alpha) >= 0, limits_B, beams.t + 1)
    score_upper_bound_B = beams.live_log_probs_BW[:, 0] / length_penalty(longest_B, alpha)
    return any_across_devices((beams.t < limits_B) & (score_upper_bound_B > beams.done.scores_BW[:, -1]), mesh)


def _advance(model, options, params, memory, limits_B, beams: Beams) -> Beams:
    B, W, _ = beams.live_BWT.shape
    last_BW = jnp.where(beams.t == 0, BOS, jnp.take(beams.live_BWT, jnp.maximum(beams.t - 1, 0), axis=2))
    logits_RV, carry = model.step(params, memory, beams.carry, last_BW.reshape(-1))
    log_p_BWV = _log_probs(options, logits_RV, beams.live_BWT, beams.t, limits_B)
    values_BC, parents_BC, tokens_BC = _candidates(log_p_BWV, beams.live_log_probs_BW)
    ended_BC = tokens_BC == EOS
    history_BCT = _choose(beams.live_BWT, parents_BC).at[:, :, beams.t].set(tokens_BC)
    penalty = length_penalty(beams.t + 1, options.length_penalty)
    done = _merge(beams.done, history_BCT, jnp.where(ended_BC, values_BC, NEVER), penalty)
    values_BW, keep_BW = jax.lax.top_k(jnp.where(ended_BC, NEVER, values_BC), W)
    kept_BW = _choose(parents_BC, keep_BW)
    carry = jax.tree.map(lambda x: _choose(x.reshape(B, W, *x.shape[1:]), kept_BW).reshape(x.shape), carry)
    return Beams(beams.t + 1, carry, _choose(history_BCT, keep_BW), values_BW, done)


def _candidates(log_p_BWV, live_log_probs_BW):
    """Return the 2W best continuations of each sentence as (values, parents, tokens), (B, 2W) each: at least W of them do not end.

    Two stages, the best of each beam and then the best of these, give the same result and sort far less.
    """
    B, W, V = log_p_BWV.shape
    values, tokens = jax.lax.top_k(log_p_BWV, min(2 * W, V))
    values = (values + live_log_probs_BW[..., None]).reshape(B, -1)
    values_BC, best = jax.lax.top_k(values, min(2 * W, values.shape[1]))
    return values_BC, best // tokens.shape[-1], _choose(tokens.reshape(B, -1), best)


def _merge(done: Hypotheses, history_BCT, log_probs_BC, penalty) -> Hypotheses:
    """Return the W best among the finished hypotheses and those that end now."""
    scores_BC = jnp.where(log_probs_BC <= NEVER / 2, NEVER, log_probs_BC / penalty)
    new = Hypotheses(history_BCT, scores_BC, log_probs_BC)
    both = jax.tree.map(lambda *parts: jnp.concatenate(parts, 1), done, new)
    _, best_BW = jax.lax.top_k(both.scores_BW, done.scores_BW.shape[1])
    return jax.tree.map(lambda x: _choose(x, best_BW), both)
