"""The token cache: each training corpus as flat, memory-mapped token ids with offsets.

    CACHE/KEY/            meta.json, N.source.ids, N.source.offsets, N.target.ids, N.target.offsets  (N: number of the source)
    CACHE/KEY.parts/      shards, while the folder is being made
    CACHE/tokenizers/KEY/ trained tokenizers
    CACHE/texts/KEY.json  number of pairs and digest of a source's files, and what shows whether the files have changed (`stat_cache`)

KEY is a fingerprint of the text, the tokenizer, the cleaning rules, the maximum length and the held-out rule. A cache folder is made under
another name and renamed, so that it is complete if it exists.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import sentencepiece

from jaxnmt import config
from jaxnmt.data import shards
from jaxnmt.data.cleaning import Reason, clean
from jaxnmt.data.corpus import Corpus, Side
from jaxnmt.data.merge import merge
from jaxnmt.data.source import Source
from jaxnmt.data.sources import languages_of, sources_of
from jaxnmt.data.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from jaxnmt.errors import UserError
from jaxnmt.io import files
from jaxnmt.io.text import decode

Say = Callable[[str], None]
"""Receives one line for the user."""

WAITING = "another process is preparing the same data: waiting for it"
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
        fingerprint: of the training corpora: text, tokenizer, cleaning rules, maximum length, held-out rule.
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
        """Return one paragraph for the user."""
        dropped = {reason: n for reason, n in self.report.items() if reason not in ("read", "held out", "kept") and n}
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in dropped.items())
        source, target = (sum(len(side.ids) for side in sides) for sides in zip(*((c.source, c.target) for c in self.train), strict=True))
        names = [c.name if len(self.train) == 1 else f"{c.name} (weight {w:g})" for c, w in zip(self.train, self.weights, strict=True)]
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
        experiment: only `data` and `tokenizer` are used.
        tokenizer_folder: the run's. A tokenizer in it is used. Otherwise one is trained, or the given one loaded, and saved there.
        say: receives lines for the user.

    Raises:
        UserError: a source is missing or bad, no pair is left to train on, or the disk is full.
    """
    data = experiment.data
    cache, folder = cache_folder(data), files.to_path(tokenizer_folder)
    sources, validation = sources_of(data, "train", cache), sources_of(data, "validation", cache)
    if not sources:
        raise UserError("data.train names no source: give two aligned files, a .tsv file or a dataset")
    with _cache_errors(cache):
        cache.mkdir(parents=True, exist_ok=True)
        tokenizer = _tokenizer(experiment, sources, folder, cache, say)
    if not (folder / "tokenizer.json").exists():
        tokenizer.save(folder)
    with _cache_errors(cache):
        prepared = _prepare(data, sources, validation, tokenizer, cache, say)
    say(prepared.describe())
    return prepared


@contextlib.contextmanager
def _cache_errors(cache: Path) -> Iterator[None]:
    """Turn the errors of a cache that is full or cannot be written into UserErrors."""
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


def _fingerprint(**ingredients) -> str:
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()[:32]


def _tokenizer(experiment: config.Experiment, sources: Sequence[Source], folder: Path, cache: Path, say: Say) -> Tokenizer:
    """Return the tokenizer in the run's `folder`, the given one, one trained earlier on the same text, or a new one."""
    options = experiment.tokenizer
    if (folder / "tokenizer.json").exists():
        return load_tokenizer(folder)
    if options.model:
        return train_tokenizer(options, ())
    key = _fingerprint(
        format=_FORMAT,
        texts=[source.fingerprint() for source in sources],
        tokenizer=dataclasses.asdict(options),
        cleaning=dataclasses.asdict(experiment.data.cleaning),
        trainer=sentencepiece.__version__,
    )
    cached = cache / "tokenizers" / key
    with files.lock(cached.with_suffix(".lock"), say, WAITING):
        if not (cached / "tokenizer.json").exists():
            _train(experiment, sources, say).save(cached)
        return load_tokenizer(cached)


def _train(experiment: config.Experiment, sources: Sequence[Source], say: Say) -> Tokenizer:
    options, began = experiment.tokenizer, time.monotonic()
    total = sum(map(len, sources))
    say(f"training a tokenizer ({options.kind}, {'joint' if options.joint else 'separate'}) on {min(total, options.max_sentences):,} pairs")
    tokenizer = train_tokenizer(options, _sample(sources, options, experiment.data.cleaning))
    is_smaller = options.vocab_size not in (0, tokenizer.source_vocab_size, tokenizer.target_vocab_size)
    requested = f" ({options.vocab_size:,} were requested)" if is_smaller else ""
    say(f"tokenizer: {_sizes(tokenizer)} tokens{requested}, {time.monotonic() - began:.1f} s")
    return tokenizer


def _sizes(tokenizer: Tokenizer) -> str:
    """Return the sizes of both vocabularies, once if they are equal."""
    return " and ".join(f"{size:,}" for size in dict.fromkeys((tokenizer.source_vocab_size, tokenizer.target_vocab_size)))


def _sample(sources: Sequence[Source], options: config.Tokenizer, rules: config.Cleaning) -> Iterator[tuple[str, str]]:
    """Yield about `options.max_sentences` cleaned pairs, spread evenly over all sources."""
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
        with files.lock(cache / f"{key}.lock", say, WAITING):
            opened = _open(cache / key, sources)  # another process may have made it meanwhile
            if opened is None:
                share = min(1.0, 8 * held_out / sum(map(len, sources)))
                recipe = shards.Recipe(tokenizer, data.cleaning, data.max_length, share)
                _make(cache / key, sources, recipe, held_out, data.workers, say)
                opened = _open(cache / key, sources)
                assert opened is not None
    corpora, meta = opened
    languages = languages_of(data, [*validation, *sources])
    texts = [(decode(source), decode(target)) for each in validation for source, target in each.pairs()]
    if texts and not any(target for _, target in texts):
        raise UserError(f"data.validation: the target side of {' '.join(source.name for source in validation)} is empty in every line")
    return Prepared(
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


def _open(folder: Path, sources: Sequence[Source]) -> tuple[list[Corpus], dict] | None:
    """Return the corpora of a cache folder and its `meta.json`; None if the folder is missing or damaged."""
    try:
        meta = json.loads((folder / "meta.json").read_bytes())
        corpora = []
        for number, (source, counts) in enumerate(zip(sources, meta["corpora"], strict=True)):
            source_side, target_side = (
                Side(
                    _mapped(folder / f"{number}.{side}.ids", meta["dtype"], tokens),
                    _mapped(folder / f"{number}.{side}.offsets", "int64", counts["pairs"] + 1),
                )
                for side, tokens in zip(("source", "target"), counts["tokens"], strict=True)
            )
            corpora.append(Corpus(source_side, target_side, source.name))
        return corpora, meta
    except (FileNotFoundError, ValueError, KeyError):
        return None


def _mapped(path: Path, dtype: str, length: int) -> np.ndarray:
    if path.stat().st_size != length * np.dtype(dtype).itemsize:
        raise ValueError(f"{path} has the wrong size")
    return np.memmap(path, dtype, "r", shape=(length,)).view(np.ndarray)  # slices of a memmap are ten times slower


def _make(folder: Path, sources: list[Source], recipe: shards.Recipe, held_out: int, workers: int, say: Say) -> None:
    """Make a cache folder: write shards, then merge them. The caller holds the lock."""
    began, total = time.monotonic(), sum(map(len, sources))
    parts = folder.with_name(f"{folder.name}.parts")
    parts.mkdir(exist_ok=True)
    say(f"reading and tokenising {total:,} pairs")
    shards.make_shards(sources, parts, recipe, workers, say)
    temporary = folder.with_name(f".{folder.name}")
    for leftover in (temporary, folder):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir()
    try:
        merge(temporary, sources, parts, recipe, held_out)
        files.replace(temporary, folder)
    except (zipfile.BadZipFile, EOFError) as error:
        shutil.rmtree(parts, ignore_errors=True)
        raise UserError(f"a shard in {parts} was damaged ({error}) and all were removed: start again") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(parts, ignore_errors=True)
    seconds = time.monotonic() - began
    say(f"prepared {total:,} pairs in {seconds:.1f} s ({total / seconds:,.0f} a second) in {folder}")
