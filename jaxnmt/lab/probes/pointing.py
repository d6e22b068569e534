"""Where a captioner looks when it says a word: the share of its attention inside the true region of the word's thing, on `scenes`.

The true caption is given (teacher forcing), and its words speak of things whose places are known: the boxes around their shapes. A region
of the picture counts as inside if it touches one. A model that looks at all regions alike has the share of regions inside: chance.
"""

from __future__ import annotations

import functools
import math
import pathlib
import statistics
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnmt import Captioning, Run, UserError
from jaxnmt.data import identity, pictures, scenes
from jaxnmt.data.special_tokens import BOS, EOS, UNK
from jaxnmt.data.tokenizer import Tokenizer
from jaxnmt.decoding.alignments import teacher_forced_attention
from jaxnmt.decoding.batches import pad
from jaxnmt.lab import figures
from jaxnmt.lab.options import Pointing
from jaxnmt.models.seq2seq import Seq2Seq
from jaxnmt.parallel.log import say

KINDS = ("count", "size", "colour", "shape")
ROWS = 64
"""Captions that are computed together."""
TITLE = "Attention inside the true region of the word being said ({})"


class Word(NamedTuple):
    """One word of a caption that speaks of a thing.

    Attributes:
        kind: one of KINDS.
        inside: the share of its attention on regions that touch the thing.
        by_pixels: the same, but a region counts by the share of its pixels that are the thing's.
        chance, chance_by_pixels: what both would be if all regions had the same attention.
    """

    kind: str
    inside: float
    by_pixels: float
    chance: float
    chance_by_pixels: float


@functools.cache
def _kinds(language: str) -> dict[str, str]:
    """Return the kind of each word of the embedded captions that speaks of a thing."""
    path = pathlib.Path(scenes.__file__).parent / "words" / f"{language}.toml"
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    return {word: kind for kind in KINDS for phrase in _strings(table[f"{kind}s"]) for word in phrase.split()}


def _strings(table: Any) -> Iterator[str]:
    if isinstance(table, str):
        yield table
    else:
        for value in table.values() if isinstance(table, dict) else table:
            yield from _strings(value)


def kind_of(word: str, language: str) -> str:
    """Return the kind of a word; of French "d'un", what follows the preposition counts."""
    return _kinds(language)[word.rpartition("'")[2]]


def inside(thing: scenes.Thing, task: Captioning) -> tuple[np.ndarray, np.ndarray]:
    """Return for each region of the picture, row by row, whether it touches the thing, and the share of its pixels that are the thing's."""
    side = task.size // task.patch
    pixels = scenes.region(thing, task.size).reshape(side, task.patch, side, task.patch)
    return pixels.any((1, 3)).ravel(), pixels.mean((1, 3)).ravel()


def attention(model: Seq2Seq, params: Any, names: Sequence[str], ids: Sequence[list[int]]) -> list[np.ndarray]:
    """Return the attention (tokens, regions) of given captions of pictures: `seq2seq.source_attention` of the prediction of each token."""
    compute, found = jax.jit(functools.partial(teacher_forced_attention, model)), []
    rows, length = min(ROWS, len(names)), max(map(len, ids))
    for start in range(0, len(names), rows):
        some, vectors = ids[start : start + rows], pictures.read_all(names[start : start + rows], model.task)
        target = pad([[BOS, *each] + [EOS] * (length - len(each)) for each in some], rows, BOS)
        batch = {
            "encoder_input_tokens": pad([[UNK, EOS]] * rows, rows, EOS),
            "encoder_input_vectors": np.concatenate([vectors, np.repeat(vectors[:1], rows - len(some), 0)]),
            "decoder_input_tokens": target,
        }
        weights_BTS = np.asarray(compute(params, batch))
        found += [weights_TS[: len(each)] for weights_TS, each in zip(weights_BTS, some, strict=False)]
    return found


def words(model: Seq2Seq, params: Any, tokenizer: Tokenizer, language: str, split: str, count: int) -> list[Word]:
    """Return the words that speak of a thing, of the first pictures of a split; a word of several tokens has their mean attention.

    Raises:
        UserError: the vocabulary lacks a word, or the model has no attention over the picture.
    """
    shown = [scenes.scene(split, index) for index in range(count)]
    captions = [scenes.caption(each, language) for each in shown]
    ids = tokenizer.encode_target(captions)
    if missing := next((caption for caption, each in zip(captions, ids, strict=True) if UNK in each), ""):
        raise UserError(f'its vocabulary lacks a word of "{missing}": choose another --language, or train it on scenes')
    names, made = [f"scenes/{language}:{split}#{index}" for index in range(count)], []
    for scene, caption, tokens, weights_TS in zip(shown, captions, ids, attention(model, params, names, ids), strict=True):
        _, word_of = tokenizer.target_words(tokens, caption)
        for number, (word, thing) in enumerate(scenes.words(scene, language)):
            if thing:
                touched_S, share_S = inside(thing, model.task)
                weights_S = weights_TS[np.array(word_of) == number].mean(0)
                shares = weights_S[touched_S].sum(), weights_S @ share_S, touched_S.mean(), share_S.mean()
                made.append(Word(kind_of(word, language), *map(float, shares)))
    return made


def measure(runs: Mapping[str, Run], options: Pointing) -> dict[str, list[Word]]:
    """Return the words of each run, by its name.

    Raises:
        UserError: a run does not caption pictures, or has no attention; its language is not one of the embedded captions'.
    """
    found = {}
    for name, run in runs.items():
        task = run.config.task
        if not isinstance(task, Captioning) or task.source != "pictures":
            raise UserError(f"{run.folder} does not caption pictures: train one with `jaxnmt train scenes`")
        language = options.language or identity.languages(run.folder, run.config.data)[1]
        if language not in scenes.LANGUAGES:
            raise UserError(f"--language {language or '(unknown)'}: the captions are in {', '.join(scenes.LANGUAGES)}; choose one of them")
        say(f"{name}: looking at {options.count:,} pictures")
        try:
            found[name] = words(run.model, run.params, run.tokenizer, language, options.split, options.count)
        except UserError as error:
            raise UserError(f"{run.folder}: {error}") from error
    return found


def report(found: Mapping[str, Sequence[Word]], split: str) -> figures.Report:
    """Return a heat map of the shares by run and kind of word, their numbers, and a table."""
    rows: dict[str, dict[str, list[float]]] = {}
    numbers: list[list[Any]] = []
    for name, made in found.items():
        groups = {kind: [word for word in made if word.kind == kind] for kind in KINDS} | {"all": list(made)}
        means = {
            kind: [statistics.fmean(column) for column in list(zip(*group, strict=True))[1:]] for kind, group in groups.items() if group
        }
        numbers += [[name, kind, len(groups[kind]), *each] for kind, each in means.items()]
        rows |= {name: means, f"{name}: chance": {kind: each[2:] for kind, each in means.items()}}
    columns = [*KINDS, "all"]
    inside = [[means.get(kind, [math.nan])[0] for kind in columns] for means in rows.values()]
    title = TITLE.format(split)
    cells = [
        (name, *(f"{100 * share:.1f} %" for share in shares), f"{100 * means['all'][1]:.1f} %")
        for (name, means), shares in zip(rows.items(), inside, strict=True)
    ]
    note = (
        f"{len(next(iter(found.values()))):,} words that speak of a thing. Inside: regions that touch the thing's boxes; "
        "last column: a region counts by the share of its pixels inside. Chance: the same attention on all regions."
    )
    return {
        ".svg": figures.heat_maps({title: figures.Grid(inside, list(rows), columns)}, title, "kind of word", "", 0.0, 1.0),
        ".csv": figures.to_csv(["run", "kind", "words", *Word._fields[1:]], numbers),
    }, figures.Table(title, ("run", *columns, "all, by pixels"), cells, note)
