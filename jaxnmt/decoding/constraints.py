"""What a sentence's translation must and must not contain, inside the compiled search: forced prefix, required and forbidden phrases.

Required phrases are met by dynamic beam allocation (Post and Vilar 2018, algorithm 2) in the vectorised form of Hu et al. (2019,
section 3). Candidates of a step are the best of all continuations, the next token of each unmet constraint of each hypothesis, and the best
token of each hypothesis. Candidates that lack equally many constraint tokens form a bank, and the beam takes the best of each bank in turn,
then the second best, and so on. The bank that lacks the fewest comes first, and so it loses at least one token at each step: all
constraints are met after as many steps as they have tokens, if the sentence's limit allows as many.

The state of a hypothesis is recomputed from its tokens. In names, X counts the constraints of a sentence, Y the alternatives of one, and N
the tokens of a phrase. Phrases are padded with PAD, and a phrase of PAD alone is none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from jaxnmt.data.special_tokens import EOS, PAD

if TYPE_CHECKING:  # it imports flax
    from jaxnmt.models.encoder_decoder import Batch


class TargetRules(NamedTuple):
    """The rules of each sentence, int32; None: no sentence has such a rule. A batch has them under the names of these fields.

    Attributes:
        prefix: (B, N), the tokens that the translation begins with.
        required: (B, X, Y, N); of each of X constraints, one of Y phrases must occur.
        forbidden: (B, X, N), phrases that must not occur.
        rank: (B,), the first token after the prefix is the best but this many; -1: it may be any.
    """

    prefix: jax.Array | None
    required: jax.Array | None
    forbidden: jax.Array | None
    rank: jax.Array | None


def target_rules(batch: Batch) -> TargetRules | None:
    """Return the rules in a batch; None if it has none."""
    found = TargetRules(*(batch.get(name) for name in TargetRules._fields))
    return found if any(rule is not None for rule in found) else None


def restrict(rules: TargetRules, t_B: jax.Array, live_BWT: jax.Array, log_p_RV: jax.Array, plain_RV: jax.Array | None) -> jax.Array:
    """Return log-probabilities (R, V) of the next token in which those that the rules exclude are -inf.

    Args:
        t_B: how many tokens the hypotheses of each sentence have.
        plain_RV: log-probabilities before the logit processors, for tokens that the rules ask for and the processors exclude; None: no
            processor.
    """
    log_p_BWV = log_p_RV.reshape(*live_BWT.shape[:2], -1)
    plain_BWV = log_p_BWV if plain_RV is None else plain_RV.reshape(log_p_BWV.shape)
    words_V = jnp.arange(log_p_BWV.shape[-1])
    sentences, hypotheses = jnp.indices(live_BWT.shape[:2])[..., None]
    if rules.required is not None:
        if plain_RV is not None:
            next_BWN = next_tokens(rules.required, t_B, live_BWT)
            places = sentences, hypotheses, next_BWN
            log_p_BWV = log_p_BWV.at[places].set(jnp.where(jnp.isneginf(log_p_BWV[places]), plain_BWV[places], log_p_BWV[places]))
        is_met_BW = _met(rules.required, live_BWT).all(-1)
        log_p_BWV = jnp.where((words_V == EOS) & ~is_met_BW[..., None], -jnp.inf, log_p_BWV)
    if rules.forbidden is not None:
        begun_BXN, last_BX = _without_last(rules.forbidden)
        lengths_BX = _lengths(begun_BXN)
        progress_BWX = _progress(_recent(live_BWT, t_B, begun_BXN.shape[-1]), begun_BXN)
        would_end_BWX = (progress_BWX == lengths_BX[:, None]) & (last_BX != PAD)[:, None]
        excluded = sentences, hypotheses, jnp.broadcast_to(last_BX[:, None], would_end_BWX.shape)
        log_p_BWV = log_p_BWV.at[excluded].min(jnp.where(would_end_BWX, -jnp.inf, jnp.inf))
    if rules.prefix is not None:
        forced_B = jnp.take_along_axis(rules.prefix, t_B[:, None], 1, mode="fill", fill_value=PAD)[..., None]
        log_p_BWV = jnp.where(forced_B == PAD, log_p_BWV, jnp.where(words_V == forced_B, plain_BWV, -jnp.inf))
    return log_p_BWV.reshape(log_p_RV.shape)


def only_ranked(rules: TargetRules, t_B: jax.Array, scores_RV: jax.Array) -> jax.Array:
    """Return the scores of the next token, -inf for all but the one of the sentence's rank if it is the first after the prefix."""
    lengths_B = 0 if rules.prefix is None else _lengths(rules.prefix)
    rank_B = jnp.where(t_B == lengths_B, rules.rank, -1)
    rank_R1 = jnp.repeat(rank_B, len(scores_RV) // len(rank_B))[:, None]
    words_V = jnp.arange(scores_RV.shape[-1])

    def is_best(scores_RV: jax.Array) -> jax.Array:
        return words_V == scores_RV.argmax(-1, keepdims=True)

    def without_best(i: jax.Array, scores_RV: jax.Array) -> jax.Array:
        return jnp.where((i < rank_R1) & is_best(scores_RV), -jnp.inf, scores_RV)

    left_RV = jax.lax.fori_loop(0, rank_R1.max(), without_best, scores_RV)  # no iteration at other steps
    return jnp.where((rank_R1 < 0) | is_best(left_RV), left_RV, -jnp.inf)


def next_tokens(required_BXYN: jax.Array, t_B: jax.Array, live_BWT: jax.Array) -> jax.Array:
    """Return the next token of each phrase of each hypothesis: (B, W, X * Y), PAD if its constraint is met."""
    B, W, _ = live_BWT.shape
    progress_BWXY = _progress(_recent(live_BWT, t_B, required_BXYN.shape[-1]), required_BXYN)
    within = jnp.minimum(progress_BWXY, required_BXYN.shape[-1] - 1)
    tokens_BWXY = jnp.take_along_axis(required_BXYN[:, None], within[..., None], -1)[..., 0]
    return jnp.where(_met(required_BXYN, live_BWT)[..., None], PAD, tokens_BWXY).reshape(B, W, -1)


def allocate(
    required_BXYN: jax.Array, t_B: jax.Array, live_BWT: jax.Array, values_BC, parents_BC, tokens_BC, alive_BC, beam_size: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return 2 x `beam_size` candidates in the order of the allocation, as (values, parents, tokens).

    The live ones beyond the beam's places have a value of -inf, and so the best live ones by value are those that the allocation chooses. A
    sentence without constraints has one bank, whose order is that of the values.

    Args:
        values_BC, parents_BC, tokens_BC: the candidates; one may occur twice.
        alive_BC: whether a candidate is a continuation of a live hypothesis that the rules allow.
    """
    earlier_CC = jnp.tri(values_BC.shape[1], k=-1, dtype=bool)
    same_BCC = (parents_BC[:, :, None] == parents_BC[:, None]) & (tokens_BC[:, :, None] == tokens_BC[:, None])
    alive_BC &= ~(same_BCC & earlier_CC).any(-1)
    values_BC = jnp.where(alive_BC, values_BC, -jnp.inf)
    missing_BC = _missing(required_BXYN, t_B, live_BWT, parents_BC, tokens_BC)
    v, other = values_BC[:, :, None], values_BC[:, None]
    is_better_BCC = alive_BC[:, None] & (missing_BC[:, :, None] == missing_BC[:, None]) & ((other > v) | ((other == v) & earlier_CC))
    places_BC = jnp.broadcast_to(jnp.arange(values_BC.shape[1]), values_BC.shape)
    *_, order_BC = jax.lax.sort((~alive_BC, is_better_BCC.sum(-1), missing_BC, places_BC), dimension=1, num_keys=3)
    values_BC, parents_BC, tokens_BC = (jnp.take_along_axis(x, order_BC, 1)[:, : 2 * beam_size] for x in (values_BC, parents_BC, tokens_BC))
    is_live_BC = tokens_BC != EOS
    beyond_BC = is_live_BC & (jnp.cumsum(is_live_BC, 1) > beam_size)
    return jnp.where(beyond_BC, -jnp.inf, values_BC), parents_BC, tokens_BC


def _missing(required_BXYN: jax.Array, t_B: jax.Array, live_BWT: jax.Array, parents_BC: jax.Array, tokens_BC: jax.Array) -> jax.Array:
    """Return how many tokens each candidate (B, C) still lacks, if it goes on with the phrase that saves the most.

    Alternatives count with the shortest of them.
    """
    N = required_BXYN.shape[-1]
    take = jax.vmap(lambda x, places: x[places])
    recent_BCN = jnp.concatenate([take(_recent(live_BWT, t_B, N), parents_BC)[..., 1:], tokens_BC[..., None]], -1)
    lengths_BXY = _lengths(required_BXYN)
    exists_BXY = lengths_BXY > 0
    shortest_BX = jnp.where(exists_BXY, lengths_BXY, N).min(-1) * exists_BXY.any(-1)
    progress_BCXY = _progress(recent_BCN, required_BXYN)
    is_met_BCX = take(_met(required_BXYN, live_BWT), parents_BC) | ((progress_BCXY == lengths_BXY[:, None]) & exists_BXY[:, None]).any(-1)
    saved_BCXY = shortest_BX[:, None, :, None] - lengths_BXY[:, None] + progress_BCXY
    saved_BC = jnp.where(exists_BXY[:, None] & ~is_met_BCX[..., None], saved_BCXY, 0).max((-2, -1))
    return (shortest_BX[:, None] * ~is_met_BCX).sum(-1) - jnp.maximum(saved_BC, 0)


def _met(required_BXYN: jax.Array, live_BWT: jax.Array) -> jax.Array:
    """Return whether a phrase of each constraint occurs in each hypothesis: (B, W, X). A constraint without phrases is met."""
    T, N = live_BWT.shape[-1], required_BXYN.shape[-1]
    padded = jnp.pad(live_BWT, ((0, 0), (0, 0), (0, N)))[:, :, None, None]
    phrases_BXY1N = required_BXYN[:, None, :, :, None]
    matches_BWXYT = jnp.array(True)
    for n in range(N):
        token = phrases_BXY1N[..., n]
        matches_BWXYT &= (padded[..., n : n + T] == token) | (token == PAD)
    exists_BXY = required_BXYN[..., 0] != PAD
    return (matches_BWXYT.any(-1) & exists_BXY[:, None]).any(-1) | ~exists_BXY.any(-1)[:, None]


def _progress(recent_BCN: jax.Array, phrases: jax.Array) -> jax.Array:
    """Return how many of its first tokens each phrase (B, ..., N) has at the end of each text (B, C, N): the most of them, (B, C, ...)."""
    B, C, N = recent_BCN.shape
    wide = recent_BCN.reshape(B, C, *(1,) * (phrases.ndim - 2), N)
    lengths, progress = _lengths(phrases)[:, None], jnp.zeros((B, C, *phrases.shape[1:-1]), jnp.int32)
    for n in range(1, N + 1):
        ends_so = (wide[..., N - n :] == phrases[:, None, ..., :n]).all(-1) & (n <= lengths)
        progress = jnp.where(ends_so, n, progress)
    return progress


def _recent(live_BWT: jax.Array, t_B: jax.Array, count: int) -> jax.Array:
    """Return the last `count` of each hypothesis' tokens; PAD before its beginning."""
    padded_BWT = jnp.pad(live_BWT, ((0, 0), (0, 0), (count, 0)))
    return jax.vmap(lambda padded_WT, t: jax.lax.dynamic_slice_in_dim(padded_WT, t, count, 1))(padded_BWT, t_B)


def _lengths(phrases: jax.Array) -> jax.Array:
    return (phrases != PAD).sum(-1)


def _without_last(phrases_BXN: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return phrases without their last tokens, and these; PAD if there is no phrase."""
    lengths_BX1 = _lengths(phrases_BXN)[..., None]
    last_BX = jnp.take_along_axis(phrases_BXN, jnp.maximum(lengths_BX1 - 1, 0), -1)[..., 0]
    return jnp.where(jnp.arange(phrases_BXN.shape[-1]) < lengths_BX1 - 1, phrases_BXN, PAD), last_BX
