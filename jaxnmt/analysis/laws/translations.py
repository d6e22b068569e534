"""Law 3: a translation is the model's own, and its sentence's alone."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxnmt.analysis.laws.subject import ROUNDING, TARGET_VOCAB, Subject, Verdict, batch_of, close, random_pairs
from jaxnmt.decoding import search as searching
from jaxnmt.decoding.search import BOS, EOS, PAD, Hypotheses, SearchOptions

ROWS, SOURCE, LIMIT, BEAM = 4, 8, 8, 3
LIMITS = np.array([LIMIT, 5, 7, LIMIT], np.int32)
PAIRS = random_pairs(ROWS, seed=3)
TIE = 1e-5


def sources(rows: list[int], width: int) -> dict[str, np.ndarray]:
    """Some of the sentences, a row each."""
    return {"encoder_input_tokens": batch_of(PAIRS, [[i] for i in rows], width, LIMIT)["encoder_input_tokens"]}


def cached(subject: Subject) -> Verdict:
    """The logits of `step` after `step` are those of a teacher-forced pass."""
    model = subject.flat_model
    inputs_BT = np.random.default_rng(4).integers(EOS + 1, TARGET_VOCAB, (ROWS, LIMIT), np.int32)
    inputs_BT[:, 0] = BOS

    @jax.jit
    def both(params, batch):
        memory = model.encode(params, batch)

        def step(carry, token_B):
            logits_BV, carry = model.step(params, memory, carry, token_B)
            return carry, logits_BV

        _, by_step_TBV = jax.lax.scan(step, model.start(params, memory, LIMIT), batch["decoder_input_tokens"].T)
        return model.decode(params, memory, batch), jnp.moveaxis(by_step_TBV, 0, 1)

    batch = sources([0, 1, 2, 3], SOURCE) | {"decoder_input_tokens": inputs_BT}
    whole_BTV, by_step_BTV = (np.asarray(x)[..., :TARGET_VOCAB] for x in both(subject.flat_params, batch))
    return close(np.abs(by_step_BTV - whole_BTV).max(), what="largest difference of a logit")


@functools.lru_cache(maxsize=2)
def _found(subject: Subject, search, beam: int) -> Hypotheses:
    """What a search finds for the four sentences; asked for by more than one law."""
    run = jax.jit(functools.partial(search, subject.flat_model, SearchOptions(beam, LIMIT)))
    return jax.device_get(run(subject.flat_params, sources([0, 1, 2, 3], SOURCE), LIMITS))


def _teacher_forced(subject: Subject, tokens_BL: np.ndarray) -> np.ndarray:
    """Log-probabilities (B, L, V) before each token, as a search sees them."""
    inputs = np.concatenate([np.full((ROWS, 1), BOS, np.int32), tokens_BL[:, :-1]], 1)
    logits = subject.logits(sources([0, 1, 2, 3], SOURCE) | {"decoder_input_tokens": inputs}).copy()
    logits[..., [PAD, BOS]] = -np.inf
    return np.asarray(jax.nn.log_softmax(logits))


def greedy(subject: Subject) -> Verdict:
    """Greedy search takes the best token of the teacher-forced pass at each step; a beam of one finds the same."""
    found = _found(subject, searching.search, 1)
    one = _found(subject, searching._beam, 1)  # `search` would be greedy
    tokens_BL = found.tokens_BKL[:, 0]
    log_p = _teacher_forced(subject, tokens_BL)
    place_L = np.arange(LIMIT)
    chosen_BL = (tokens_BL != PAD) & (place_L + 1 < LIMITS[:, None])  # at the limit the end is forced
    missed_BL = log_p.max(-1) - np.take_along_axis(log_p, tokens_BL[..., None], -1)[..., 0]
    missed = float(np.where(chosen_BL, missed_BL, 0).max())
    apart_B = np.where((one.tokens_BKL[:, 0] == tokens_BL).all(-1), 0, np.abs(one.scores_BK - found.scores_BK)[:, 0])
    if apart_B.max() > TIE:
        return Verdict(False, f"a beam of one finds another translation, its score {apart_B.max():.1g} away")
    return close(missed, ROUNDING, f"most that a better token was missed by, of {chosen_BL.sum()} chosen")


def beam(subject: Subject) -> Verdict:
    """The score that a beam gives to each of its translations is the teacher-forced pass's."""
    found = _found(subject, searching.search, BEAM)
    worst = 0.0
    for k in range(BEAM):
        tokens_BL = found.tokens_BKL[:, k]
        log_p = np.take_along_axis(_teacher_forced(subject, tokens_BL), tokens_BL[..., None], -1)[..., 0]
        worst = max(worst, float(np.abs(np.where(tokens_BL != PAD, log_p, 0).sum(-1) - found.log_probs_BK[:, k]).max()))
    return close(worst, what="largest difference of a log-probability")


def alone(subject: Subject) -> Verdict:
    """A sentence has the same translations in another batch, in another order, with more padding."""
    rows = [3, 1]
    found = _found(subject, searching.search, BEAM)
    run = jax.jit(functools.partial(searching.search, subject.flat_model, SearchOptions(BEAM, LIMIT + 2)))
    other = jax.device_get(run(subject.flat_params, sources(rows, SOURCE + 4), LIMITS[rows]))
    apart_BK = np.abs(other.scores_BK - found.scores_BK[rows])
    same_BK = (other.tokens_BKL[..., :LIMIT] == found.tokens_BKL[rows]).all(-1)
    if (apart_BK > TIE)[~same_BK].any():
        return Verdict(False, f"{(~same_BK).sum()} of {same_BK.size} translations differ, scores by up to {apart_BK.max():.1g}")
    return close(apart_BK.max(), what="the same translations, largest difference of a score")
