"""Clean and tokenise pairs in chunks, by several processes. Each chunk becomes one file, a shard.

Shards are written atomically, so that a killed preparation is resumed where it was. Workers import neither JAX nor the script that started
them. Memory is bounded: only a few chunks are under way at a time.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
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
from jaxnmt.data.cleaning import Reason, clean, hashes, pair_key
from jaxnmt.data.source import Source
from jaxnmt.data.tokenizer import Tokenizer
from jaxnmt.errors import UserError
from jaxnmt.io import files

CHUNK = 20_000
"""Pairs in a shard."""
WORTH_WORKERS = 5
"""With fewer chunks than this, the work is done before worker processes have started."""
TOO_MANY_TOKENS = "too many tokens"

RawPair = tuple[bytes, bytes]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What is done to each pair.

    Attributes:
        max_length: most tokens of a side, the end token included.
        candidates: pairs whose source hash is in the lowest share of all hashes keep their text, because they may be held out.
    """

    tokenizer: Tokenizer
    cleaning: Cleaning
    max_length: int
    candidates: float

    @property
    def dtype(self) -> type[np.uint16] | type[np.uint32]:
        """The type of the ids of both sides."""
        return np.uint16 if max(self.tokenizer.source_vocab_size, self.tokenizer.target_vocab_size) <= 1 << 16 else np.uint32


def candidates(source_hash: np.ndarray, share: float) -> np.ndarray:
    """Return a mask of the hashes in the lowest `share` of all possible ones."""
    return source_hash < np.uint64(share * 2**64) if share < 1 else np.ones(len(source_hash), bool)


def tokenise(pairs: Sequence[RawPair], recipe: Recipe) -> dict[str, np.ndarray]:
    """Return the arrays of one shard; n pairs are left after cleaning.

    Returns:
        source_ids, target_ids: flat ids without end tokens, uint16 or uint32.
        source_lengths, target_lengths: int32 (n,).
        source_hash, pair_hash: uint64 (n,).
        candidate_texts: JSON of [source, target] of each pair that may be held out, as uint8.
        dropped: JSON of counts by reason, as uint8.
    """
    cleaned = [clean(pair, recipe.cleaning, recipe.tokenizer.normalization) for pair in pairs]
    dropped = Counter(str(pair) for pair in cleaned if isinstance(pair, Reason))
    texts = [pair for pair in cleaned if not isinstance(pair, Reason)]
    sources = recipe.tokenizer.encode_source([source for source, _ in texts])
    targets = recipe.tokenizer.encode_target([target for _, target in texts])
    fits = []
    for source, target in zip(sources, targets, strict=True):
        is_empty = not source or not target  # a tokenizer may see nothing but spaces in a text
        is_long = max(len(source), len(target)) + 1 > recipe.max_length
        fits.append(not is_empty and not is_long)
        if not fits[-1]:
            dropped[str(Reason.EMPTY) if is_empty else TOO_MANY_TOKENS] += 1
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
        "pair_hash": hashes(map(pair_key, texts)),
        "candidate_texts": np.frombuffer(json.dumps(candidate_texts).encode(), np.uint8),
        "dropped": np.frombuffer(json.dumps(dropped).encode(), np.uint8),
    }


def write_shard(path: Path, pairs: Sequence[RawPair], recipe: Recipe) -> int:
    """Tokenise a chunk into a file. Returns the number of its pairs."""
    with files.open_atomic(path) as file:
        np.savez(file, **tokenise(pairs, recipe))  # type: ignore[arg-type]
    return len(pairs)


def read_shard(path: Path, *names: str) -> tuple[np.ndarray, ...]:
    """Return arrays of a shard by the names that `tokenise` gave them."""
    with np.load(path, allow_pickle=False) as arrays:
        return tuple(arrays[name] for name in names)


def read_json(path: Path, name: str):
    """Return a JSON entry of a shard."""
    return json.loads(read_shard(path, name)[0].tobytes())


def shard_paths(source: Source, number: int, folder: Path) -> list[tuple[Path, int, int]]:
    """Return (path, first pair, one past the last pair) of each shard of source `number`."""
    ranges = [(start, min(start + CHUNK, len(source))) for start in range(0, len(source), CHUNK)]
    return [(folder / f"{number}-{start}-{stop}.npz", start, stop) for start, stop in ranges]


def _jobs(missing: Iterable[tuple[Source, Path, int, int]]) -> Iterator[tuple[Path, list[RawPair]]]:
    """Yield the path and the pairs of each missing shard. Neighbouring shards are read in one pass."""
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
    """Write all shards that are missing in `folder`.

    Args:
        workers: number of processes; 0: one per core. A small corpus is done in this process.

    Raises:
        UserError: a worker died, or a source ended early. Finished shards are kept.
    """
    shards = ((source, *shard) for number, source in enumerate(sources) for shard in shard_paths(source, number, folder))
    missing = [shard for shard in shards if not shard[1].exists()]
    total, todo = sum(map(len, sources)), sum(stop - start for _, _, start, stop in missing)
    if todo < total:
        say(f"resumed an interrupted preparation: {total - todo:,} of {total:,} pairs are done")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(workers or cores, len(missing))
    if workers <= 1 or len(missing) < WORTH_WORKERS:
        counts: Iterator[int] = (write_shard(path, pairs, recipe) for path, pairs in _jobs(missing))
    else:
        counts = _in_parallel(_jobs(missing), recipe, workers)
    began = shown = time.monotonic()
    for done in itertools.accumulate(counts):
        now = time.monotonic()
        if now - shown > 5:
            shown = now
            say(f"tokenised {total - todo + done:,} of {total:,} pairs, {done / (now - began):,.0f} a second")


def _in_parallel(
    jobs: Iterator[tuple[Path, list[RawPair]]], recipe: Recipe, workers: int, work: Callable[..., int] = write_shard
) -> Iterator[int]:
    """Run `work` in worker processes, with one more chunk waiting for each, and yield the results as they arrive."""
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
    """Hide `__main__` while workers are spawned. Otherwise each would import the parent's script, and with it JAX, or start it again."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and exit when the parent is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
