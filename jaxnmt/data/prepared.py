"""The token cache: each training corpus as flat, memory-mapped token ids with offsets.

    CACHE/KEY/            meta.json, N.source.ids, N.source.offsets, N.target.ids, N.target.offsets  (N: number of the source)
    CACHE/KEY.parts/      shards, while it is being made
    CACHE/tokenizers/KEY/ trained tokenizers
    CACHE/texts/KEY.json  pairs and digest of a source's files, and what tells whether these have changed (`stat_cache`)

KEY is a fingerprint of the text, the tokenizer, the cleaning, the maximum length and the held-out rule. A cache folder is
made under another name and renamed, so that it is whole if it is there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import hashlib
import json
import os
import shutil
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import sentencepiece
from etils import epath

from jaxnmt import config
from jaxnmt.data import shards
from jaxnmt.data.cleaning import Reason, clean
from jaxnmt.data.merge import merge
from jaxnmt.data.source import Source
from jaxnmt.data.sources import languages_of, open_sources
from jaxnmt.data.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from jaxnmt.errors import UserError
from jaxnmt.io import whole_files
from jaxnmt.io.lines import decode
from jaxnmt.io.locks import Say, locked

_FORMAT = 1
"""Raise when the same text would be prepared differently (cleaning included): older caches are not used then."""


class Corpus:
    """Token ids of one source's pairs, without end tokens, memory-mapped.

    Attributes:
        source_ids, target_ids: all ids in a row, uint16 or uint32.
        source_offsets, target_offsets: where each pair starts, and the end; int64 (n + 1,).
    """

    def __init__(self, folder: Path, number: int, name: str, dtype: str, pairs: int, tokens: Sequence[int]) -> None:
        self.name = name

        def mapped(file: str, kind: str, length: int) -> np.ndarray:
            path = folder / f"{number}.{file}"
            if path.stat().st_size != length * np.dtype(kind).itemsize:
                raise ValueError(f"{path} has the wrong size")
            return np.memmap(path, kind, "r", shape=(length,)).view(np.ndarray)  # a memmap's own slices are ten times slower

        self.source_ids, self.target_ids = (mapped(f"{side}.ids", dtype, n) for side, n in zip(("source", "target"), tokens, strict=True))
        self.source_offsets, self.target_offsets = (mapped(f"{side}.offsets", "int64", pairs + 1) for side in ("source", "target"))

    def __len__(self) -> int:
        return len(self.source_offsets) - 1

    @functools.cached_property
    def source_lengths(self) -> np.ndarray:
        """Tokens of each source sentence, the end token not counted; int32 (n,)."""
        return np.diff(self.source_offsets).astype(np.int32)

    @functools.cached_property
    def target_lengths(self) -> np.ndarray:
        """Tokens of each target sentence, the end token not counted; int32 (n,)."""
        return np.diff(self.target_offsets).astype(np.int32)

    def source(self, index: int) -> np.ndarray:
        """Source ids of a pair, a view of the mapped file."""
        return self.source_ids[self.source_offsets[index] : self.source_offsets[index + 1]]

    def target(self, index: int) -> np.ndarray:
        """Target ids of a pair, a view of the mapped file."""
        return self.target_ids[self.target_offsets[index] : self.target_offsets[index + 1]]


@dataclasses.dataclass(frozen=True)
class Prepared:
    """All that training needs of its data.

    Attributes:
        train: one corpus for each training source.
        weights: their shares in a mixture, as the user gave them.
        validation: texts of the validation pairs, cleaned of what would break a line, never dropped.
        report: pairs `read`, dropped for each reason, `held out` and `kept`.
        fingerprint: of the training corpora: text, tokenizer, cleaning, maximum length, held-out rule.
        fingerprints: for the run's data.json.
        languages: codes of source and target, such as "de"; "" if unknown.
    """

    tokenizer: Tokenizer
    train: list[Corpus]
    weights: list[float]
    validation: list[tuple[str, str]]
    report: dict[str, int]
    fingerprint: str
    fingerprints: dict
    languages: tuple[str, str]

    def describe(self) -> str:
        """One paragraph for people."""
        dropped = {reason: n for reason, n in self.report.items() if reason not in ("read", "held out", "kept") and n}
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in dropped.items())
        tokens = [sum(len(getattr(corpus, ids)) for corpus in self.train) for ids in ("source_ids", "target_ids")]
        sizes = dict.fromkeys((self.tokenizer.source_vocab_size, self.tokenizer.target_vocab_size))
        names = ", ".join(
            f"{c.name} (weight {w:g})" if len(self.train) > 1 else c.name for c, w in zip(self.train, self.weights, strict=True)
        )
        return (
            f"{self.report['kept']:,} training pairs from {names}: {tokens[0]:,} source and {tokens[1]:,} target tokens, "
            f"vocabulary {' and '.join(f'{size:,}' for size in sizes)}{' (joint)' if self.tokenizer.joint else ''}; "
            f"{self.report['read']:,} pairs read, {sum(dropped.values()):,} dropped{f' ({reasons})' if reasons else ''}; "
            f"{len(self.validation):,} validation pairs{' held out' if self.report['held out'] else ''}."
        )

    def longest(self, corpus: np.ndarray, index: np.ndarray, most: int = 3, width: int = 100) -> list[str]:
        """Pairs in words, `name: source => target`: of the training pairs `index[i]` of corpus `corpus[i]` the longest, each side cut to
        `width` characters."""
        pairs = [(self.train[k], i) for k, i in zip(corpus.tolist(), index.tolist(), strict=True)]
        pairs.sort(key=lambda pair: -len(pair[0].source(pair[1])) - len(pair[0].target(pair[1])))

        def cut(text: str) -> str:
            return text if len(text) <= width else f"{text[: width - 1]}…"

        texts = ((c.name, self.tokenizer.decode_source(c.source(i)), self.tokenizer.decode_target(c.target(i))) for c, i in pairs[:most])
        return [f"{name}: {cut(source)} => {cut(target)}" for name, source, target in texts]


def prepare(experiment: config.Experiment, tokenizer_folder: epath.PathLike, say: Say = print) -> Prepared:
    """Reads, cleans and tokenises the training pairs, or opens what an earlier call made of the same text.

    A killed call is resumed by the next one. Several processes may call it at once: one works, the others wait.

    Args:
        experiment: `data` and `tokenizer` are looked at.
        tokenizer_folder: the run's; a tokenizer found there is used, else one is trained (or given) and kept there.
        say: gets lines for people.

    Raises:
        UserError: no or bad sources, nothing left to train on, disk full.
    """
    data = experiment.data
    if not data.train:
        raise UserError("data.train names no source: give two aligned files, a .tsv file or a dataset")
    cache, folder = cache_folder(data), epath.Path(tokenizer_folder)
    sources = open_sources(data.train, "data.train", cache)
    validation = open_sources(data.validation, "data.validation", cache)
    with _cache_errors(cache):
        cache.mkdir(parents=True, exist_ok=True)
        tokenizer = _tokenizer(experiment, sources, folder, cache, say)
    if not (folder / "tokenizer.json").exists():
        tokenizer.save(folder)
    with _cache_errors(cache):
        return _prepare(data, sources, validation, tokenizer, cache, say)


@contextlib.contextmanager
def _cache_errors(cache: Path) -> Iterator[None]:
    """A cache that is full or cannot be written is the user's to mend: one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"the disk is full: free some space, or set data.cache to another folder than {cache}; then start again"
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise UserError(f"data.cache: {error.filename or cache} cannot be written ({error.strerror}): name another folder") from error
        raise


def cache_folder(data: config.Data) -> Path:
    """`data.cache`, or $JAXNMT_CACHE, or ~/.cache/jaxnmt.

    Raises:
        UserError: it is not local, or there is no home folder.
    """
    folder = data.cache or os.environ.get("JAXNMT_CACHE") or "~/.cache/jaxnmt"
    if whole_files.in_bucket(folder):
        raise UserError(f"data.cache {folder} must be a local folder: it is memory-mapped")
    try:
        return Path(folder).expanduser()
    except RuntimeError:
        raise UserError(f"data.cache: there is no home folder for {folder}; set data.cache, $JAXNMT_CACHE or $HOME") from None


def _fingerprint(**ingredients) -> str:
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()[:32]


def _tokenizer(experiment: config.Experiment, sources: Sequence[Source], folder: epath.Path, cache: Path, say: Say) -> Tokenizer:
    """The run's tokenizer: found in its `folder`, given, trained earlier on the same text, or trained now."""
    options = experiment.tokenizer
    if (folder / "tokenizer.json").exists():
        return load_tokenizer(folder)
    if options.model:
        tokenizer = train_tokenizer(options, ())
    else:
        key = _fingerprint(
            format=_FORMAT,
            texts=[source.fingerprint() for source in sources],
            tokenizer=dataclasses.asdict(options),
            cleaning=dataclasses.asdict(experiment.data.cleaning),
            trainer=sentencepiece.__version__,
        )
        cached = cache / "tokenizers" / key
        with locked(cached.with_suffix(".lock"), say):
            if not (cached / "tokenizer.json").exists():
                _train(experiment, sources, say).save(cached)
            tokenizer = load_tokenizer(cached)
    return tokenizer


def _train(experiment: config.Experiment, sources: Sequence[Source], say: Say) -> Tokenizer:
    options, began = experiment.tokenizer, time.monotonic()
    total = sum(map(len, sources))
    say(f"training a tokenizer ({options.kind}, {'joint' if options.joint else 'separate'}) on {min(total, options.max_sentences):,} pairs")
    tokenizer = train_tokenizer(options, _sample(sources, options, experiment.data.cleaning))
    sizes = dict.fromkeys((tokenizer.source_vocab_size, tokenizer.target_vocab_size))
    asked = "" if options.vocab_size in (0, *sizes) else f" ({options.vocab_size:,} were asked for)"
    say(f"tokenizer: {' and '.join(f'{size:,}' for size in sizes)} tokens{asked}, {time.monotonic() - began:.1f} s")
    return tokenizer


def _sample(sources: Sequence[Source], options: config.Tokenizer, rules: config.Cleaning) -> Iterator[tuple[str, str]]:
    """About `options.max_sentences` cleaned pairs, spread evenly over all sources."""
    count, total, index = options.max_sentences, sum(map(len, sources)), 0
    for source in sources:
        for pair in source.pairs():
            if total <= count or index * count // total != (index + 1) * count // total:
                cleaned = clean(pair, rules, options.normalization)
                if not isinstance(cleaned, Reason):
                    yield cleaned
            index += 1


def _prepare(data: config.Data, sources: list[Source], validation: list[Source], tokenizer: Tokenizer, cache: Path, say: Say) -> Prepared:
    held_out = 0 if validation else data.held_out
    key = _fingerprint(
        format=_FORMAT,
        texts=[source.fingerprint() for source in sources],
        tokenizer=tokenizer.fingerprint(),
        cleaning=dataclasses.asdict(data.cleaning),
        max_length=data.max_length,
        held_out=held_out,
    )
    opened = _open(cache / key, sources)
    if opened is None:
        with locked(cache / f"{key}.lock", say):
            opened = _open(cache / key, sources)  # another process may have made it meanwhile
            if opened is None:
                share = min(1.0, 8 * held_out / sum(map(len, sources)))
                recipe = shards.Recipe(tokenizer, data.cleaning, data.max_length, share)
                _make(cache / key, sources, recipe, held_out, data.workers, say)
                opened = _open(cache / key, sources)
                assert opened is not None
    corpora, meta = opened
    languages = languages_of(data, [*validation, *sources])
    texts = [(decode(pair[0]), decode(pair[1])) for source in validation for pair in source.pairs()]
    if texts and not any(target for _, target in texts):
        raise UserError(f"data.validation: the target side of {' '.join(source.name for source in validation)} is empty in every line")
    prepared = Prepared(
        tokenizer=tokenizer,
        train=corpora,
        weights=[source.weight for source in sources],
        validation=texts if validation else [(source, target) for source, target in meta["held_out"]],
        report=meta["report"],
        fingerprint=key,
        fingerprints={
            "fingerprint": key,
            "tokenizer": tokenizer.fingerprint(),
            "train": [
                {"name": source.name, "fingerprint": source.fingerprint(), "weight": source.weight, "pairs": len(corpus)}
                for source, corpus in zip(sources, corpora, strict=True)
            ],
            "validation": [{"name": source.name, "fingerprint": source.fingerprint(), "pairs": len(source)} for source in validation],
            "report": meta["report"],
            "languages": languages,
        },
        languages=languages,
    )
    say(prepared.describe())
    return prepared


def _open(folder: Path, sources: Sequence[Source]) -> tuple[list[Corpus], dict] | None:
    """The corpora of a cache folder; None if it is not there, or not as it was made."""
    try:
        meta = json.loads((folder / "meta.json").read_bytes())
        dtype = meta["dtype"]
        corpora = [
            Corpus(folder, number, source.name, dtype, counts["pairs"], counts["tokens"])
            for number, (source, counts) in enumerate(zip(sources, meta["corpora"], strict=True))
        ]
        return corpora, meta
    except (FileNotFoundError, ValueError, KeyError):
        return None


def _make(folder: Path, sources: list[Source], recipe: shards.Recipe, held_out: int, workers: int, say: Say) -> None:
    """Makes the cache folder: shards, then all of them in one."""
    began, total = time.monotonic(), sum(map(len, sources))
    parts = folder.with_name(f"{folder.name}.parts")
    parts.mkdir(exist_ok=True)
    say(f"reading and tokenising {total:,} pairs")
    shards.make_shards(sources, parts, recipe, workers, say)
    temporary = folder.with_name(f".{folder.name}")  # no other process is here: the caller holds the lock
    for left_over in (temporary, folder):
        shutil.rmtree(left_over, ignore_errors=True)
    temporary.mkdir()
    try:
        merge(temporary, sources, parts, recipe, held_out)
        whole_files.put(temporary, folder)
    except (zipfile.BadZipFile, EOFError) as error:
        shutil.rmtree(parts, ignore_errors=True)
        raise UserError(f"a shard in {parts} was damaged ({error}); it was removed: start again") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(parts, ignore_errors=True)
    seconds = time.monotonic() - began
    say(f"prepared {total:,} pairs in {seconds:.1f} s, {total / seconds:,.0f} a second, kept in {folder}")
