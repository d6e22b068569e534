"""Pairs cleaned and tokenised in chunks, by several processes; each chunk becomes one file, a shard.

A shard appears whole or not at all, so that a killed preparation goes on where it was. Workers import neither JAX nor the
script that started them. Memory is bounded: at most a few chunks are under way.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import itertools
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
import types
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np

from jaxnmt.config import Cleaning
from jaxnmt.data.cleaning import Reason, clean
from jaxnmt.data.source import Source
from jaxnmt.data.tokenizer import Tokenizer
from jaxnmt.errors import UserError
from jaxnmt.io import whole_files

CHUNK = 20_000
"""Pairs in a shard."""
WORTH_WORKERS = 5
"""Fewer chunks than this are done before workers have started."""
TOO_MANY_TOKENS = "too many tokens"

RawPair = tuple[bytes, bytes]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What is done to each pair.

    Attributes:
        max_length: most tokens of a side, the end token counted.
        candidates: pairs whose source hash is below this share of all hashes keep their text, as they may be held out.
    """

    tokenizer: Tokenizer
    cleaning: Cleaning
    max_length: int
    candidates: float

    @property
    def dtype(self) -> type[np.uint16] | type[np.uint32]:
        """Of the ids, both sides alike."""
        return np.uint16 if max(self.tokenizer.source_vocab_size, self.tokenizer.target_vocab_size) <= 1 << 16 else np.uint32


def hashes(texts: Iterable[str]) -> np.ndarray:
    """64-bit hashes of texts, uint64."""
    return np.frombuffer(b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts), "<u8")


def candidates(source_hash: np.ndarray, share: float) -> np.ndarray:
    """Mask of the hashes in the lowest `share` of all."""
    return source_hash < np.uint64(share * 2**64) if share < 1 else np.ones(len(source_hash), bool)


def tokenise(pairs: Sequence[RawPair], recipe: Recipe) -> dict[str, np.ndarray]:
    """One shard's arrays; n pairs are left after cleaning.

    Returns:
        source_ids, target_ids: flat ids without end tokens, uint16 or uint32.
        source_lengths, target_lengths: int32 (n,).
        source_hash, pair_hash: uint64 (n,).
        candidate_texts: JSON of [source, target] of each pair that may be held out, as uint8; dropped: JSON of counts by reason.
    """
    cleaned = [clean(pair, recipe.cleaning, recipe.tokenizer.normalization) for pair in pairs]
    dropped = Counter(str(pair) for pair in cleaned if isinstance(pair, Reason))
    texts = [pair for pair in cleaned if not isinstance(pair, Reason)]
    sources = recipe.tokenizer.encode_source([source for source, _ in texts])
    targets = recipe.tokenizer.encode_target([target for _, target in texts])
    fits = []
    for source, target in zip(sources, targets, strict=True):
        empty = not source or not target  # text can be all spaces to a tokenizer
        too_long = max(len(source), len(target)) + 1 > recipe.max_length
        fits.append(not empty and not too_long)
        dropped[str(Reason.EMPTY)] += empty
        dropped[TOO_MANY_TOKENS] += too_long and not empty
    texts = list(itertools.compress(texts, fits))
    sources, targets = list(itertools.compress(sources, fits)), list(itertools.compress(targets, fits))
    source_hash = hashes(source for source, _ in texts)
    candidate_texts = list(itertools.compress(texts, candidates(source_hash, recipe.candidates)))
    return {
        "source_ids": np.fromiter(itertools.chain.from_iterable(sources), recipe.dtype),
        "target_ids": np.fromiter(itertools.chain.from_iterable(targets), recipe.dtype),
        "source_lengths": np.fromiter(map(len, sources), np.int32, len(sources)),
        "target_lengths": np.fromiter(map(len, targets), np.int32, len(targets)),
        "source_hash": source_hash,
        "pair_hash": hashes(f"{source}\n{target}" for source, target in texts),
        "candidate_texts": np.frombuffer(json.dumps(candidate_texts).encode(), np.uint8),
        "dropped": np.frombuffer(json.dumps(+dropped).encode(), np.uint8),
    }


def write_shard(path: Path, pairs: Sequence[RawPair], recipe: Recipe) -> int:
    """Tokenises a chunk into a file. Returns its number of pairs, for counting."""
    with whole_files.writing(path) as file:
        np.savez(file, **tokenise(pairs, recipe))  # type: ignore[arg-type]
    return len(pairs)


def read_shard(path: Path, *names: str) -> tuple[np.ndarray, ...]:
    """Some arrays of a shard, as `tokenise` made them."""
    with np.load(path, allow_pickle=False) as arrays:
        return tuple(arrays[name] for name in names)


def read_json(path: Path, name: str):
    """An entry of a shard that is JSON."""
    return json.loads(read_shard(path, name)[0].tobytes())


def shard_paths(source: Source, number: int, folder: Path) -> list[tuple[Path, int, int]]:
    """Path, first and one past the last pair of each shard of source `number`."""
    ranges = [(start, min(start + CHUNK, len(source))) for start in range(0, len(source), CHUNK)]
    return [(folder / f"{number}-{start}-{stop}.npz", start, stop) for start, stop in ranges]


def _missing(sources: Sequence[Source], folder: Path) -> list[tuple[Source, Path, int, int]]:
    shards = ((source, *shard) for number, source in enumerate(sources) for shard in shard_paths(source, number, folder))
    return [shard for shard in shards if not shard[1].exists()]


def _jobs(missing: Iterable[tuple[Source, Path, int, int]]) -> Iterator[tuple[Path, list[RawPair]]]:
    """Reads the chunks of missing shards; neighbours are read on, without a new seek."""
    position: tuple[Source | None, int] = (None, 0)
    pairs: Iterator[RawPair] = iter(())
    for source, path, start, stop in missing:
        if position != (source, start):
            pairs = source.pairs(start)
        chunk = list(itertools.islice(pairs, stop - start))
        if len(chunk) < stop - start:
            raise UserError(f"{source.name} ended after {start + len(chunk):,} of {len(source):,} pairs: it was changed while it was read")
        position = (source, stop)
        yield path, chunk


def make_shards(sources: Sequence[Source], folder: Path, recipe: Recipe, workers: int, say: Callable[[str], None]) -> None:
    """Writes all shards that `folder` lacks.

    Args:
        workers: processes; 0: one per core. Little text is done in this one.

    Raises:
        UserError: a worker died, or a source ended early. What is done is kept.
    """
    missing = _missing(sources, folder)
    total, todo = sum(map(len, sources)), sum(stop - start for _, _, start, stop in missing)
    if todo < total:
        say(f"an interrupted preparation is resumed: {total - todo:,} of {total:,} pairs are done")
    workers = min(workers or _cores(), len(missing))
    if workers <= 1 or len(missing) < WORTH_WORKERS:
        counts: Iterator[int] = (write_shard(path, pairs, recipe) for path, pairs in _jobs(missing))
    else:
        counts = _in_parallel(_jobs(missing), recipe, workers)
    began = shown = time.monotonic()
    done = 0
    for count in counts:
        done += count
        now = time.monotonic()
        if now - shown > 5:
            shown = now
            say(f"tokenised {total - todo + done:,} of {total:,} pairs, {done / (now - began):,.0f} a second")


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_parallel(
    jobs: Iterator[tuple[Path, list[RawPair]]], recipe: Recipe, workers: int, work: Callable[..., int] = write_shard
) -> Iterator[int]:
    """`work` in worker processes, one chunk waiting for each; yields its results as they are done."""
    context = multiprocessing.get_context("spawn")  # forking a process that has JAX's threads may hang
    pool = concurrent.futures.ProcessPoolExecutor(workers, context, initializer=_start_worker)
    pending: set[concurrent.futures.Future[int]] = set()
    try:
        for path, pairs in jobs:
            with _hidden_main():
                pending.add(pool.submit(work, path, pairs, recipe))
            if len(pending) >= 2 * workers:
                done, pending = concurrent.futures.wait(pending, return_when=concurrent.futures.FIRST_COMPLETED)
                yield from (future.result() for future in done)
        yield from (future.result() for future in concurrent.futures.as_completed(pending))
    except BrokenProcessPool as error:
        raise UserError(
            "a process that tokenises died (out of memory?): lower data.workers and start again; what is done is kept"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _hidden_main() -> Iterator[None]:
    """While workers are spawned. Each would import the parent's script again otherwise, and with it JAX, or start it anew."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _start_worker() -> None:
    """Ctrl-C is the parent's to handle; and a worker does not outlive a killed parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
