"""A run's word vectors for people: figures, their numbers, and a table of neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxnmt.errors import UserError
from jaxnmt.lab import figures
from jaxnmt.lab.probes import embeddings
from jaxnmt.lab.probes.embeddings import Neighbour, Side, Words
from jaxnmt.lab.tables import Table
from jaxnmt.lab.visualize.record import readable_piece, source_ids
from jaxnmt.run import Run

MAPPED = 40
"""Words of a side that are drawn where none are named."""
LISTED = 10
"""Words whose neighbours are listed where none are named."""
AROUND = 3
"""Neighbours that are drawn around each word that is named."""


class Report(NamedTuple):
    """Files by name, and tables."""

    files: dict[str, str]
    tables: list[Table]


def vectors(run: Run, wanted: Sequence[str], side: Side, count: int) -> Report:
    """Neighbours, the map, and the position vectors where the model has some.

    Args:
        wanted: words; when empty, the most frequent of the run's test sentences.
        count: neighbours of each.

    Raises:
        UserError: a word is unknown; the test sentences cannot be read; the model's vectors are not where ours have them.
    """
    words = Words(run.model, run.params, run.tokenizer, side)
    if wanted:
        chosen = list(dict.fromkeys(wanted))
        own = {token for word in chosen for token in words.ids(word)}
        near = [neighbour for word in chosen for neighbour in words.neighbours(word, AROUND) if neighbour.token not in own]
        around = {_piece(run, each.piece): words.table_VD[each.token] for each in near}
        groups = {"words": {word: words.vector(word) for word in chosen}, "their neighbours": around}
    else:
        groups = {"words": _frequent(run, words, side)}
        chosen = list(groups["words"])[:LISTED]
    points, shares = _map(groups)
    coordinates = ([group, *point] for group, each in points.items() for point in each)
    neighbours = {word: words.neighbours(word, count) for word in chosen}
    files = {
        "map.svg": figures.scatter(points, "Word vectors on their two principal components", *_axes(shares)),
        "map.csv": figures.to_csv(["group", "word", "x", "y"], coordinates),
        "neighbours.csv": figures.to_csv(
            ["word", "neighbour", "cosine"], ([word, near.piece, near.cosine] for word, found in neighbours.items() for near in found)
        ),
    }
    return Report(files | _positions(run), [_neighbour_table(words, neighbours)])


def in_sentences(run: Run, word: str, sentences: Sequence[str]) -> Report:
    """One word's vectors in the first sentence against those in each other one, layer by layer.

    Raises:
        UserError: a sentence is too long, or has not this word.
    """
    found = []
    for sentence in sentences:
        source = source_ids(run.tokenizer, run.config.data.max_length, sentence)
        at = embeddings.occurrence(run.tokenizer, sentence, source, word)
        found.append((embeddings.layers(run.config.model, run.model, run.params, source), at))
    lines = {}
    for sentence, other in zip(sentences[1:], found[1:], strict=True):
        y = embeddings.likeness(*found[0], *other)
        lines[sentence] = figures.Line([float(layer) for layer in range(len(y))], y, y, y)
    title = f"“{word}” in “{sentences[0]}” and in"
    rows = tuple((sentence, *(f"{value:.2f}" for value in line.y)) for sentence, line in lines.items())
    header = ("sentence", "input", *(f"layer {i}" for i in range(1, len(rows[0]) - 1)))
    files = {
        "layers.svg": figures.chart(lines, title, "encoder layer (0: its input)", "cosine of the word's two vectors"),
        "layers.csv": figures.to_csv(
            ["sentence", "layer", "cosine"], ([name, *p] for name, li in lines.items() for p in zip(li.x, li.y, strict=True))
        ),
    }
    return Report(files, [Table(f"Cosine to “{word}” in “{sentences[0]}”", header, rows)])


def _frequent(run: Run, words: Words, side: Side) -> dict[str, np.ndarray]:
    test = run.test_set()
    lines = test.sources if side == "source" else test.targets
    found = embeddings.frequent(lines, words, MAPPED)
    if len(found) < 2:
        raise UserError(f"of the words of {test.name}, fewer than two have three letters or more and are one piece: name some with --words")
    return {word: words.vector(word) for word in found}


def _map(groups: Mapping[str, Mapping[str, np.ndarray]]) -> tuple[dict[str, list[figures.Point]], np.ndarray]:
    """Points by group, and the share of the variance of each axis."""
    xy, shares = embeddings.plane(np.stack([vector for group in groups.values() for vector in group.values()]))
    places = iter(xy.tolist())
    return {name: [figures.Point(word, *next(places)) for word in group] for name, group in groups.items()}, shares


def _axes(shares: np.ndarray) -> list[str]:
    return [f"component {i} ({100 * share:.0f} % of the variance)" for i, share in enumerate(shares, 1)]


def _positions(run: Run) -> dict[str, str]:
    found = embeddings.position_vectors(run.config.model, run.params, run.config.data.max_length)
    if not found:
        return {}
    high = max(float(np.abs(x).max()) for x in found.values())
    grids = {name: figures.Grid(x.tolist()) for name, x in found.items()}
    width = next(iter(found.values())).shape[1]
    rows = ([name, place, *vector] for name, x in found.items() for place, vector in enumerate(x.tolist()))
    return {
        "positions.svg": figures.heat_maps(grids, "Position vectors", "dimension", "position", -high, high),
        "positions.csv": figures.to_csv(["table", "position", *range(width)], rows),
    }


def _neighbour_table(words: Words, found: Mapping[str, Sequence[Neighbour]]) -> Table:
    rows = [
        (word, " ".join(words.split(word)), ", ".join(f"{near.piece} {near.cosine:.2f}" for near in each)) for word, each in found.items()
    ]
    note = "A word of several pieces has the mean of their vectors. Neighbours are pieces too, as the vocabulary has them."
    return Table("Nearest in the vocabulary, by cosine", ("word", "pieces", "neighbours"), tuple(rows), note)


def _piece(run: Run, piece: str) -> str:
    return readable_piece(piece, run.tokenizer.pretokenized)
