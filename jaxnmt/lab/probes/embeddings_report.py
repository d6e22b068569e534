"""Figures, numbers and tables of a run's word vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxnmt.errors import UserError
from jaxnmt.lab import figures
from jaxnmt.lab.probes import embeddings
from jaxnmt.lab.probes.embeddings import Side, Words
from jaxnmt.lab.tables import Table
from jaxnmt.lab.visualize.record import readable_piece, source_ids
from jaxnmt.run import Run

MAPPED = 40
"""Words of a side to draw if the user names none."""
LISTED = 10
"""Words whose neighbours are listed if the user names none."""
AROUND = 3
"""Neighbours drawn around each word that the user names."""


class Report(NamedTuple):
    """Files by name, and a table."""

    files: dict[str, str]
    table: Table


def vectors(run: Run, wanted: Sequence[str], side: Side, count: int) -> Report:
    """Report neighbours, principal components, and the position vectors if the model has some.

    Args:
        wanted: words; when empty, the most frequent of the run's test sentences.
        count: neighbours of each.

    Raises:
        UserError: a word is unknown; the test sentences cannot be read; the model's vectors are not found.
    """
    words = Words(run.model, run.params, run.tokenizer, side)
    chosen = list(dict.fromkeys(wanted)) or _frequent(run, words, side)
    groups = {"words": {word: words.vector(word) for word in chosen}}
    if wanted:
        own = {token for word in chosen for token in words.ids(word)}
        near = [neighbour for word in chosen for neighbour in words.neighbours(word, AROUND) if neighbour.token not in own]
        shown = {readable_piece(each.piece, run.tokenizer.pretokenized): each.token for each in near}
        groups["their neighbours"] = {piece: words.table_VD[token] for piece, token in shown.items()}
    xy, shares = embeddings.plane(np.stack([vector for group in groups.values() for vector in group.values()]))
    places = iter(xy.tolist())
    points = {name: [figures.Point(word, *next(places)) for word in group] for name, group in groups.items()}
    axes = [f"component {i} ({100 * share:.0f} % of the variance)" for i, share in enumerate(shares, 1)]
    neighbours = {word: words.neighbours(word, count) for word in (chosen if wanted else chosen[:LISTED])}
    files = {
        "map.svg": figures.scatter(points, "Word vectors on their two principal components", *axes),
        "map.csv": figures.to_csv(["group", "word", "x", "y"], ([group, *point] for group, each in points.items() for point in each)),
        "neighbours.csv": figures.to_csv(
            ["word", "neighbour", "cosine"], ([word, near.piece, near.cosine] for word, found in neighbours.items() for near in found)
        ),
    }
    rows = [
        (word, " ".join(words.split(word)), ", ".join(f"{near.piece} {near.cosine:.2f}" for near in found))
        for word, found in neighbours.items()
    ]
    note = "The vector of a word of several pieces is their mean. Neighbours are pieces, as in the vocabulary."
    table = Table("Nearest in the vocabulary, by cosine", ("word", "pieces", "neighbours"), tuple(rows), note)
    return Report(files | _positions(run), table)


def in_sentences(run: Run, word: str, sentences: Sequence[str]) -> Report:
    """Compare one word's vectors in the first sentence with those in each other one, layer by layer.

    Raises:
        UserError: a sentence is too long, or does not have this word.
    """
    found = []
    for sentence in sentences:
        source = source_ids(run.tokenizer, run.config.data.max_length, sentence)
        at = embeddings.occurrence(run.tokenizer, sentence, source, word)
        found.append((embeddings.layers(run.config.model, run.model, run.params, source), at))
    cosines = {sentence: embeddings.likeness(*found[0], *other) for sentence, other in zip(sentences[1:], found[1:], strict=True)}
    lines = {sentence: figures.line([(float(i), y, y, y) for i, y in enumerate(each)]) for sentence, each in cosines.items()}
    title = f"“{word}” in “{sentences[0]}” and in"
    header = ("sentence", "input", *(f"layer {i}" for i in range(1, len(found[0][0]))))
    files = {
        "layers.svg": figures.chart(lines, title, "encoder layer (0: its input)", "cosine of the word's two vectors"),
        "layers.csv": figures.to_csv(
            ["sentence", "layer", "cosine"], ([name, float(i), y] for name, each in cosines.items() for i, y in enumerate(each))
        ),
    }
    rows = tuple((sentence, *(f"{value:.2f}" for value in each)) for sentence, each in cosines.items())
    return Report(files, Table(f"Cosine to “{word}” in “{sentences[0]}”", header, rows))


def _frequent(run: Run, words: Words, side: Side) -> list[str]:
    test = run.test_set()
    found = embeddings.frequent(test.sources if side == "source" else test.targets, words, MAPPED)
    if len(found) < 2:
        raise UserError(f"fewer than two words of {test.name} have three letters or more and are one piece: name some with --words")
    return found


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
