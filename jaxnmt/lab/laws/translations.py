"""Law 3: a translation has the scores of teacher forcing, and depends on its sentence alone."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxnmt.data.special_tokens import BOS, EOS, PAD
from jaxnmt.decoding.search import Hypotheses, SearchOptions, search
from jaxnmt.lab.laws.subject import TARGET_VOCAB, Subject, Verdict, batch_of, close, random_pairs

ROWS, SOURCE, LIMIT, BEAM = 4, 8, 8, 3
LIMITS = np.array([LIMIT, 5, 7, LIMIT], np.int32)
PAIRS = random_pairs(ROWS, seed=3)
TIE = 1e-5


def sources(rows: list[int], width: int) -> dict[str, np.ndarray]:
    """Return some of the sentences, one in each row, as a search reads them."""
    return {"encoder_input_tokens": batch_of(PAIRS, [[i] for i in rows], width, LIMIT)["encoder_input_tokens"]}


def _logits(subject: Subject, inputs_BT: np.ndarray) -> np.ndarray:
    """Return teacher-forced logits (B, T, V) for given target words of the four sentences."""
    return subject.logits(batch_of(PAIRS, [[i] for i in range(ROWS)], SOURCE, LIMIT) | {"decoder_input_tokens": inputs_BT}).copy()


def cached(subject: Subject) -> Verdict:
    """Compare the logits of `step`, one token after the other, with those of a teacher-forced pass."""
    model = subject.flat_model
    inputs_BT = np.random.default_rng(4).integers(EOS + 1, TARGET_VOCAB, (ROWS, LIMIT), np.int32)
    inputs_BT[:, 0] = BOS

    @jax.jit
    def by_step(params, batch, inputs_TB):
        memory = model.encode(params, batch)

        def step(carry, token_B):
            logits_BV, carry = model.step(params, memory, carry, token_B)
            return carry, logits_BV

        return jnp.moveaxis(jax.lax.scan(step, model.start(params, memory, LIMIT), inputs_TB)[1], 0, 1)

    found_BTV = np.asarray(by_step(subject.flat_params, sources([0, 1, 2, 3], SOURCE), inputs_BT.T))[..., :TARGET_VOCAB]
    return close(np.abs(found_BTV - _logits(subject, inputs_BT)).max(), what="largest difference of a logit")


@functools.lru_cache(maxsize=2)
def _found(subject: Subject, beam: int) -> Hypotheses:
    """Return what a search finds for the four sentences; more than one law needs it."""
    run = jax.jit(functools.partial(search, subject.flat_model, SearchOptions(beam, LIMIT)))
    return jax.device_get(run(subject.flat_params, sources([0, 1, 2, 3], SOURCE), LIMITS))


def _teacher_forced(subject: Subject, tokens_BT: np.ndarray) -> np.ndarray:
    """Return log-probabilities (B, T, V) before each token, as a search has them."""
    inputs = np.concatenate([np.full((ROWS, 1), BOS, np.int32), tokens_BT[:, :-1]], 1)
    logits = _logits(subject, inputs)
    logits[..., [PAD, BOS]] = -np.inf
    return np.asarray(jax.nn.log_softmax(logits))


def greedy(subject: Subject) -> Verdict:
    """Compare the words of a beam of one with the best words of the teacher-forced pass, up to the end token."""
    tokens_BT = _found(subject, 1).tokens_BWT[:, 0]
    log_p = _teacher_forced(subject, tokens_BT)
    chosen_BT = (tokens_BT != PAD) & (np.arange(LIMIT) + 1 < LIMITS[:, None])  # at the limit the end is forced
    missed_BT = log_p.max(-1) - np.take_along_axis(log_p, tokens_BT[..., None], -1)[..., 0]
    return close(np.where(chosen_BT, missed_BT, 0).max(), what=f"largest distance to a better word, of {chosen_BT.sum()} chosen,")


def beam(subject: Subject) -> Verdict:
    """Compare the score of each translation of a beam with the teacher-forced pass."""
    found = _found(subject, BEAM)
    worst = 0.0
    for k in range(BEAM):
        tokens_BT = found.tokens_BWT[:, k]
        log_p = np.take_along_axis(_teacher_forced(subject, tokens_BT), tokens_BT[..., None], -1)[..., 0]
        worst = max(worst, float(np.abs(np.where(tokens_BT != PAD, log_p, 0).sum(-1) - found.log_probs_BW[:, k]).max()))
    return close(worst, what="largest difference of a log-probability")


def alone(subject: Subject) -> Verdict:
    """Translate sentences again in another batch, in another order, with more padding, and compare."""
    rows = [3, 1]
    found = _found(subject, BEAM)
    run = jax.jit(functools.partial(search, subject.flat_model, SearchOptions(BEAM, LIMIT + 2)))
    other = jax.device_get(run(subject.flat_params, sources(rows, SOURCE + 4), LIMITS[rows]))
    apart_BW = np.abs(other.scores_BW - found.scores_BW[rows])
    same_BW = (other.tokens_BWT[..., :LIMIT] == found.tokens_BWT[rows]).all(-1)
    if (apart_BW > TIE)[~same_BW].any():
        return Verdict(False, f"{(~same_BW).sum()} of {same_BW.size} translations differ, scores by up to {apart_BW.max():.1g}")
    return close(apart_BW.max(), what="the same translations, largest difference of a score")
