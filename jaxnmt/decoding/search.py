"""Greedy and beam search over a model's `step` and its carry.

W is the number of beams; rows of a carry are sentence-major: hypothesis k of sentence b is row b * W + k. `search` is one program.
`begin` and `advance` are its halves, between which a caller may drop the sentences that are finished (`select`) and lengthen the
decoder's caches (`lengthen`). `refilling` puts new sentences in their places.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnmt.data.special_tokens import BOS, EOS, PAD
from jaxnmt.decoding import constraints, coverage, lengths, penalties, sampling, siblings
from jaxnmt.decoding.reductions import log_sum_exp, top_k, without_special
from jaxnmt.models.cache import reordered, with_hypotheses
from jaxnmt.parallel.sharding import any_across_devices

if TYPE_CHECKING:  # it imports flax
    from jaxnmt.models.encoder_decoder import Batch
    from jaxnmt.models.seq2seq import Seq2Seq

NEVER = -1e9
_take = jax.vmap(lambda x, places: x[places])  # of each sentence, the hypotheses at these places

# (tokens so far (B, W, T), how many of them are written, log-probabilities (B, W, V)) -> log-probabilities, none of them higher
LogitProcessor = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


class Hypotheses(NamedTuple):
    """The translations of each sentence, best first; samples in the order of their numbers.

    Attributes:
        tokens_BWT: int32, each ended by EOS and padded with PAD, without BOS.
        scores_BW: float32, log-probability weighed with the length (`lengths.score`) and the coverage (`coverage.score`), of a sample the
            log-probability; NEVER for places that no hypothesis took.
        log_probs_BW: float32, log-probability, EOS included.
    """

    tokens_BWT: jax.Array
    scores_BW: jax.Array
    log_probs_BW: jax.Array


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["length_penalty", "patience", "n_best", "processors", "sampling", "coverage_penalty", "sibling_penalty"],
    meta_fields=["beam_size", "max_length", "length_normalization", "refills"],
)
@dataclasses.dataclass(frozen=True)
class SearchOptions:
    """The options of a search, a pytree. Options that change the compiled program are static; numbers are its arguments.

    Attributes:
        beam_size: W.
        max_length: T, the maximum length of a hypothesis in tokens, EOS included. No sentence's limit may exceed it.
        length_penalty: alpha of `lengths.score`. Not static.
        patience: a sentence is finished once `patience` x W hypotheses have ended (Kasai et al. 2022); inf: once no live hypothesis can
            be among the `n_best`. Not static.
        n_best: number of hypotheses to return for each sentence; 0: W. Not static.
        processors: change log-probabilities before each choice. The functions are static, and the numbers that `Partial` binds are not.
        length_normalization: the kind of `lengths.score`.
        sampling: how W translations of each sentence are drawn; None: they are searched for.
        coverage_penalty: beta of `coverage.score`, not static; None: attention is not read.
        sibling_penalty: gamma of `siblings.best`, not static; None: continuations are chosen by log-probability alone.
        refills: whether a sentence may begin while others go on, so that their hypotheses have different lengths.
    """

    beam_size: int
    max_length: int
    length_penalty: float | jax.Array = 1.0
    patience: float | jax.Array = float("inf")
    n_best: int | jax.Array = 0
    processors: tuple[jax.tree_util.Partial, ...] = ()
    length_normalization: str = "gnmt"
    sampling: sampling.Sampling | None = None
    coverage_penalty: float | jax.Array | None = None
    sibling_penalty: float | jax.Array | None = None
    refills: bool = False


class Beams(NamedTuple):
    """Live hypotheses and the best finished ones, W of each a sentence.

    Attributes:
        t_B: int32, the steps of each sentence: how many tokens its live hypotheses have.
        live_BWT: tokens, best first; places that no hypothesis takes have a log-probability of NEVER or less.
        ended_B: int32, how many hypotheses have ended.
        open_B: whether the sentence's search goes on.
        keys_BW2: of the random numbers of each sample.
        rules: what each sentence's translation must and must not contain; None: no sentence has rules.
        coverage_RS: of each live hypothesis, the sum of its attention on each source position; None: it is not needed.
    """

    t_B: jax.Array
    carry: Any
    live_BWT: jax.Array
    live_log_probs_BW: jax.Array
    done: Hypotheses
    ended_B: jax.Array
    open_B: jax.Array
    keys_BW2: jax.Array | None = None
    rules: constraints.TargetRules | None = None
    coverage_RS: jax.Array | None = None


def search(
    model: Seq2Seq, options: SearchOptions, params, batch: Batch, limits_B: jax.Array, mesh: jax.sharding.Mesh | None = None
) -> Hypotheses:
    """Return the best translations of each sentence of a batch.

    Args:
        batch: `encoder_input_tokens` (B, S), one sentence a row; and the fields of `constraints.TargetRules` that are used.
        limits_B: int32, the longest translation of each sentence, EOS included, at most `options.max_length`. A limit depends on its
            sentence alone, and so a translation does not depend on its batch.
        mesh: that `per_device` runs this search on; None: one device.
    """
    memory, beams = begin(model, options, params, batch, limits_B)
    return advance(model, options, params, memory, limits_B, beams, mesh).done


def begin(model: Seq2Seq, options: SearchOptions, params, batch: Batch, limits_B: jax.Array) -> tuple[Any, Beams]:
    """Return the memory, and the beams after the first token."""
    memory = model.encode(params, batch)
    return memory, first(model, options, params, memory, batch, limits_B)


def first(model: Seq2Seq, options: SearchOptions, params, memory, batch: Batch, limits_B: jax.Array) -> Beams:
    """Return the beams after the first token, which one row a sentence suffices for."""
    B, W, T = limits_B.shape[0], options.beam_size, options.max_length
    covered_BS = None if options.coverage_penalty is None else coverage.start(batch["encoder_input_tokens"])
    logits_BV, *after = _predict(model, params, memory, model.start(params, memory, T), covered_BS, jnp.full((B,), BOS, jnp.int32))
    carry, covered_RS = with_hypotheses(after, W, is_beam=options.sampling is None, aligned=not options.refills)
    nothing = Hypotheses(jnp.zeros((B, W, T), jnp.int32), jnp.full((B, W), NEVER), jnp.full((B, W), NEVER))
    zeros_B, is_open_B = jnp.zeros((B,), jnp.int32), jnp.ones((B,), bool)
    before = Beams(zeros_B, carry, jnp.zeros((B, 1, T), jnp.int32), jnp.zeros((B, 1)), nothing, zeros_B, is_open_B)
    if options.sampling is not None:
        before = before._replace(keys_BW2=sampling.keys(options.sampling, batch, W))
    return _choose(options, logits_BV, limits_B, before._replace(rules=constraints.target_rules(batch), coverage_RS=covered_RS))


def advance(
    model: Seq2Seq, options: SearchOptions, params, memory, limits_B, beams: Beams, mesh=None, at_most: int | jax.Array = 0
) -> Beams:
    """Take steps until at most `at_most` sentences are open, or the hypotheses of an open one have `options.max_length` tokens."""

    def goes_on(beams: Beams) -> jax.Array:
        return any_across_devices((beams.open_B.sum() > at_most) & ~is_full(options, beams).any(), mesh)

    return jax.lax.while_loop(goes_on, lambda beams: step(model, options, params, memory, limits_B, beams), beams)


def is_full(options: SearchOptions, beams: Beams) -> jax.Array:
    """Return whether a sentence is open and its hypotheses have `options.max_length` tokens, so that no step may follow: (B,)."""
    return beams.open_B & (beams.t_B >= options.max_length)


class StepwiseSearch:
    """`search` step by step, for one model; compiled once for each shape."""

    def __init__(self, model: Seq2Seq) -> None:
        self._begin, self._step = (jax.jit(functools.partial(function, model)) for function in (begin, step))

    def __call__(self, options: SearchOptions, params, batch: Batch, limits_B: jax.Array) -> Iterator[Beams]:
        """Yield the beams after each step; `done` of the last ones is what `search` returns."""
        memory, beams = self._begin(options, params, batch, limits_B)
        yield beams
        while beams.open_B.any():
            beams = self._step(options, params, memory, limits_B, beams)
            yield beams


def select(tree: Any, rows: jax.Array, sentences: int) -> Any:
    """Return some sentences of a pytree whose leaves lead with `sentences` x the same number of rows; scalars stay."""

    def choose(x: jax.Array) -> jax.Array:
        return x if x.ndim == 0 else x.reshape(sentences, -1, *x.shape[1:])[rows].reshape(-1, *x.shape[1:])

    return jax.tree.map(choose, tree)


def lengthen(model: Seq2Seq, options: SearchOptions, params, memory, beams: Beams) -> Beams:
    """Return the same beams with caches for `options.max_length` tokens. The carry begins with the old one."""
    W, T = options.beam_size, options.max_length
    empty = with_hypotheses(model.start(params, memory, T), W, is_beam=options.sampling is None, aligned=not options.refills)
    carry = jax.tree.map(lambda new, old: jax.lax.dynamic_update_slice(new, old, (0,) * old.ndim), empty, beams.carry)
    longer = lambda x: jnp.pad(x, ((0, 0), (0, 0), (0, T - x.shape[2])))  # noqa: E731
    done = beams.done._replace(tokens_BWT=longer(beams.done.tokens_BWT))
    return beams._replace(carry=carry, live_BWT=longer(beams.live_BWT), done=done)


def step(model, options, params, memory, limits_B, beams: Beams) -> Beams:
    """Return the beams after the next token of each hypothesis."""
    last_BW = jnp.take_along_axis(beams.live_BWT, (beams.t_B - 1)[:, None, None], 2)[..., 0]
    logits_RV, carry, covered_RS = _predict(model, params, memory, beams.carry, beams.coverage_RS, last_BW.reshape(-1))
    return _choose(options, logits_RV, limits_B, beams._replace(carry=carry, coverage_RS=covered_RS))


def _predict(model, params, memory, carry, coverage_RS, token_R):
    """Return the next token's logits, the carry, and the coverage with that token's attention."""
    if coverage_RS is None:
        return *model.step(params, memory, carry, token_R), None
    logits_RV, carry, attention_RS = model.step_with_attention(params, memory, carry, token_R)
    return logits_RV, carry, coverage_RS + attention_RS


def _choose(options: SearchOptions, logits_RV, limits_B, beams: Beams) -> Beams:
    """Return the beams after the next token; the first token is chosen from one live hypothesis a sentence, others from W."""
    if options.sampling is not None:
        return _draw(options, options.sampling, logits_RV, limits_B, beams)
    W = options.beam_size
    values_BC, parents_BC, tokens_BC = _candidates(options, logits_RV, limits_B, beams)
    ended_BC = tokens_BC == EOS
    # With finite patience, what ends must be among the W best continuations, as in fairseq and CTranslate2.
    counts_BC = ended_BC & (values_BC > NEVER / 2) & beams.open_B[:, None] & (jnp.isinf(_patience(options)) | (jnp.arange(2 * W) < W))
    history_BCT = _with_next(beams, _take(beams.live_BWT, parents_BC), tokens_BC)
    done = _merge(options, beams, history_BCT, jnp.where(counts_BC, values_BC, NEVER), parents_BC)
    values_BW, keep_BW = jax.lax.top_k(jnp.where(ended_BC, NEVER, values_BC), W)
    live_BWT = _take(history_BCT, keep_BW)
    if beams.live_BWT.shape[1] > 1:
        carry, covered_RS = reordered((beams.carry, beams.coverage_RS), _take(parents_BC, keep_BW))
        beams = beams._replace(carry=carry, coverage_RS=covered_RS)
    ended_B = beams.ended_B + counts_BC.sum(1)
    after = beams._replace(t_B=beams.t_B + 1, live_BWT=live_BWT, live_log_probs_BW=values_BW, done=done, ended_B=ended_B)
    return after._replace(open_B=beams.open_B & _goes_on(options, limits_B, after))


def _draw(options: SearchOptions, how: sampling.Sampling, logits_RV, limits_B, beams: Beams) -> Beams:
    """Return the beams after each live hypothesis has drawn its next token, by itself. Its place stays the same."""
    B, W, t_B = limits_B.shape[0], options.beam_size, beams.t_B
    words_V = jnp.arange(logits_RV.shape[-1])
    log_p_BWV = jax.nn.log_softmax(without_special(logits_RV)).reshape(B, -1, len(words_V))
    allowed_BWV = _processed(options, log_p_BWV, beams)
    if beams.rules is not None:
        flat = (x.reshape(-1, len(words_V)) for x in (allowed_BWV, log_p_BWV))
        allowed_BWV = constraints.restrict(beams.rules, t_B, beams.live_BWT, *flat).reshape(log_p_BWV.shape)
    tokens_BW = jnp.where((t_B + 1 >= limits_B)[:, None], EOS, sampling.draw(how, beams.keys_BW2, t_B, allowed_BWV))
    of_tokens = lambda x_BWV: jnp.take_along_axis(jnp.broadcast_to(x_BWV, (B, W, len(words_V))), tokens_BW[..., None], -1)[..., 0]  # noqa: E731
    log_probs_BW = beams.live_log_probs_BW + of_tokens(log_p_BWV)
    is_live_BW = (log_probs_BW > NEVER / 2) & (of_tokens(allowed_BWV) > NEVER / 2)
    ends_BW = is_live_BW & (tokens_BW == EOS)
    live_BWT = jnp.broadcast_to(beams.live_BWT, (B, W, beams.live_BWT.shape[-1]))
    live_BWT = _with_next(beams, live_BWT, jnp.where(is_live_BW, tokens_BW, PAD))
    new = Hypotheses(live_BWT, log_probs_BW, log_probs_BW)
    done = jax.tree.map(lambda new, old: jnp.where(ends_BW.reshape(B, W, *(1,) * (new.ndim - 2)), new, old), new, beams.done)
    goes_on_BW = is_live_BW & ~ends_BW
    log_probs_BW = jnp.where(goes_on_BW, log_probs_BW, NEVER)
    return beams._replace(
        t_B=t_B + 1,
        live_BWT=live_BWT,
        live_log_probs_BW=log_probs_BW,
        done=done,
        ended_B=beams.ended_B + ends_BW.sum(1),
        open_B=goes_on_BW.any(1),
    )


def _with_next(beams: Beams, history_BCT: jax.Array, tokens_BC: jax.Array) -> jax.Array:
    """Return hypotheses with these next tokens."""
    is_next_B1T = jnp.arange(history_BCT.shape[-1]) == beams.t_B[:, None, None]
    return jnp.where(is_next_B1T, tokens_BC[..., None], history_BCT)


def _goes_on(options: SearchOptions, limits_B, beams: Beams) -> jax.Array:
    """Return whether a sentence's search must go on.

    It ends at the limit; when enough hypotheses have ended; or when no live one can still be among the n best: log-probabilities only
    fall, no length is better for a live one than `lengths.best_length`, and coverage adds nothing above 0.
    """
    alpha, W = jnp.asarray(options.length_penalty), options.beam_size
    length_B = lengths.best_length(beams.t_B + 1, limits_B, alpha)
    bound_B = lengths.score(options.length_normalization, beams.live_log_probs_BW[:, 0], length_B, alpha)
    worst_B = jnp.take(beams.done.scores_BW, options.n_best - 1, axis=1)
    impatient_B = beams.ended_B >= jnp.maximum(1, jnp.floor(_patience(options) * W + 0.5))
    return (beams.t_B < limits_B) & (bound_B > worst_B) & ~impatient_B


def _patience(options: SearchOptions) -> float | jax.Array:
    return options.patience if options.beam_size > 1 else 1.0  # a beam of 1 is greedy: it ends with the first EOS


def _candidates(options: SearchOptions, logits_RV, limits_B, beams: Beams):
    """Return the 2W best continuations of each sentence as (values, parents, tokens), (B, 2W) each: at least W of them do not end.

    The best of each hypothesis and then the best of these are the same, and are found by sorting far less.
    """
    B, W, C = limits_B.shape[0], beams.live_BWT.shape[1], 2 * options.beam_size
    scores_RV, total_R1 = _allowed(options, logits_RV, beams)
    at_limit_R1 = jnp.repeat(beams.t_B + 1 >= limits_B, W)[:, None]

    def price(scores: jax.Array) -> jax.Array:
        return (jnp.maximum(scores - total_R1, NEVER) + beams.live_log_probs_BW.reshape(-1, 1)).reshape(B, -1)

    scores_RC, tokens_RC = _best_tokens(beams, scores_RV, at_limit_R1, C)
    values, tokens = price(scores_RC), tokens_RC.reshape(B, -1)
    if options.sibling_penalty is None:
        values_BC, best = jax.lax.top_k(values, C)
    else:
        values_BC, best = siblings.best(options.sibling_penalty, values, tokens, C, options.beam_size)
    found = values_BC, best // C, _take(tokens, best)
    if beams.rules is None or beams.rules.required is None:
        return found
    required = beams.rules.required
    required_RN = jnp.concatenate([constraints.next_tokens(required, beams.t_B, beams.live_BWT).reshape(B * W, -1), tokens_RC[:, :1]], 1)
    parents_BC = jnp.broadcast_to(jnp.repeat(jnp.arange(W), required_RN.shape[1]), (B, W * required_RN.shape[1]))
    scores_RN = jnp.where(at_limit_R1 & (required_RN != EOS), -jnp.inf, jnp.take_along_axis(scores_RV, required_RN, 1))
    more = price(scores_RN), parents_BC, required_RN.reshape(B, -1)
    values_BC, parents_BC, tokens_BC = (jnp.concatenate(pair, 1) for pair in zip(found, more, strict=True))
    alive_BC = values_BC > NEVER / 2
    return constraints.allocate(required, beams.t_B, beams.live_BWT, values_BC, parents_BC, tokens_BC, alive_BC, options.beam_size)


def _best_tokens(beams: Beams, scores_RV: jax.Array, at_limit_R1: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """Return the `count` best tokens of each hypothesis and their scores, (R, `count`) each: at its limit EOS alone.

    PAD, with a score of minus infinity, fills the places that a small vocabulary leaves.
    """
    is_end_V = jnp.arange(scores_RV.shape[1]) == EOS
    if beams.rules is not None and beams.rules.rank is not None:
        scores_RV = constraints.only_ranked(beams.rules, beams.t_B, jnp.where(at_limit_R1 & ~is_end_V, -jnp.inf, scores_RV))
    scores, tokens = top_k(scores_RV, min(count, scores_RV.shape[1]))
    missing = ((0, 0), (0, count - tokens.shape[1]))
    scores, tokens = jnp.pad(scores, missing, constant_values=-jnp.inf), jnp.pad(tokens, missing, constant_values=PAD)
    is_first_C = jnp.arange(count) == 0
    only_end = jnp.where(is_first_C, scores_RV[:, EOS, None], -jnp.inf), jnp.where(is_first_C, EOS, PAD)
    return jnp.where(at_limit_R1, only_end[0], scores), jnp.where(at_limit_R1, only_end[1], tokens)


def _allowed(options: SearchOptions, logits_RV, beams: Beams) -> tuple[jax.Array, Any]:
    """Return a score of each token (R, V), minus infinity if it may not follow, and what to subtract for its log-probability (R, 1)."""
    B, W = beams.open_B.shape[0], beams.live_BWT.shape[1]
    scores_RV, plain_RV = without_special(logits_RV), None
    if all(process.func in penalties.BANS for process in options.processors):
        total_R1 = log_sum_exp(scores_RV)
    else:
        scores_RV, total_R1 = jax.nn.log_softmax(scores_RV), 0.0
    if options.processors:
        plain_RV = scores_RV
        scores_RV = _processed(options, plain_RV.reshape(B, W, -1), beams).reshape(plain_RV.shape)
    if beams.rules is not None:
        scores_RV = constraints.restrict(beams.rules, beams.t_B, beams.live_BWT, scores_RV, plain_RV)
    return scores_RV, total_R1


def _processed(options: SearchOptions, log_probs_BWV: jax.Array, beams: Beams) -> jax.Array:
    def process_all(live_BWT: jax.Array, t: jax.Array, log_probs_BWV: jax.Array) -> jax.Array:
        for process in options.processors:
            log_probs_BWV = process(live_BWT, t, log_probs_BWV)
        return log_probs_BWV

    if not options.refills:
        return process_all(beams.live_BWT, beams.t_B[0], log_probs_BWV)
    alone = lambda live_WT, t, log_probs_WV: process_all(live_WT[None], t, log_probs_WV[None])[0]  # noqa: E731
    return jax.vmap(alone)(beams.live_BWT, beams.t_B, log_probs_BWV)


def _merge(options: SearchOptions, beams: Beams, history_BCT, log_probs_BC, parents_BC) -> Hypotheses:
    """Return the W best among the finished hypotheses and those that end now."""
    done = beams.done
    scores_BC = lengths.score(options.length_normalization, log_probs_BC, beams.t_B[:, None] + 1, options.length_penalty)
    if options.coverage_penalty is not None:
        covered_BW = coverage.score(options.coverage_penalty, beams.coverage_RS).reshape(scores_BC.shape[0], -1)
        scores_BC += _take(covered_BW, parents_BC)
    scores_BC = jnp.where(log_probs_BC <= NEVER / 2, NEVER, scores_BC)
    new = Hypotheses(history_BCT, scores_BC, log_probs_BC)
    both = jax.tree.map(lambda *parts: jnp.concatenate(parts, 1), done, new)
    _, best_BW = jax.lax.top_k(both.scores_BW, done.scores_BW.shape[1])
    return jax.tree.map(lambda x: _take(x, best_BW), both)
