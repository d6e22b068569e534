"""Contrastive evaluation: does the model prefer the right translation to one with a wrong word, by the distance to the word that decides?
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
from jaxnmt.lab.probes.contrast_pairs import Pair, encoded
from jaxnmt.lab.tables import Table, span
from jaxnmt.models.seq2seq import Batch, Seq2Seq

TITLE = "The right translation preferred to one with a wrong word"
ROWS = 64


class Share(NamedTuple):
    """Pairs of similar distance: their distances and number, how often the right one is preferred, and the interval of that share."""

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
    """Return for each pair whether the right translation has the higher probability, by teacher forcing; False if they are equal."""
    sources, right, wrong = encoded(pairs, tokenizer)
    scores = log_probabilities(model, params, sources + sources, right + wrong)
    return (scores[: len(pairs)] > scores[len(pairs) :]).tolist()


def log_probabilities(model: Seq2Seq, params: Any, sources: Sequence[list[int]], targets: Sequence[list[int]]) -> np.ndarray:
    """Return log p(target with EOS | source) of each pair, float32; ids come without EOS.

    PAD and BOS have probability 0, as in the search.
    """
    score = jax.jit(functools.partial(_score, model))
    found: np.ndarray = np.zeros(len(sources), np.float32)
    order = sorted(range(len(sources)), key=lambda i: (len(sources[i]), len(targets[i])))
    for start in range(0, len(order), ROWS):
        group = order[start : start + ROWS]
        padding: list[list[int]] = [[]] * (padded_rows(len(group), ROWS) - len(group))
        source, target = (_padded([*([*side[i], EOS] for i in group), *padding]) for side in (sources, targets))
        source[len(group) :, 0] = EOS  # rows that only fill the shape
        read = np.concatenate([np.full((len(target), 1), BOS, np.int32), np.where(target == EOS, PAD, target)[:, :-1]], 1)
        scores = score(params, {"encoder_input_tokens": source, "decoder_input_tokens": read}, target)
        found[group] = np.asarray(scores)[: len(group)]
    return found


def _padded(rows: Sequence[Sequence[int]]) -> np.ndarray:
    """Return int32 rows, padded to one of few lengths."""
    array: np.ndarray = np.full((len(rows), bucket(max(map(len, rows)))), PAD, np.int32)
    for i, row in enumerate(rows):
        array[i, : len(row)] = row
    return array


def _score(model: Seq2Seq, params, batch: Batch, target_BT: jax.Array) -> jax.Array:
    logits_BTV = model.decode(params, model.encode(params, batch), batch).at[:, :, jnp.array([PAD, BOS])].set(-jnp.inf)
    log_p_BT = jnp.take_along_axis(jax.nn.log_softmax(logits_BTV), target_BT[..., None], -1)[..., 0]
    return jnp.where(target_BT == PAD, 0.0, log_p_BT).sum(-1)


def by_distance(pairs: Sequence[Pair], right: Sequence[bool]) -> list[Share]:
    """Return shares for distances 0, 1, 2–3, 4–7, 8–15, …; ranges without pairs are left out."""
    groups: dict[int, list[tuple[int, bool]]] = collections.defaultdict(list)
    for pair, found in zip(pairs, right, strict=True):
        groups[pair.distance.bit_length()].append((pair.distance, found))
    shares = []
    for _, members in sorted(groups.items()):
        distances, count, hits = [distance for distance, _ in members], len(members), sum(found for _, found in members)
        shares.append(Share(min(distances), max(distances), statistics.fmean(distances), count, hits, *wilson(hits, count)))
    return shares


def wilson(hits: int, count: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927), which stays between 0 and 1 and suits small counts."""
    share, centre = hits / count, (hits + z * z / 2) / (count + z * z)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return max(0.0, centre - half), min(1.0, centre + half)


def drawn(shares: Mapping[str, Sequence[Share]]) -> str:
    """Return one line per run, as SVG; bands are 95 % intervals (Wilson)."""
    lines = {name: figures.line([(s.mean, s.accuracy, s.low, s.high) for s in each]) for name, each in shares.items()}
    return figures.chart(lines, TITLE, "words between this one and the one that it must agree with", "share preferred (band: 95 %, Wilson)")


def numbers(shares: Mapping[str, Sequence[Share]]) -> str:
    """Return the chart's numbers as CSV."""
    header = ["run", "nearest", "furthest", "mean distance", "pairs", "right", "low", "high", "accuracy"]
    return figures.to_csv(header, ([name, *share, share.accuracy] for name, each in shares.items() for share in each))


def table(shares: Mapping[str, Sequence[Share]]) -> Table:
    """Return the chart's numbers as a table; all runs have the same pairs."""
    cells = [[f"{100 * s.accuracy:.1f} % ({100 * s.low:.0f}–{100 * s.high:.0f})" for s in each] for each in shares.values()]
    first = next(iter(shares.values()))
    rows = [(span(share.nearest, share.furthest), f"{share.pairs:,}", *row) for share, *row in zip(first, *cells, strict=True)]
    return Table(TITLE, ("words between", "pairs", *shares), tuple(rows), "In brackets: 95 % (Wilson).")
