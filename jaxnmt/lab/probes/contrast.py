"""Pairs of translations that differ in one word: does the model find the right one likelier, however far back the word is that decides?
(Sennrich 2017, LingEval97; Rios et al. 2017)"""

from __future__ import annotations

import collections
import functools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnmt.data.special_tokens import BOS, EOS, PAD
from jaxnmt.data.tokenizer import Tokenizer
from jaxnmt.decoding.translator import bucket, padded_rows
from jaxnmt.lab import figures
from jaxnmt.lab.probes.contrast_pairs import Pair
from jaxnmt.lab.tables import Table, span
from jaxnmt.models.seq2seq import Batch, Seq2Seq

TITLE = "The right translation preferred to one with a wrong word"
ROWS = 64


class Share(NamedTuple):
    """Pairs of similar distance: how far, how many, in how many the right one is preferred; and the interval around their share."""

    nearest: int
    furthest: int
    mean: float
    pairs: int
    right: int
    low: float
    high: float

    @property
    def accuracy(self) -> float:
        return self.right / self.pairs


def preferred(model: Seq2Seq, params: Any, tokenizer: Tokenizer, pairs: Sequence[Pair]) -> list[bool]:
    """Of each pair whether the right translation has the higher probability, by teacher forcing; not if both have the same."""
    sources = tokenizer.encode_source([pair.source for pair in pairs])
    right, wrong = (tokenizer.encode_target([getattr(pair, side) for pair in pairs]) for side in ("right", "wrong"))
    scores = log_probabilities(model, params, sources + sources, right + wrong)
    return (scores[: len(pairs)] > scores[len(pairs) :]).tolist()


def log_probabilities(model: Seq2Seq, params: Any, sources: Sequence[list[int]], targets: Sequence[list[int]]) -> np.ndarray:
    """log p(target, its end included | source) of each, float32; ids come without EOS.

    As the search has them, PAD and BOS have no share.
    """
    score = jax.jit(functools.partial(_score, model))
    found: np.ndarray = np.zeros(len(sources), np.float32)
    order = sorted(range(len(sources)), key=lambda i: (len(sources[i]), len(targets[i])))
    for start in range(0, len(order), ROWS):
        group = order[start : start + ROWS]
        count = padded_rows(len(group), ROWS)
        lengths = [bucket(max(len(side[i]) for i in group) + 1) for side in (sources, targets)]
        source, read, write = _padding(count, lengths[0]), _padding(count, lengths[1]), _padding(count, lengths[1])
        source[:, 0], read[:, 0] = EOS, BOS  # rows to fill the shape too
        for row, i in enumerate(group):
            source[row, : len(sources[i]) + 1] = [*sources[i], EOS]
            read[row, 1 : len(targets[i]) + 1] = targets[i]
            write[row, : len(targets[i]) + 1] = [*targets[i], EOS]
        scores = score(params, {"encoder_input_tokens": source, "decoder_input_tokens": read}, write)
        found[group] = np.asarray(scores)[: len(group)]
    return found


def _padding(rows: int, length: int) -> np.ndarray:
    return np.full((rows, length), PAD, np.int32)


def _score(model: Seq2Seq, params, batch: Batch, target_BT: jax.Array) -> jax.Array:
    logits_BTV = model.decode(params, model.encode(params, batch), batch).at[:, :, jnp.array([PAD, BOS])].set(-jnp.inf)
    log_p_BT = jnp.take_along_axis(jax.nn.log_softmax(logits_BTV), target_BT[..., None], -1)[..., 0]
    return jnp.where(target_BT == PAD, 0.0, log_p_BT).sum(-1)


def by_distance(pairs: Sequence[Pair], right: Sequence[bool]) -> list[Share]:
    """Shares for distances 0, 1, 2–3, 4–7, 8–15, …, each twice as wide as the last, where there are such pairs."""
    groups: dict[int, list[tuple[int, bool]]] = collections.defaultdict(list)
    for pair, found in zip(pairs, right, strict=True):
        groups[pair.distance.bit_length()].append((pair.distance, found))
    shares = []
    for _, members in sorted(groups.items()):
        distances, count, hits = [distance for distance, _ in members], len(members), sum(found for _, found in members)
        shares.append(Share(min(distances), max(distances), statistics.fmean(distances), count, hits, *wilson(hits, count)))
    return shares


def wilson(hits: int, count: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927), which stays within 0 and 1 and is of use with few pairs too."""
    share, centre = hits / count, (hits + z * z / 2) / (count + z * z)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return max(0.0, centre - half), min(1.0, centre + half)


def drawn(shares: Mapping[str, Sequence[Share]]) -> str:
    """A line for each run, as SVG; bands hold 95 % (Wilson)."""
    lines = {
        name: figures.Line([s.mean for s in each], [s.accuracy for s in each], [s.low for s in each], [s.high for s in each])
        for name, each in shares.items()
    }
    return figures.chart(lines, TITLE, "words between this one and the one that it must agree with", "share preferred (band: 95 %, Wilson)")


def numbers(shares: Mapping[str, Sequence[Share]]) -> str:
    """The chart's numbers, as CSV."""
    header = ["run", "nearest", "furthest", "mean distance", "pairs", "right", "low", "high", "accuracy"]
    return figures.to_csv(header, ([name, *share, share.accuracy] for name, each in shares.items() for share in each))


def table(shares: Mapping[str, Sequence[Share]]) -> Table:
    """The chart's numbers for people; the pairs are the same for all runs."""
    first = next(iter(shares.values()))
    rows = []
    for i, share in enumerate(first):
        cells = (f"{100 * e[i].accuracy:.1f} % ({100 * e[i].low:.0f}–{100 * e[i].high:.0f})" for e in shares.values())
        rows.append((span(share.nearest, share.furthest), f"{share.pairs:,}", *cells))
    return Table(TITLE, ("words between", "pairs", *shares), tuple(rows), "In brackets: 95 % (Wilson).")
