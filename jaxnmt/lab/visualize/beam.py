"""A beam search as a tree: which hypothesis extends which, which are finished, which are dropped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

from jaxnmt.data.special_tokens import EOS
from jaxnmt.decoding.search import NEVER, Beams

Prefix = tuple[int, ...]


def tree(steps: Iterable[Beams]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Build the tree of one sentence's search.

    Args:
        steps: the beams after each step.

    Returns:
        nodes: {parent (-1: before the first token), step (from 0), token, log_prob, live: rank among the live hypotheses or None,
            finished: rank among the finished translations, or None}, parents first.
        finished: {ids (with EOS), score, log_prob, node}, best first.
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
        for prefix, log_prob in _hypotheses(live_WT, log_probs_W):
            nodes[node(prefix[:t], log_prob)]["live"] = int(np.flatnonzero(log_probs_W == np.float32(log_prob))[0])
        finished = [(row[: row.index(EOS) + 1], p) for row, p in _hypotheses(done.tokens_BWT[0], done.log_probs_BW[0])]
        for ids, log_prob in finished:
            node(ids, log_prob)
    scores = done.scores_BW[0].tolist()
    found = [{"ids": list(ids), "score": scores[i], "log_prob": p, "node": number[ids]} for i, (ids, p) in enumerate(finished)]
    ranks = {each["node"]: rank for rank, each in enumerate(found)}
    return [each | {"finished": ranks.get(index)} for index, each in enumerate(nodes)], found


def chain(ids: Sequence[int], log_p_T: np.ndarray, score: float) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the result of greedy search in the form of `tree`; `ids` end with EOS."""
    total_T = np.cumsum(np.asarray(log_p_T, np.float64)).tolist()
    nodes: list[dict[str, Any]] = [
        {"parent": t - 1, "step": t, "token": token, "log_prob": total_T[t], "live": 0, "finished": None} for t, token in enumerate(ids)
    ]
    nodes[-1] |= {"live": None, "finished": 0}
    return nodes, [{"ids": list(ids), "score": score, "log_prob": total_T[-1], "node": len(ids) - 1}]


def _hypotheses(tokens_WT: np.ndarray, log_probs_W: np.ndarray) -> list[tuple[Prefix, float]]:
    """Return the hypotheses among the places of a beam, best first."""
    return [(tuple(row), float(p)) for row, p in zip(tokens_WT.tolist(), log_probs_W, strict=True) if p > NEVER / 2]
