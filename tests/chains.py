"""A model whose next token depends on the last alone, and every translation of it with its log-probability."""

from __future__ import annotations

import itertools
import math

import jax.numpy as jnp
import numpy as np

from jaxnmt.data.special_tokens import BOS, EOS, PAD, UNK
from jaxnmt.decoding.search import NEVER


class Chain:
    """The next token's logits are the row of a table (V, V) that the last token names; the source counts for nothing."""

    def __init__(self, vocab: int = 6):
        self.target_vocab = vocab

    def encode(self, params, batch, noise=None):
        return jnp.asarray(batch["encoder_input_tokens"])

    def start(self, params, memory, max_length):
        return {"steps": jnp.zeros((memory.shape[0],), jnp.int32)}

    def step(self, params, memory, carry, token_B):
        return params[token_B], {"steps": carry["steps"] + 1}


def table(seed: int, vocab: int = 6, scale: float = 1.5):
    """Return the logits of each token after each other one."""
    return jnp.asarray(np.random.default_rng(seed).standard_normal((vocab, vocab)) * scale, jnp.float32)


def every_translation(params, limit: int, alpha: float = 1.0) -> list[tuple[float, list[int]]]:
    """Return (score, tokens) of every translation of up to `limit` tokens, EOS included, best first."""
    logits = np.asarray(params, np.float64).copy()
    logits[:, [PAD, BOS]] = -np.inf
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    found = []
    for length in range(limit):
        for body in itertools.product(range(UNK, len(logits)), repeat=length):
            tokens = [*body, EOS]
            total = sum(log_p[before, token] for before, token in itertools.pairwise([BOS, *tokens]))
            found.append((total / ((5 + len(tokens)) / 6) ** alpha, tokens))
    return sorted(found, key=lambda pair: -pair[0])


def by_the_book(params, beam, limit, score_of, rank=2, enough=math.inf, shortest=0, gamma=0.0):
    """Beam search in the least words, which stops at the limit, or once `enough` hypotheses have ended.

    Of each step's 2K best continuations the K best that do not end live on. Those that end are finished if they are among the K x `rank`
    best. The continuations of one hypothesis lose `gamma` times their rank, from 0, when the best are chosen.
    """
    logits = np.asarray(params, np.float64).copy()
    logits[:, [PAD, BOS]] = -np.inf
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    live, done = [(0.0, [BOS])], []
    for t in range(1, limit + 1):
        next_words = [word for word in ([EOS, *range(UNK, len(log_p))] if t < limit else [EOS]) if word != EOS or t > shortest]
        families = [sorted(((p + log_p[said[-1], word], [*said, word]) for word in next_words), key=lambda x: -x[0]) for p, said in live]
        ranked = [(p - gamma * place, (p, said)) for family in families for place, (p, said) in enumerate(family)]
        grown = [continuation for _, continuation in sorted(ranked, key=lambda x: -x[0])]
        done += [(score_of(p, t), said[1:]) for p, said in grown[: rank * beam] if said[-1] == EOS]
        if len(done) >= enough:
            break
        live = [(p, said) for p, said in grown if said[-1] != EOS][:beam]
    return sorted(done, key=lambda x: -x[0])


def words(tokens) -> list[int]:
    """Return tokens without padding."""
    return [int(token) for token in tokens if token != PAD]


def padded(phrases, count: int = 4):
    """Return phrases as int32 (phrases, `count`), padded with PAD."""
    return np.array([[*phrase, *[PAD] * (count - len(phrase))] for phrase in phrases], np.int32)


def assert_are(found, row: int, expected: list[tuple[float, list[int]]]) -> None:
    """A sentence's hypotheses are these translations, with their scores, best first. (Equal ones may stand in any order.)"""
    scores = [float(score) for score in found.scores_BW[row] if score > NEVER]
    tokens = [tuple(words(tokens)) for tokens in found.tokens_BWT[row][: len(scores)]]
    of = {tuple(tokens): score for score, tokens in expected}
    assert set(tokens) == set(of) and len(tokens) == len(of)
    np.testing.assert_allclose(scores, [of[each] for each in tokens], rtol=1e-5)
    assert scores == sorted(scores, reverse=True)
