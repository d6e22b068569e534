"""The token cache: each training corpus as flat, memory-mapped token ids with offsets.

    CACHE/KEY/            meta.json, N.source.ids, N.source.offsets, N.target.ids, N.target.offsets  (N: number of the source);
                          vectors.npy with all pictures, whose numbers the source ids are
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
import hashlib
import itertools
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece

from jaxnmt import config
from jaxnmt.data import shards
from jaxnmt.data.cleaning import Reason, clean, rules_of
from jaxnmt.data.corpus import Corpus, Side
from jaxnmt.data.source import Changed, Source
from jaxnmt.data.sources import languages_of, sources_of
from jaxnmt.data.tokenizer import Tokenizer, joiner_of, load_tokenizer, train_tokenizer
from jaxnmt.errors import UserError
from jaxnmt.io import files
from jaxnmt.io.text import decode

Say = Callable[[str], None]
"""Receives one line for the user."""

WAITING = "another process is preparing the same data: waiting for it"
_VECTORS = "vectors.npy"
_FORMAT = 1
"""Increase it when the same text would be prepared differently (cleaning included): older caches are not used then."""


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
            f"vocabulary {_sizes(self.tokenizer)}{' (joint)' if self.tokenizer.joint else ''}; "
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
    texts = [(decode(source), decode(target)) for each in validation for source, target in each.pairs()]
    if texts and not any(target for _, target in texts):
        raise UserError(f"data.validation: the target side of {' '.join(each.name for each in validation)} is empty in every line")
    task = experiment.task
    held_out = 0 if validation else data.held_out
    is_given = (folder / "tokenizer.json").exists()
    with _cache_errors(cache):
        tokenizer = load_tokenizer(folder) if is_given else _tokenizer(experiment, sources, cache, say)
        if experiment.task.is_label and (unseen := tokenizer.unseen([target for _, target in texts])):
            say(f"data.validation: {unseen}")
        cut: dict[str, Any] = {} if experiment.task.pairs else {"cuts": True}
        cut |= {"pictures": [task.source, task.size]} if isinstance(task, config.Captioning) else {}
        key = _key(experiment, sources, tokenizer=tokenizer.fingerprint(), max_length=data.max_length, held_out=held_out, **cut)
        candidates = min(1.0, 8 * held_out / sum(map(len, sources)))
        recipe = shards.Recipe(tokenizer, rules_of(experiment), data.max_length, held_out, candidates, not experiment.task.pairs)
        made = cache / key
        if task.vectors:  # held-out pairs have absolute names: the same pictures in another folder are prepared anew
            made = cache / _key(experiment, [], prepared=key, first=[decode(next(source.pairs())[0]) for source in sources])
        open_made = functools.partial(_open, made, sources, recipe.dtype, task.vectors)
        opened = open_made()
        if opened is None:
            with files.lock(made.with_suffix(".lock"), say, WAITING):
                # Another process may have made it meanwhile.
                if open_made() is None:
                    parts, more = _with_pictures(sources, task, validation) if task.vectors else (sources, None)
                    _make(made, parts, recipe, data.workers, say, more)
            opened = open_made()
        assert opened is not None
        corpora, meta = opened
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
    return prepared


def _with_pictures(sources: list[Source], task: Any, validation: list[Source]) -> tuple[list[Source], Callable[[Path], None]]:
    """Return the sources with numbers of pictures, and what writes the pictures, and the names of those held out, into a cache folder."""
    from jaxnmt.data import pictures

    numbers = pictures.numbers_of(sources)

    def write(folder: Path) -> None:
        pictures.write(folder / _VECTORS, sources, len(numbers), task, validation)
        meta, names = json.loads((folder / "meta.json").read_bytes()), list(numbers)
        meta["held_out"] = [(decode(names[int(number)]), caption) for number, caption in meta["held_out"]]
        files.write(folder / "meta.json", json.dumps(meta))

    return [Changed(source, lambda pair: (b"%d" % numbers[pair[0]], pair[1])) for source in sources], write


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


def _key(experiment: config.Experiment, sources: list[Source], **settings) -> str:
    """Return the fingerprint of what is made from the sources with these settings."""
    texts = [source.fingerprint() for source in sources]
    ingredients = {"format": _FORMAT, "texts": texts, "cleaning": dataclasses.asdict(rules_of(experiment)), **settings}
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()[:32]


def _tokenizer(experiment: config.Experiment, sources: list[Source], cache: Path, say: Say) -> Tokenizer:
    """Return the tokenizer that the settings name, that of the run `init.from`, one trained earlier on the same text, or a new one."""
    options, task = experiment.tokenizer, experiment.task
    labels = {"labels": task.labels} if isinstance(task, config.Classification) else {}
    given, half = _given(experiment), _trains_other_side(experiment)
    pictures = task.vectors
    if labels or pictures or not task.pairs or half:
        options = dataclasses.replace(options, joint=True)  # of one side
    if given:
        options = config.replace(options, normalization=given.normalization)
        whose = f"the {experiment.init.only}'s" if half else "the"
        say(f"{whose} vocabulary is that of {experiment.init.from_}, which tokenizer.vocab_size does not change")
    if (given or options.model) and not (half or labels or pictures):
        return given or train_tokenizer(options, ())
    more: dict[str, Any] = labels | ({"pictures": True} if pictures else {})
    more |= {"given": given.fingerprint(), "only": experiment.init.only} if given else {}
    key = _key(experiment, sources, tokenizer=dataclasses.asdict(options), trainer=sentencepiece.__version__, **more)
    cached = cache / "tokenizers" / key
    with files.lock(cached.with_suffix(".lock"), say, WAITING):
        if (cached / "tokenizer.json").exists():
            return load_tokenizer(cached)
        tokenizer = given if given and not half else _train(experiment, options, sources, say)
        if given and half:
            tokenizer = given.with_target(tokenizer) if experiment.init.only == "encoder" else tokenizer.with_target(given)
        if labels:
            tokenizer = tokenizer.with_labels((decode(label) for source in sources for _, label in source.pairs()), labels["labels"], say)
        if pictures:
            tokenizer = tokenizer.with_pictures()
        tokenizer.save(cached)
        return tokenizer


def _train(experiment: config.Experiment, options: config.Tokenizer, sources: list[Source], say: Say) -> Tokenizer:
    """Return a tokenizer that is trained on the sources, or on the side that `init.from` has no vocabulary for."""
    began, pairs, half = time.monotonic(), min(sum(map(len, sources)), options.max_sentences), _trains_other_side(experiment)
    side = int(experiment.init.only == "encoder")
    sides = shards.SIDES[side] if half else "joint" if options.joint else "separate"
    say(f"training a tokenizer ({options.kind}, {sides}) on {pairs:,} pairs")
    sample: Iterable[tuple[str, str]] = () if options.model else _sample(experiment, sources)
    if half:
        sample = ((pair[side], "") for pair in sample)
    tokenizer = train_tokenizer(options, sample)
    is_smaller = options.vocab_size not in (0, tokenizer.source_vocab_size, tokenizer.target_vocab_size)
    requested = f" ({options.vocab_size:,} were requested)" if is_smaller else ""
    say(f"tokenizer: {_sizes(tokenizer)} tokens{requested}, {time.monotonic() - began:.1f} s")
    return tokenizer


def _trains_other_side(experiment: config.Experiment) -> bool:
    """Return whether only one side's vocabulary is that of `init.from`: two are wanted, and either the encoder or the decoder is taken."""
    kinds = experiment.task.is_label or experiment.tokenizer.joint or not experiment.task.pairs
    return bool(experiment.init.from_) and experiment.init.only != "all" and not kinds


def _given(experiment: config.Experiment) -> Tokenizer | None:
    """Return the tokenizer of the run that `init.from` names; None if it names none.

    Raises:
        UserError: it is missing, or the settings contradict it.
    """
    run, options = experiment.init.from_, experiment.tokenizer
    if not run:
        return None
    given = load_tokenizer(files.to_path(run) / "tokenizer")
    if (options.kind == "words", joiner_of(options)) != (given.pretokenized, given.joiner):
        kind = f"words and tokenizer.joiner to {given.joiner!r}" if given.pretokenized else "unigram"
        raise UserError(f"init.from {run} brings its vocabulary, which tokenizer.kind {options.kind} does not fit: set it to {kind}")
    task = experiment.task
    if given.joint != options.joint and not (task.is_label or task.vectors or _trains_other_side(experiment)):
        brought = "one vocabulary for both sides" if given.joint else "a vocabulary for each side"
        other = ", or init.only to encoder, and the target gets a vocabulary of its own" if given.joint else ""
        raise UserError(f"init.from {run} brings {brought}, and tokenizer.joint is {options.joint}: set it to {given.joint}{other}")
    return given


def _sizes(tokenizer: Tokenizer) -> str:
    """Return the sizes of both vocabularies, or one if they are equal. Pictures have no vocabulary."""
    sizes = (tokenizer.target_vocab_size,) if tokenizer.reads_pictures else (tokenizer.source_vocab_size, tokenizer.target_vocab_size)
    return " and ".join(f"{size:,}" for size in dict.fromkeys(sizes))


def _sample(experiment: config.Experiment, sources: list[Source]) -> Iterator[tuple[str, str]]:
    """Yield about `tokenizer.max_sentences` cleaned pairs, spread evenly over all sources; without targets if these are no other text."""
    both = experiment.task.pairs and not experiment.task.is_label and not experiment.task.vectors
    count, total = experiment.tokenizer.max_sentences, sum(map(len, sources))
    pairs = itertools.chain.from_iterable(source.pairs() for source in sources)
    for index, pair in enumerate(pairs):
        if index * count // total != (index + 1) * count // total:
            cleaned = clean(pair, rules_of(experiment), experiment.tokenizer.normalization)
            if not isinstance(cleaned, Reason):
                yield cleaned if both else (cleaned[experiment.task.vectors], "")


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

    try:
        meta = json.loads((folder / "meta.json").read_bytes())
        vectors = np.load(folder / _VECTORS, mmap_mode="r") if has_vectors else None
        return [Corpus(side(f"{i}.source"), side(f"{i}.target"), source.name, vectors) for i, source in enumerate(sources)], meta
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
