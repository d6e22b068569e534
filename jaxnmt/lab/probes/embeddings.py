"""Word vectors: nearest neighbours (Mikolov et al. 2013), principal components, position vectors (Gehring et al. 2017; Vaswani et al. 2017,
section 3.5), and the contextual vectors of a word, layer by layer (Peters et al. 2018)."""

from __future__ import annotations

import collections
import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from jaxnmt import Run, UserError
from jaxnmt.data.special_tokens import UNK
from jaxnmt.data.tokenizer import Tokenizer
from jaxnmt.data.vocabulary import SPACER, SPECIAL
from jaxnmt.lab import figures
from jaxnmt.lab.visualize.record import readable_piece, source_ids
from jaxnmt.models.cells import RecurrentLayer
from jaxnmt.models.encoder_decoder import EncoderDecoder
from jaxnmt.models.layers import sinusoids
from jaxnmt.models.recurrent_encoder import reverse_sequence
from jaxnmt.models.seq2seq import Seq2Seq

MAPPED = 40
"""Words of a side to draw if the user names none."""
LISTED = 10
"""Words whose neighbours are listed if the user names none."""
AROUND = 3
"""Neighbours drawn around each word that the user names."""

Side = Literal["source", "target"]
_LAYER = re.compile(r"encoder/layer_(\d+)")


class Neighbour(NamedTuple):
    """A piece of the vocabulary: its id, its text, and its cosine similarity to a word."""

    token: int
    piece: str
    cosine: float


class Words:
    """One side's vocabulary and its vectors.

    Raises:
        UserError: the model is one of the user's own, and not an EncoderDecoder.
    """

    def __init__(self, model: Seq2Seq, params: Any, tokenizer: Tokenizer, side: Side) -> None:
        if not isinstance(model.module, EncoderDecoder):
            raise UserError(f"{type(model.module).__name__} is not an EncoderDecoder of jaxnmt: its word vectors are not found")
        name = f"embed_{side}"
        self.table_VD = np.asarray(model.module.apply({"params": params}, method=lambda module: getattr(module, name).table), np.float32)
        self.table_VD = self.table_VD[: getattr(tokenizer, f"{side}_vocab_size")]  # the rest is padding
        self._encode, self._pieces = getattr(tokenizer, f"encode_{side}"), getattr(tokenizer, f"{side}_pieces")

    def ids(self, word: str) -> list[int]:
        """Return the ids of a word's pieces.

        Raises:
            UserError: the vocabulary does not have the word.
        """
        ids = self._encode([word])[0]
        if not ids or UNK in ids:
            raise UserError(f"the run's vocabulary does not have {word or 'an empty word'!r}: choose another word")
        return ids

    def known(self, word: str) -> bool:
        """Return whether a word is one piece."""
        ids = self._encode([word])[0]
        return len(ids) == 1 and ids[0] != UNK

    def split(self, word: str) -> list[str]:
        """Return a word's pieces, as in the vocabulary."""
        return self._pieces(self.ids(word))

    def vector(self, word: str) -> np.ndarray:
        """Return a word's vector, (D,): the mean of its pieces'."""
        return self.table_VD[self.ids(word)].mean(0)

    def neighbours(self, word: str, count: int) -> list[Neighbour]:
        """Return the nearest pieces of the vocabulary, other than the word's own."""
        cosine_V = cosines(self.table_VD, self.vector(word))
        cosine_V[[*range(len(SPECIAL)), *self.ids(word)]] = -np.inf
        nearest = np.argsort(-cosine_V, kind="stable")[: min(count, int(np.isfinite(cosine_V).sum()))].tolist()
        return [Neighbour(index, piece, float(cosine_V[index])) for index, piece in zip(nearest, self._pieces(nearest), strict=True)]


def cosines(vectors_ND: np.ndarray, vector_D: np.ndarray) -> np.ndarray:
    """Return cosine similarities, (N,); 0 where one of the two vectors is zero."""
    norms = np.linalg.norm(vectors_ND, axis=-1) * np.linalg.norm(vector_D)
    return vectors_ND @ vector_D / np.where(norms > 0, norms, np.inf)


def frequent(lines: Sequence[str], words: Words, count: int) -> list[str]:
    """Return the most frequent words of a text with three letters or more that are one piece each; of equally frequent ones the first."""
    tally = collections.Counter(word for line in lines for word in re.findall(rf"{SPACER}?[^\W\d_]{{3,}}", line))
    return [word for word, _ in tally.most_common() if words.known(word)][:count]


def plane(vectors_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first two principal components: coordinates (N, 2), and each one's share of the variance.

    The sign of a component is arbitrary; it is chosen so that its largest coordinate is positive.
    """
    centred = vectors_ND - vectors_ND.mean(0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    xy = u[:, :2] * s[:2]
    xy = xy * np.where(xy[np.abs(xy).argmax(0), range(xy.shape[1])] < 0, -1, 1)
    return xy, s[:2] ** 2 / max(float((s**2).sum()), 1e-12)


def position_vectors(config: Any, params: Any, length: int) -> dict[str, np.ndarray]:
    """Return the vectors added to word vectors at the first `length` positions, (length, D), by name; empty if the model has none."""
    positions = getattr(config, "positions", "none")
    if positions in ("sinusoidal", "fairseq"):
        return {positions: sinusoids(length, config.emb_dim, positions)}
    sides = ("encoder", "decoder") if positions == "learned" else ()
    return {f"learned, {side}": np.asarray(params[f"{side}_positions"]["table"][:length], np.float32) for side in sides}


def layers(config: Any, model: Seq2Seq, params: Any, source: Sequence[int]) -> list[np.ndarray]:
    """Return a sentence's vectors in the encoder, (S, D) each: the input of the first layer, then the output of each layer.

    The last is the decoder's input (in a pre-norm Transformer it is normalized). Each is captured as the argument of the next layer
    (`encoder/layer_1`, …).

    Args:
        source: a sentence's ids, with EOS.

    Raises:
        UserError: the encoder is one of the user's own, and its memory has no states.
    """
    tokens_BS = jnp.asarray([source], jnp.int32)
    found: dict[int, Any] = {}

    def tap(call, args, kwargs, context):
        if context.method_name == "__call__" and (layer := _LAYER.fullmatch("/".join(context.module.path))):
            x = args[0]
            if isinstance(context.module, RecurrentLayer):
                x = jnp.moveaxis(reverse_sequence(x, (tokens_BS > 0).T) if config.reverse_source else x, 0, 1)
            found[int(layer[1])] = x
        return call(*args, **kwargs)

    with nn.intercept_methods(tap):
        memory = model.encode(params, {"encoder_input_tokens": tokens_BS})
    if not hasattr(memory, "states_BSD"):
        raise UserError(f"the memory of {type(model.module).__name__} has no states_BSD: vectors of its encoder are not found")
    if not found:  # a bag of words has no such layers
        found[0] = model.module.apply({"params": params}, method=lambda module: module.embed_source(tokens_BS, module.dtype))
    return [np.asarray(x[0], np.float32) for x in [*(x for _, x in sorted(found.items())), memory.states_BSD]]


def occurrence(tokenizer: Tokenizer, sentence: str, source: Sequence[int], word: str) -> list[int]:
    """Return the positions of a word's pieces in a sentence, at its first occurrence. Case and punctuation around it are ignored.

    Raises:
        UserError: the sentence does not have the word.
    """
    words, word_of = tokenizer.source_words(sentence, list(source[:-1]))
    pieces = tokenizer.source_pieces(source[:-1])
    for number, found in enumerate(words):
        if re.sub(r"^\W+|\W+$", "", found).lower() == word.lower():
            return [place for place, of in enumerate(word_of) if of == number and any(letter.isalnum() for letter in pieces[place])]
    raise UserError(f"the sentence {sentence!r} does not have the word {word!r}: change --word or --sentences")


def likeness(first: Sequence[np.ndarray], at: Sequence[int], other: Sequence[np.ndarray], there: Sequence[int]) -> list[float]:
    """Return the cosine similarity of a word's vectors in two sentences, layer by layer; the vector of several pieces is their mean."""
    means = [(a[list(at)].mean(0), b[list(there)].mean(0)) for a, b in zip(first, other, strict=True)]
    return [float(cosines(a[None], b)[0]) for a, b in means]


def vectors(run: Run, wanted: Sequence[str], side: Side, count: int) -> figures.Report:
    """Report neighbours, principal components, and the position vectors if the model has some.

    Args:
        wanted: words; when empty, the most frequent of the run's test sentences.
        count: neighbours of each.

    Raises:
        UserError: a word is unknown; the test sentences cannot be read; the model's vectors are not found.
    """
    words = Words(run.model, run.params, run.tokenizer, side)
    chosen, listed = list(dict.fromkeys(wanted)), len(wanted)
    if not wanted:
        test, listed = run.test_set(), LISTED
        chosen = frequent(test.sources if side == "source" else test.targets, words, MAPPED)
        if len(chosen) < 2:
            raise UserError(f"fewer than two words of {test.name} have three letters or more and are one piece: name some with --words")
    groups = {"words": {word: words.vector(word) for word in chosen}}
    if wanted:
        own = {token for word in chosen for token in words.ids(word)}
        near = [neighbour for word in chosen for neighbour in words.neighbours(word, AROUND) if neighbour.token not in own]
        pieces = [readable_piece(each.piece, run.tokenizer.pretokenized) for each in near]
        groups["their neighbours"] = {piece: words.table_VD[each.token] for piece, each in zip(pieces, near, strict=True)}
    xy, shares = plane(np.stack([vector for group in groups.values() for vector in group.values()]))
    places = iter(xy.tolist())
    points = {name: {word: next(places) for word in group} for name, group in groups.items()}
    axes = [f"component {i} ({100 * share:.0f} % of the variance)" for i, share in enumerate(shares, 1)]
    mapped = ([group, word, *place] for group, each in points.items() for word, place in each.items())
    rows, neighbours = [], []
    for word in chosen[:listed]:
        found = words.neighbours(word, count)
        neighbours += [(word, near.piece, near.cosine) for near in found]
        rows.append((word, " ".join(words.split(word)), ", ".join(f"{near.piece} {near.cosine:.2f}" for near in found)))
    files = {
        "map.svg": figures.scatter(points, "Word vectors on their two principal components", *axes),
        "map.csv": figures.to_csv(["group", "word", "x", "y"], mapped),
        "neighbours.csv": figures.to_csv(["word", "neighbour", "cosine"], neighbours),
    }
    note = "The vector of a word of several pieces is their mean. Neighbours are pieces, as in the vocabulary."
    table = figures.Table("Nearest in the vocabulary, by cosine", ("word", "pieces", "neighbours"), rows, note)
    return files | _positions(run), table


def in_sentences(run: Run, word: str, sentences: Sequence[str]) -> figures.Report:
    """Compare one word's vectors in the first sentence with those in each other one, layer by layer.

    Raises:
        UserError: a sentence is too long, or does not have this word.
    """
    found = []
    for sentence in sentences:
        source = source_ids(run.tokenizer, run.config.data.max_length, sentence)
        at = occurrence(run.tokenizer, sentence, source, word)
        found.append((layers(run.config.model, run.model, run.params, source), at))
    alike = {sentence: likeness(*found[0], *other) for sentence, other in zip(sentences[1:], found[1:], strict=True)}
    lines = {sentence: figures.line([(float(i), y, y, y) for i, y in enumerate(each)]) for sentence, each in alike.items()}
    numbers = ([sentence, float(i), y] for sentence, each in alike.items() for i, y in enumerate(each))
    title = f"“{word}” in “{sentences[0]}” and in"
    header = ("sentence", "input", *(f"layer {i}" for i in range(1, len(found[0][0]))))
    files = {
        "layers.svg": figures.chart(lines, title, "encoder layer (0: its input)", "cosine of the word's two vectors"),
        "layers.csv": figures.to_csv(["sentence", "layer", "cosine"], numbers),
    }
    rows = tuple((sentence, *(f"{value:.2f}" for value in each)) for sentence, each in alike.items())
    return files, figures.Table(f"Cosine to “{word}” in “{sentences[0]}”", header, rows)


def _positions(run: Run) -> dict[str, str]:
    found = position_vectors(run.config.model, run.params, run.config.data.max_length)
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
