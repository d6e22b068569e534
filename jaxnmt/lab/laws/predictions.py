"""Laws 3 and 4: a prediction sees no later word, no padding and no other pair; a translation depends on its sentence alone.

The laws on what is seen change tokens, and compare to the bit what must not depend on them. Gradients would need the place where a token
becomes a vector, which only a module's author knows, and they are zero if a model counts or compares words. The same program adds the same
numbers in the same order, so on a CPU a masked token leaves no trace, not even of rounding. A law also fails if a change that must show
does not: else a model that ignores its input would pass.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnmt import config as cfg
from jaxnmt.data.special_tokens import BOS, EOS, PAD
from jaxnmt.decoding.search import Hypotheses, SearchOptions, search
from jaxnmt.lab.laws.subject import FIRST_WORD, SOURCE_VOCAB, TARGET_VOCAB, Subject, Verdict, apart, close, random_pairs, sources
from jaxnmt.models.seq2seq import VOCABULARY_MULTIPLE, build_model

ROWS, SOURCE, TARGET, BEAM = 4, 8, 8, 3
SINGLE = [[row] for row in range(ROWS)]
PAIRS = random_pairs(ROWS, seed=3)
LIMITS = np.array([TARGET, 5, 7, TARGET], np.int32)
TIE = 1e-5


def _padded(subject: Subject) -> dict[str, np.ndarray]:
    """Return four sentences with padding in the source. Target rows are full, so that all later tokens can be changed."""
    sources, targets = random_pairs(ROWS), random_pairs(ROWS, 1, TARGET - 1, TARGET - 1)
    pairs = [(source, target) for (source, _), (_, target) in zip(sources, targets, strict=True)]
    return subject.batch(pairs, SINGLE, SOURCE, TARGET)


def _other(tokens: np.ndarray, vocab: int) -> np.ndarray:
    """Return other words; no word stays the same."""
    return FIRST_WORD + (tokens - FIRST_WORD + 1) % (vocab - FIRST_WORD)


def _of_searches(law: Callable[[Subject], Verdict]) -> Callable[[Subject], Verdict]:
    """Return a law that applies only to tasks with a search."""

    @functools.wraps(law)
    def ask(subject: Subject) -> Verdict:
        return law(subject) if subject.task.searches else Verdict(None, f"the task {type(subject.task).__name__} predicts in one pass")

    return ask


@_of_searches
def causal(subject: Subject) -> Verdict:
    """Replace the target words from each position on: no earlier prediction may change, and the position's own must."""
    batch = _padded(subject)
    before_BTV = subject.logits(batch)
    for place in range(1, TARGET):
        later = np.arange(TARGET) >= place
        for what, replaced in (("another word", _other(batch["decoder_input_tokens"], TARGET_VOCAB)), ("padding", PAD)):
            inputs_BT = np.where(later, replaced, batch["decoder_input_tokens"]).astype(np.int32)
            targets_BT = np.concatenate([inputs_BT[:, 1:], batch["decoder_target_tokens"][:, -1:]], 1)
            after_BTV = subject.logits(batch | {"decoder_input_tokens": inputs_BT, "decoder_target_tokens": targets_BT})
            changed_T = (after_BTV != before_BTV).any((0, 2))
            if changed_T[:place].any():
                most = np.abs(after_BTV - before_BTV)[:, :place].max()
                return Verdict(False, f"{what} at position {place} changes the prediction of {np.argmax(changed_T)} by up to {most:.1g}")
            if what == "another word" and not changed_T[place]:
                return Verdict(False, f"the prediction at position {place} does not depend on the word before it")
    return Verdict(True, f"to the bit, {TARGET - 1} positions changed in two ways")


def _used(subject: Subject, batch: dict[str, np.ndarray], params: Any = None) -> np.ndarray:
    """Return `subject.logits`, with 0 at the positions after the end token, whose logits are undefined."""
    return np.where((batch["decoder_target_tokens"] != PAD)[..., None], subject.logits(batch, params), 0)


def padding(subject: Subject) -> Verdict:
    """Replace the vector of the padding id: no prediction may change. Replace each source word: a prediction must change."""
    larger = build_model(subject.config, 2 * VOCABULARY_MULTIPLE, 2 * VOCABULARY_MULTIPLE, subject.task)
    changed = jax.tree.map(_with_other_padding, subject.params, larger.shapes)
    if all(map(operator.is_, jax.tree.leaves(changed), jax.tree.leaves(subject.params))):
        return Verdict(None, "no parameter grows with the vocabulary, so the vector of padding cannot be changed; law `alone` adds padding")
    batch = _padded(subject)
    first = 0 if subject.task.is_label else PAD + 1  # the vector of padding gives padding another logit where it is in the output layer

    def predictions(changes: dict[str, np.ndarray], params: Any = None) -> np.ndarray:
        return _used(subject, batch | changes, params)[..., first:]

    before_BTV, after_BTV = predictions({}), predictions({}, changed)
    if not np.array_equal(before_BTV, after_BTV):
        return Verdict(False, f"the vector of padding changes a logit by up to {apart(after_BTV, before_BTV).max():.1g}")
    source_BS = batch["encoder_input_tokens"]
    for place in range(SOURCE):
        is_word_B = source_BS[:, place] >= FIRST_WORD
        tokens_BS = np.where(is_word_B[:, None] & (np.arange(SOURCE) == place), _other(source_BS, SOURCE_VOCAB), source_BS)
        changed_B = (predictions({"encoder_input_tokens": tokens_BS.astype(np.int32)}) != before_BTV).any((1, 2))
        if (changed_B != is_word_B).any():
            return Verdict(False, f"no prediction depends on the source's word at position {place}, or one does on another sentence's")
    return Verdict(True, f"to the bit, {(source_BS == PAD).sum()} positions of padding beside {(source_BS >= FIRST_WORD).sum()} words")


def _with_other_padding(x: jax.Array, larger: jax.ShapeDtypeStruct) -> jax.Array:
    """Return a parameter with another vector of padding, if it grows with the vocabularies: it is larger in a model with larger ones."""
    axis = next((i for i, (m, n) in enumerate(zip(x.shape, larger.shape, strict=True)) if m != n), None)
    if axis is None:
        return x
    padding = (slice(None),) * axis + (PAD,)
    moved = np.random.default_rng(0).standard_normal(x[padding].shape, np.float32)  # not a constant, which a norm would remove
    return x.at[padding].add(moved)


def neighbours(subject: Subject) -> Verdict:
    """Change each pair of a packed row: the predictions of the others must stay the same."""
    if not subject.packs:
        return Verdict(None, f"a {subject.name} reads one pair a row")
    batch = subject.batch(random_pairs(5), [[0, 3, 1], [4, 2]], 24, 24, packed=True)
    before_BTV = subject.logits(batch)
    segments_BT = batch["decoder_segment_ids"]
    alone_BT = (batch["decoder_positions"] == 0) & isinstance(subject.task, cfg.Language)  # the first word follows nothing
    for segment in range(1, 4):
        changed = dict(batch)
        for side, vocab in (("encoder", SOURCE_VOCAB), ("decoder", TARGET_VOCAB)):
            tokens, mine = batch[f"{side}_input_tokens"], batch[f"{side}_segment_ids"] == segment
            changed[f"{side}_input_tokens"] = np.where(mine & (tokens >= FIRST_WORD), _other(tokens, vocab), tokens).astype(np.int32)
        changed_BT = (subject.logits(changed) != before_BTV).any(-1)
        if changed_BT[(segments_BT > 0) & (segments_BT != segment)].any():
            return Verdict(False, f"pair {segment} of a row changes the predictions of another")
        if not changed_BT[(segments_BT == segment) & ~alone_BT].all():
            return Verdict(False, f"a prediction of pair {segment} of a row does not depend on its words")
    return Verdict(True, "to the bit, each of five pairs changed")


def _sources(subject: Subject, rows: list[int], width: int) -> dict[str, np.ndarray]:
    """Return some of the sentences, one in each row, as a search reads them."""
    return sources(subject.batch(PAIRS, [[i] for i in rows], width, TARGET))


def _logits(subject: Subject, inputs_BT: np.ndarray) -> np.ndarray:
    """Return teacher-forced logits (B, T, V) for given target words of the four sentences."""
    return subject.logits(subject.batch(PAIRS, SINGLE, SOURCE, TARGET) | {"decoder_input_tokens": inputs_BT}).copy()


@_of_searches
def cached(subject: Subject) -> Verdict:
    """Compare the logits of `step`, one token after the other, with those of a teacher-forced pass."""
    model = subject.decoder
    inputs_BT = np.random.default_rng(4).integers(EOS + 1, TARGET_VOCAB, (ROWS, TARGET), np.int32)
    inputs_BT[:, 0] = BOS

    @jax.jit
    def by_step(params, batch, inputs_TB):
        memory = model.encode(params, batch)

        def step(carry, token_B):
            logits_BV, carry = model.step(params, memory, carry, token_B)
            return carry, logits_BV

        return jnp.moveaxis(jax.lax.scan(step, model.start(params, memory, TARGET), inputs_TB)[1], 0, 1)

    found_BTV = np.asarray(by_step(subject.decoder_params, _sources(subject, [0, 1, 2, 3], SOURCE), inputs_BT.T))[..., :TARGET_VOCAB]
    return close(apart(found_BTV, _logits(subject, inputs_BT)).max(), what="largest difference of a logit")


@functools.lru_cache(maxsize=2)
def _found(subject: Subject, beam: int) -> Hypotheses:
    """Return what a search finds for the four sentences; more than one law needs it."""
    return _search(subject, SearchOptions(beam, TARGET), [0, 1, 2, 3], SOURCE)


def _search(subject: Subject, options: SearchOptions, rows: list[int], width: int) -> Hypotheses:
    run = jax.jit(functools.partial(search, subject.decoder, options))
    return jax.device_get(run(subject.decoder_params, _sources(subject, rows, width), LIMITS[rows]))


def _teacher_forced(subject: Subject, tokens_BT: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return log-probabilities (B, T) of each token and of the best token in its place, as a search has them."""
    inputs = np.concatenate([np.full((ROWS, 1), BOS, np.int32), tokens_BT[:, :-1]], 1)
    logits = _logits(subject, inputs)
    logits[..., [PAD, BOS]] = -np.inf
    log_p = np.asarray(jax.nn.log_softmax(logits))
    return np.take_along_axis(log_p, tokens_BT[..., None], -1)[..., 0], log_p.max(-1)


@_of_searches
def greedy(subject: Subject) -> Verdict:
    """Compare the words of a beam of one with the best words of the teacher-forced pass, up to the end token."""
    tokens_BT = _found(subject, 1).tokens_BWT[:, 0]
    log_p_BT, best_BT = _teacher_forced(subject, tokens_BT)
    chosen_BT = (tokens_BT != PAD) & (np.arange(TARGET) + 1 < LIMITS[:, None])  # at the limit the end is forced
    missed = np.where(chosen_BT, best_BT - log_p_BT, 0).max()
    return close(missed, what=f"largest distance to a better word, of {chosen_BT.sum()} chosen,")


@_of_searches
def beam(subject: Subject) -> Verdict:
    """Compare the score of each translation of a beam with the teacher-forced pass."""
    found = _found(subject, BEAM)
    far = []
    for k in range(BEAM):
        tokens_BT = found.tokens_BWT[:, k]
        log_p_BT, _ = _teacher_forced(subject, tokens_BT)
        far.append(apart(np.where(tokens_BT != PAD, log_p_BT, 0).sum(-1), found.log_probs_BW[:, k]))
    return close(np.max(far), what="largest difference of a log-probability")


def alone(subject: Subject) -> Verdict:
    """Translate sentences again in another batch, in another order, with more padding, and compare. Or predict what is not translated."""
    rows = [3, 1]
    if not subject.task.searches:
        again, before = (
            _used(subject, subject.batch(PAIRS, [[row] for row in some], width, TARGET))
            for some, width in ((rows, SOURCE + 4), (range(ROWS), SOURCE))
        )
        return close(apart(again, before[rows]).max(), TIE, "largest difference of a prediction")
    found = _found(subject, BEAM)
    other = _search(subject, SearchOptions(BEAM, TARGET + 2), rows, SOURCE + 4)
    apart_BW = apart(other.scores_BW, found.scores_BW[rows])
    same_BW = (other.tokens_BWT[..., :TARGET] == found.tokens_BWT[rows]).all(-1)
    if (apart_BW > TIE)[~same_BW].any():
        return Verdict(False, f"{(~same_BW).sum()} of {same_BW.size} translations differ, scores by up to {apart_BW.max():.1g}")
    return close(apart_BW.max(), what="the same translations, largest difference of a score")
