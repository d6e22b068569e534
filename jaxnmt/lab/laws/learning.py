"""Law 5: every model learns a handful of pairs to the letter, and learns to reverse a sequence.

Dropout is off: the question is what a model can learn. Several learning rates are tried, since the right one depends on the width.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import numpy as np

from jaxnmt import config as cfg
from jaxnmt.data.special_tokens import EOS, PAD
from jaxnmt.decoding.search import SearchOptions, search
from jaxnmt.lab.laws.practice import Practice, shape_of
from jaxnmt.lab.laws.subject import (
    FIRST_WORD,
    ROUNDING,
    Pair,
    Subject,
    Verdict,
    WithoutDropout,
    batch_of,
    distance,
    does_not_apply,
    random_pairs,
)
from jaxnmt.models.seq2seq import is_scanned, unstack_layers

RATES = (0.01, 0.003, 0.001, 0.0003)
"""Learning rates, tried in this order until one works."""


def overfit(subject: Subject) -> Verdict:
    """Train on six pairs of two to six words until greedy search returns each target word for word."""
    pairs = random_pairs(6, seed=9)
    batch = batch_of(pairs, [[i] for i in range(6)], 8, 8)
    return _learn(subject, lambda step: batch, pairs, batch, every=50, most=300, needed=1.0)


def reversal(subject: Subject) -> Verdict:
    """Train on sequences of two to four of twelve words (up to three with a fixed vector), and translate some that were not trained on."""
    changed = _order_matters(subject)
    if changed <= ROUNDING:
        return does_not_apply(f"the encoder sees no order: reversing the source changes a logit by {changed:.1g}")
    longest = 3 if getattr(subject.config, "context", "") == "fixed" else 4
    random = np.random.default_rng(0)

    def draw(unseen: bool) -> Pair:
        while True:
            ids = random.integers(FIRST_WORD, FIRST_WORD + 12, random.integers(2, longest + 1)).tolist()
            if (sum(i * 3**n for n, i in enumerate(ids)) % 5 == 0) == unseen:
                return ids, ids[::-1]

    def batch(pairs: list[Pair]) -> dict[str, np.ndarray]:
        return batch_of(pairs, [[i] for i in range(64)], 5, 5)

    unseen = [draw(True) for _ in range(64)]
    return _learn(subject, lambda step: batch([draw(False) for _ in range(64)]), unseen, batch(unseen), every=100, most=1000, needed=0.9)


def _order_matters(subject: Subject) -> float:
    """Return the largest relative change of the logits when the source's words are reversed."""
    pairs = random_pairs(4, seed=2, shortest=4)
    turned = [(source[::-1], target) for source, target in pairs]
    before, after = (subject.logits(batch_of(some, [[0], [1], [2], [3]], 8, 8)) for some in (pairs, turned))
    return distance(after, before)


def _learn(
    subject: Subject, batch: Callable[[int], dict], asked: list[Pair], arrays: dict, every: int, most: int, needed: float
) -> Verdict:
    """Train on `batch(step)` until the share `needed` of the pairs `asked` is translated to the letter.

    Args:
        arrays: the batch of the pairs `asked`.
        every, most: steps between translations, and in all at each learning rate.
    """
    shape = shape_of(arrays)
    changes = {"schedule.learning_rate": 1.0, "schedule.warmup_steps": 20, "training.label_smoothing": 0.0, "training.ema_decay": 0.0}
    practice = Practice(WithoutDropout(subject.model), cfg.replace(subject.experiment, **changes), [shape])
    find = jax.jit(functools.partial(search, subject.flat_model, SearchOptions(1, shape.target + 2)))
    limits: np.ndarray = np.full(shape.rows, shape.target + 2, np.int32)
    best = 0.0
    for rate in RATES:
        state = practice.fresh(rate)
        for step in range(every, most + 1, every):
            state, _ = practice.run(state, map(batch, range(step - every, step)))
            params = jax.jit(unstack_layers)(state.params) if is_scanned(subject.config) else state.params
            tokens = np.asarray(find(params, {"encoder_input_tokens": arrays["encoder_input_tokens"]}, limits).tokens_BWT[:, 0])
            words = [[int(token) for token in row if token not in (PAD, EOS)] for row in tokens]
            right = float(np.mean([found == target for found, (_, target) in zip(words, asked, strict=True)]))
            best = max(best, right)
            if right >= needed:
                return Verdict(True, f"{right:.0%} right after {step} steps at learning rate {rate:g}")
    return Verdict(False, f"{best:.0%} right at best, {needed:.0%} needed, in {most} steps at each of the learning rates {RATES}")
