"""A beam search as a tree: which hypothesis grew out of which, what was finished, what was given up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

from jaxnmt.data.special_tokens import EOS, PAD
from jaxnmt.decoding.search import NEVER, Beams

Prefix = tuple[int, ...]


def tree(steps: Iterable[Beams]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Of the beams of one sentence after each step.

    Returns:
        nodes: {parent (-1: before the first token), step (from 0), token, log_prob, live: its rank among the live hypotheses or None,
            finished: its rank among the translations found, or None}, parents first.
        finished: {ids (EOS included), score, log_prob, node}, best first.
    """
    number: dict[Prefix, int] = {(): -1}
    nodes: list[dict[str, Any]] = []

    def node(prefix: Prefix, log_prob: float) -> int:
        if prefix not in number:
            number[prefix] = len(nodes)
            step = len(prefix) - 1
            nodes.append({"parent": number[prefix[:-1]], "step": step, "token": prefix[-1], "log_prob": log_prob, "live": None})
        return number[prefix]

    done: Any = None
    for beams in steps:
        t, live_WT, log_probs_W, done = jax.device_get((beams.t, beams.live_BWT[0], beams.live_log_probs_BW[0], beams.done))
        for prefix, log_prob in _real(live_WT, log_probs_W):
            nodes[node(prefix[:t], log_prob)]["live"] = int(np.flatnonzero(log_probs_W == np.float32(log_prob))[0])
        for prefix, log_prob in _real(done.tokens_BWT[0], done.log_probs_BW[0]):
            node(_ended(prefix), log_prob)
    found = []
    for rank, (prefix, log_prob) in enumerate(_real(done.tokens_BWT[0], done.log_probs_BW[0])):
        at = number[_ended(prefix)]
        found.append({"ids": list(_ended(prefix)), "score": float(done.scores_BW[0, rank]), "log_prob": log_prob, "node": at})
    ranks = {each["node"]: rank for rank, each in enumerate(found)}
    return [each | {"finished": ranks.get(index)} for index, each in enumerate(nodes)], found


def chain(ids: Sequence[int], log_p_T: np.ndarray, score: float) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What greedy search found, as `tree` has it; `ids` end with EOS."""
    total_T, end = np.cumsum(np.asarray(log_p_T, np.float64)).tolist(), len(ids) - 1
    nodes = [
        {
            "parent": t - 1,
            "step": t,
            "token": token,
            "log_prob": total_T[t],
            "live": 0 if t < end else None,
            "finished": None if t < end else 0,
        }
        for t, token in enumerate(ids)
    ]
    return nodes, [{"ids": list(ids), "score": score, "log_prob": total_T[-1], "node": end}]


def _real(tokens_WT: np.ndarray, log_probs_W: np.ndarray) -> list[tuple[Prefix, float]]:
    """The hypotheses among the places of a beam, best first."""
    return [(tuple(row), float(p)) for row, p in zip(tokens_WT.tolist(), log_probs_W, strict=True) if p > NEVER / 2]


def _ended(prefix: Sequence[int]) -> Prefix:
    """Cut after its end token, padding with it."""
    assert PAD not in prefix[: prefix.index(EOS)]
    return tuple(prefix[: prefix.index(EOS) + 1])
