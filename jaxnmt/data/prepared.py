"""The token cache: each training corpus as flat, memory-mapped token ids with offsets.

    CACHE/KEY/            meta.json, N.source.ids, N.source.offsets, N.target.ids, N.target.offsets  (N: number of the source);
                          N.weights if its pairs have weights; vectors.npy with all pictures, whose numbers the source ids are
    CACHE/KEY.parts/      shards, while the folder is being made
    CACHE/tokenizers/KEY/ trained tokenizers
    CACHE/texts/KEY.json  number of pairs and digest of a source's files, kept while the files do not change (`source.StatCache`)

KEY is a fingerprint of the text and the pictures, the tokenizer, the cleaning rules, the maximum length and the held-out rule. A cache
folder is made under another name and renamed, so that it is complete if it exists.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxnmt import config
from jaxnmt.data import shards
from jaxnmt.data.cleaning import rules_of
from jaxnmt.data.corpus import Corpus, Side
from jaxnmt.data.labels import check_numbers
from jaxnmt.data.source import Changed, Source
from jaxnmt.data.sources import described, languages_of, sources_of
from jaxnmt.data.tokenizer import Tokenizer, load_tokenizer
from jaxnmt.data.tokenizer_choice import WAITING, Say, cache_key, choose_tokenizer, sizes_of
from jaxnmt.errors import UserError
from jaxnmt.io import files
from jaxnmt.io.text import decode

_VECTORS = "vectors.npy"


@dataclasses.dataclass(frozen=True)
class Prepared:
    """The data of a training run.

    Attributes:
        train: one corpus for each training source.
        weights: their shares in a mixture, as the user gave them.
        validation: texts of the validation pairs. Characters that break lines are removed, but no pair is dropped.
        report: numbers of pairs: `read`, dropped for each reason, `held out` and `kept`.
        fingerprints: for the run's data.json. "fingerprint" is of the training corpora: text, tokenizer, cleaning rules, maximum length,
            held-out rule.
        languages: codes of source and target, such as "de"; "" if unknown.
    """

    tokenizer: Tokenizer
    train: list[Corpus]
    weights: list[float]
    validation: list[tuple[str, str]]
    report: dict[str, int]
    fingerprints: dict
    languages: tuple[str, str]

    @property
    def is_weighted(self) -> bool:
        """Whether training pairs have weights in the loss."""
        return any(corpus.weights is not None for corpus in self.train)

    def describe(self) -> str:
        """Return one paragraph for the user."""
        dropped = {reason: n for reason, n in self.report.items() if reason not in ("read", "held out", "kept") and n}
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in dropped.items())
        source = sum(len(corpus.source.ids) for corpus in self.train)
        target = sum(len(corpus.target.ids) for corpus in self.train)
        names = [corpus.name for corpus in self.train]
        if len(names) > 1:
            names = [f"{name} (weight {weight:g})" for name, weight in zip(names, self.weights, strict=True)]
        return (
            f"{self.report['kept']:,} training pairs from {', '.join(names)}: {source:,} source and {target:,} target tokens, "
            f"vocabulary {sizes_of(self.tokenizer)}{' (joint)' if self.tokenizer.joint else ''}; "
            f"{self.report['read']:,} pairs read, {sum(dropped.values()):,} dropped{f' ({reasons})' if reasons else ''}; "
            f"{len(self.validation):,} validation pairs{' held out' if self.report['held out'] else ''}."
        )

    def longest(self, corpus: np.ndarray, index: np.ndarray, most: int = 3, width: int = 100) -> list[str]:
        """Return the longest of the training pairs `index[i]` of corpus `corpus[i]` as text, `name: source => target`.

        Args:
            most: number of pairs to return.
            width: characters after which a side is cut.
        """
        pairs = [(self.train[k], i) for k, i in zip(corpus.tolist(), index.tolist(), strict=True)]
        pairs.sort(key=lambda pair: -len(pair[0].source[pair[1]]) - len(pair[0].target[pair[1]]))

        def cut(text: str) -> str:
            return text if len(text) <= width else f"{text[: width - 1]}…"

        texts = ((c.name, self.tokenizer.decode_source(c.source[i]), self.tokenizer.decode_target(c.target[i])) for c, i in pairs[:most])
        return [f"{name}: {cut(source)} => {cut(target)}" for name, source, target in texts]


def prepare(experiment: config.Experiment, tokenizer_folder: str | os.PathLike[str], say: Say = print) -> Prepared:
    """Read, clean and tokenise the training pairs, or open what an earlier call has prepared from the same text.

    If a call is killed, the next one resumes it. If several processes call it, one works and the others wait.

    Args:
        experiment: only `task`, `init`, `data` and `tokenizer` are used.
        tokenizer_folder: the run's. A tokenizer in it is used. Otherwise one is trained or loaded, and saved there.
        say: receives lines for the user.

    Raises:
        UserError: a source is missing or bad, no pair is left to train on, or the disk is full.
    """
    data = experiment.data
    cache, folder = cache_folder(data), files.to_path(tokenizer_folder)
    sources, validation = sources_of(experiment, "train", cache), sources_of(experiment, "validation", cache)
    if not sources:
        raise UserError("data.train names no source: give two aligned files, a .tsv file or a dataset")
    for line in described([*sources, *validation]):
        say(line)
    texts = [(decode(source), decode(target)) for each in validation for source, target in each.pairs()]
    if texts and not any(target for _, target in texts):
        raise UserError(f"data.validation: the target side of {' '.join(each.name for each in validation)} is empty in every line")
    is_given = (folder / "tokenizer.json").exists()
    if isinstance(experiment.task, config.Classification) and experiment.task.labels == "number":
        check_numbers(validation)
        check_numbers(sources, drops_empty=True)
    with _cache_errors(cache):
        tokenizer = load_tokenizer(folder) if is_given else choose_tokenizer(experiment, sources, cache, say)
        if experiment.task.is_label and (unseen := tokenizer.unseen([target for _, target in texts])):
            say(f"data.validation: {unseen}")
        key, corpora, meta = _corpora(experiment, tokenizer, sources, validation, cache, say)
    if experiment.task.is_label and (rare := tokenizer.rare(_counts(corpora, tokenizer.target_vocab_size))):
        say(f"data.train: {rare}")
    if not is_given:
        tokenizer.save(folder)
    languages = languages_of(data, [*validation, *sources])
    prepared = Prepared(
        tokenizer=tokenizer,
        train=corpora,
        weights=[source.weight for source in sources],
        validation=texts or [(source, target) for source, target in meta["held_out"]],
        report=meta["report"],
        fingerprints={
            "fingerprint": key,
            "tokenizer": tokenizer.fingerprint(),
            "train": [_record(source, len(corpus)) | {"weight": source.weight} for source, corpus in zip(sources, corpora, strict=True)],
            "validation": [_record(source, len(source)) for source in validation],
            "report": meta["report"],
            "languages": languages,
        },
        languages=languages,
    )
    say(prepared.describe())
    for corpus in corpora:
        if corpus.weights is not None:
            low, mean, high = (float(each(corpus.weights)) for each in (np.min, np.mean, np.max))
            say(f"{corpus.name}: pairs weigh {low:g} to {high:g} in the loss, {mean:.3g} on average")
    return prepared


def _corpora(
    experiment: config.Experiment, tokenizer: Tokenizer, sources: list[Source], validation: list[Source], cache: Path, say: Say
) -> tuple[str, list[Corpus], dict[str, Any]]:
    """Open the token cache of the training sources, or make it. Returns its fingerprint, the corpora, and its `meta.json`."""
    data, task, held_out = experiment.data, experiment.task, 0 if validation else experiment.data.held_out
    settings: dict[str, Any] = {} if task.pairs else {"cuts": True}
    settings |= {"pictures": [task.source, task.size]} if isinstance(task, config.Captioning) else {}
    key = cache_key(experiment, sources, tokenizer=tokenizer.fingerprint(), max_length=data.max_length, held_out=held_out, **settings)
    candidates = min(1.0, 8 * held_out / sum(map(len, sources)))
    recipe = shards.Recipe(tokenizer, rules_of(experiment), data.max_length, held_out, candidates, not task.pairs)
    made = cache / key
    if task.vectors:  # held-out pairs have absolute names: the same pictures in another folder are prepared again
        made = cache / cache_key(experiment, [], prepared=key, first=[decode(next(source.pairs())[0]) for source in sources])
    open_made = functools.partial(_open, made, sources, recipe.dtype, task.vectors)
    if isinstance(task, config.Captioning):  # validation is not in the cache: a damaged picture must be found before training
        from jaxnmt.data import pictures

        pictures.check(validation, task)
    opened = open_made()
    if opened is None:
        with files.lock(made.with_suffix(".lock"), say, WAITING):
            # Another process may have made it meanwhile.
            if open_made() is None:
                parts, more = _with_pictures(sources, task) if task.vectors else (sources, None)
                _make(made, parts, recipe, data.workers, say, more)
        opened = open_made()
    assert opened is not None
    return key, *opened


def _with_pictures(sources: list[Source], task: Any) -> tuple[list[Source], Callable[[Path], None]]:
    """Return the sources with numbers of pictures, and what writes the pictures, and the names of those held out, into a cache folder."""
    from jaxnmt.data import pictures

    numbers = pictures.numbers_of(sources)

    def write(folder: Path) -> None:
        pictures.write(folder / _VECTORS, sources, len(numbers), task)
        meta, names = json.loads((folder / "meta.json").read_bytes()), list(numbers)
        meta["held_out"] = [(decode(names[int(number)]), caption) for number, caption in meta["held_out"]]
        files.write(folder / "meta.json", json.dumps(meta))

    return [Changed(source, lambda pair: (b"%d" % numbers[pair[0]], pair[1])) for source in sources], write


def _counts(corpora: Sequence[Corpus], size: int) -> np.ndarray:
    """Return how often each id is in the targets, (size,)."""
    return np.sum([np.bincount(corpus.target.ids, minlength=size) for corpus in corpora], 0)


def _record(source: Source, pairs: int) -> dict:
    return {"name": source.name, "fingerprint": source.fingerprint(), "pairs": pairs}


@contextlib.contextmanager
def _cache_errors(cache: Path) -> Iterator[None]:
    """Turn the errors of a cache that is full or cannot be written into UserErrors."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise
        raise UserError(f"data.cache: {error.filename or cache} cannot be written ({error.strerror}): name another folder") from error


def cache_folder(data: config.Data) -> Path:
    """Return `data.cache`, or $JAXNMT_CACHE, or ~/.cache/jaxnmt.

    Raises:
        UserError: the folder is in a bucket, or there is no home folder.
    """
    folder = data.cache or os.environ.get("JAXNMT_CACHE") or "~/.cache/jaxnmt"
    if files.in_bucket(folder):
        raise UserError(f"data.cache {folder} must be a local folder, because it is memory-mapped")
    try:
        return Path(folder).expanduser()
    except RuntimeError:
        raise UserError(f"data.cache: there is no home folder for {folder}; set data.cache, $JAXNMT_CACHE or $HOME") from None


def _open(folder: Path, sources: Sequence[Source], dtype: type, has_vectors: bool) -> tuple[list[Corpus], dict[str, Any]] | None:
    """Return the corpora of a cache folder and its `meta.json`; None if files are missing or cut off, as on a cleaned scratch disk."""

    def mapped(file: str, dtype: type) -> np.ndarray:
        # Slices of a memmap are ten times slower.
        return np.memmap(folder / file, dtype, "r").view(np.ndarray)

    def side(name: str) -> Side:
        found = Side(mapped(f"{name}.ids", dtype), mapped(f"{name}.offsets", np.int64))
        if found.offsets[-1] != len(found.ids):
            raise ValueError(f"{folder}: {name} was cut off")
        return found

    def weights(i: int, source: Source) -> np.ndarray | None:
        if source.pair_weights() is None:
            return None
        found = mapped(f"{i}.weights", np.float32)
        if len(found) != len(side(f"{i}.source")):
            raise ValueError(f"{folder}: {i}.weights was cut off")
        return found

    try:
        meta = json.loads((folder / "meta.json").read_bytes())
        vectors = np.load(folder / _VECTORS, mmap_mode="r") if has_vectors else None
        return [
            Corpus(side(f"{i}.source"), side(f"{i}.target"), source.name, vectors, weights(i, source)) for i, source in enumerate(sources)
        ], meta
    except (FileNotFoundError, ValueError):
        return None


def _make(folder: Path, sources: list[Source], recipe: shards.Recipe, workers: int, say: Say, more: Callable[[Path], None] | None) -> None:
    """Make a cache folder: write shards, then merge them; `more` writes what else belongs into it. The caller holds the lock."""
    began, total = time.monotonic(), sum(map(len, sources))
    parts = folder.with_name(f"{folder.name}.parts")
    merged = parts / "merged"
    parts.mkdir(exist_ok=True)
    say(f"reading and tokenising {total:,} pairs")
    shards.make_shards(sources, parts, recipe, workers, say)
    for leftover in (merged, folder):
        shutil.rmtree(leftover, ignore_errors=True)
    merged.mkdir()
    shards.merge(merged, sources, parts, recipe)
    if more:
        more(merged)
    files.replace(merged, folder)
    shutil.rmtree(parts, ignore_errors=True)
    seconds = time.monotonic() - began
    say(f"prepared {total:,} pairs in {seconds:.1f} s ({total / seconds:,.0f} a second) in {folder}")
