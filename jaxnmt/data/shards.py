"""Make the token cache of a corpus: clean and tokenise pairs in chunks, by several processes, then merge the chunks.

Each chunk becomes one file, a shard. Shards are written atomically, so that a killed preparation is resumed where it was. Workers import
neither JAX nor the script that started them. Merging drops duplicates and holds out validation pairs.

Memory is bounded: a few chunks are under way at a time, merging holds one shard, and 9 bytes for each pair while duplicates are looked for.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from jaxnmt.config import Cleaning
from jaxnmt.data.cleaning import Reason, clean, first_occurrences, hashes, pair_key
from jaxnmt.data.source import Source
from jaxnmt.data.tokenizer import Tokenizer
from jaxnmt.errors import UserError
from jaxnmt.io import files
from jaxnmt.io.workers import cores, in_order

CHUNK = 20_000
"""Pairs in a shard."""
SIDES = ("source", "target")
WORTH_WORKERS = 5
"""With fewer chunks than this, the work is done before worker processes have started."""
TOO_MANY_TOKENS = "too many tokens"

RawPair = tuple[bytes, bytes]
_Job = tuple[Path, list[RawPair], list[float] | None]
"""A shard to write, its pairs, and their weights in the loss."""
_Shard = tuple[Path, np.ndarray]
"""The path of a shard, and a mask of those of its pairs that are kept."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What is done to each pair.

    Attributes:
        max_length: most tokens of a side, the end token included.
        held_out: most pairs that are held out for validation.
        candidates: pairs whose source hash is in the lowest share of all hashes keep their text, because they may be held out.
        cuts: a text of too many tokens is cut into several, both sides being one text. Otherwise the pair is dropped.
    """

    tokenizer: Tokenizer
    cleaning: Cleaning
    max_length: int
    held_out: int
    candidates: float
    cuts: bool = False

    @property
    def dtype(self) -> type[np.uint16] | type[np.uint32]:
        """The type of the ids of both sides."""
        return np.uint16 if max(self.tokenizer.source_vocab_size, self.tokenizer.target_vocab_size) <= 1 << 16 else np.uint32

    def may_hold_out(self, source_hash: np.ndarray) -> np.ndarray:
        """Return a mask of the hashes in the lowest `candidates` of all possible ones."""
        return source_hash < np.uint64(self.candidates * 2**64) if self.candidates < 1 else np.ones(len(source_hash), bool)


def tokenise(pairs: Sequence[RawPair], recipe: Recipe, weights: Sequence[float] | None = None) -> dict[str, np.ndarray]:
    """Return the arrays of one shard; n pairs are left after cleaning.

    Args:
        weights: of each pair in the loss. None: every pair has weight 1.

    Returns:
        source_ids, target_ids: flat ids without end tokens, uint16 or uint32.
        source_lengths, target_lengths: int32 (n,).
        source_hash, pair_hash: uint64 (n,).
        candidate_texts: JSON of [source, target] of each pair that may be held out, as uint8.
        dropped: JSON of counts by reason, as uint8.
        weights: float32 (n,), if they are given.
    """
    cleaned = [clean(pair, recipe.cleaning, recipe.tokenizer.normalization) for pair in pairs]
    dropped: Counter[str] = Counter(pair for pair in cleaned if isinstance(pair, Reason))
    texts = [pair for pair in cleaned if not isinstance(pair, Reason)]
    numbers = [i for i, pair in enumerate(cleaned) if not isinstance(pair, Reason)]
    sources = recipe.tokenizer.encode_source([source for source, _ in texts])
    targets = recipe.tokenizer.encode_target([target for _, target in texts])
    kept, owners = [], list[int]()  # owners: the pair that each is of
    for number, text, source, target in zip(numbers, texts, sources, targets, strict=True):
        # A tokenizer may see nothing but spaces in a text.
        if not source or not target:
            dropped[Reason.EMPTY] += 1
        elif recipe.cuts:
            kept += [((part, part), ids, ids) for part, ids in recipe.tokenizer.cut(text[0], source, recipe.max_length - 1)]
        elif max(len(source), len(target)) + 1 > recipe.max_length:
            dropped[TOO_MANY_TOKENS] += 1
        else:
            kept.append((text, source, target))
        owners += [number] * (len(kept) - len(owners))
    texts = [text for text, _, _ in kept]
    source_hash = hashes(source for source, _ in texts)
    arrays = {
        "source_hash": source_hash,
        "pair_hash": hashes(map(pair_key, texts)),
        "candidate_texts": _json(list(itertools.compress(texts, recipe.may_hold_out(source_hash)))),
        "dropped": _json(dropped),
    }
    if weights is not None:
        arrays["weights"] = np.fromiter((weights[number] for number in owners), np.float32)
    for position, side in enumerate(SIDES, 1):
        sentences = [pair[position] for pair in kept]
        arrays[f"{side}_ids"] = np.fromiter(itertools.chain.from_iterable(sentences), recipe.dtype)
        arrays[f"{side}_lengths"] = np.fromiter(map(len, sentences), np.int32)
    return arrays


def _json(content: object) -> np.ndarray:
    return np.frombuffer(json.dumps(content).encode(), np.uint8)


def write_shard(path: Path, pairs: Sequence[RawPair], weights: Sequence[float] | None, recipe: Recipe) -> int:
    """Tokenise a chunk into a file. Returns the number of its pairs."""
    with files.open_atomic(path) as file:
        np.savez(file, **tokenise(pairs, recipe, weights))  # type: ignore[arg-type]
    return len(pairs)


def read_shard(path: Path, *names: str) -> tuple[np.ndarray, ...]:
    """Return arrays of a shard by the names that `tokenise` gave them."""
    with np.load(path) as arrays:
        return tuple(arrays[name] for name in names)


def read_json(path: Path, name: str):
    """Return a JSON entry of a shard."""
    return json.loads(read_shard(path, name)[0].tobytes())


def shard_paths(source: Source, number: int, folder: Path) -> list[tuple[Path, int, int]]:
    """Return (path, first pair, one past the last pair) of each shard of source `number`."""
    ranges = [(start, min(start + CHUNK, len(source))) for start in range(0, len(source), CHUNK)]
    return [(folder / f"{number}-{start}-{stop}.npz", start, stop) for start, stop in ranges]


def _jobs(missing: Iterable[tuple[Source, Path, int, int]]) -> Iterator[_Job]:
    """Yield the path, the pairs and their weights of each missing shard. A source is read in one pass, from its first missing shard on."""
    for source, group in itertools.groupby(missing, key=lambda shard: shard[0]):
        shards = list(group)
        done = shards[0][2]
        pairs, weights = source.pairs(done), source.pair_weights(done)
        for _, path, start, stop in shards:
            chunk = list(itertools.islice(pairs, start - done, stop - done))
            done = start + len(chunk)
            if done < stop:
                raise UserError(f"{source.name} ended after {done:,} of {len(source):,} pairs: it was changed while it was read")
            yield path, chunk, None if weights is None else list(itertools.islice(weights, len(chunk)))


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
    workers = min(workers or len(cores()), len(missing))
    if workers <= 1 or len(missing) < WORTH_WORKERS:
        counts: Iterator[int] = (write_shard(*job, recipe) for job in _jobs(missing))
    else:
        counts = _in_parallel(_jobs(missing), recipe, workers)
    began = shown = time.monotonic()
    for done in itertools.accumulate(counts):
        now = time.monotonic()
        if now - shown > 5:
            shown = now
            say(f"tokenised {total - todo + done:,} of {total:,} pairs, {done / (now - began):,.0f} a second")


def _in_parallel(jobs: Iterator[_Job], recipe: Recipe, workers: int) -> Iterator[int]:
    """Write shards in worker processes, with one more chunk waiting for each, and yield the numbers of their pairs."""
    died = "a process that tokenises died (out of memory?): lower data.workers, and start again to resume"
    write = functools.partial(functools.partial, write_shard, recipe=recipe)  # a worker gets the recipe once
    return in_order(write, jobs, workers, died)


def merge(folder: Path, sources: list[Source], parts: Path, recipe: Recipe) -> None:
    """Write the files of a cache folder: `meta.json`, and for source N `N.source.ids`, `N.source.offsets` and those of the target,
    and `N.weights` if its pairs have weights.

    Args:
        parts: the folder of the shards.

    Raises:
        UserError: no pair of a source is left, or too few to hold some out.
    """
    paths = [[path for path, _, _ in shard_paths(source, number, parts)] for number, source in enumerate(sources)]
    corpora = [_without_duplicates(group, recipe.cleaning.drop_duplicates) for group in paths]
    shards = list(itertools.chain.from_iterable(corpora))
    dropped = Counter(dict.fromkeys([*map(str, Reason), TOO_MANY_TOKENS], 0))
    for path, keep in shards:
        dropped.update(read_json(path, "dropped"))
        dropped[Reason.DUPLICATE] += int(np.sum(~keep))
    held_out = _hold_out(shards, recipe) if recipe.held_out else []
    kept = [sum(int(np.sum(keep)) for _, keep in corpus) for corpus in corpora]
    report = {"read": sum(map(len, sources)), **dropped, "held out": len(held_out), "kept": sum(kept)}
    for source, pairs in zip(sources, kept, strict=True):
        if not pairs:
            numbers = ", ".join(f"{count:,} {what}" for what, count in report.items() if count)
            remedy = "see data.cleaning and data.max_length, or name data.validation"
            raise UserError(f"data.train: no pair of {source.name} is left to train on (of all sources: {numbers}): {remedy}")
    for (number, corpus), side in itertools.product(enumerate(corpora), SIDES):
        _write(folder / f"{number}.{side}", corpus, side)
    for number, (source, corpus) in enumerate(zip(sources, corpora, strict=True)):
        if source.pair_weights() is not None:
            with files.open_atomic(folder / f"{number}.weights") as file:
                for path, keep in corpus:
                    file.write(read_shard(path, "weights")[0][keep].tobytes())
    files.write(folder / "meta.json", json.dumps({"report": report, "held_out": held_out}))


def _without_duplicates(paths: Sequence[Path], drop_duplicates: bool) -> list[_Shard]:
    """Return the shards of one source. Their masks keep the first of equal pairs, or all pairs."""
    lengths = [len(read_shard(path, "pair_hash")[0]) for path in paths]
    starts = np.cumsum(lengths)[:-1]
    keys: np.ndarray = np.empty(sum(lengths), np.uint64)
    for path, part in zip(paths, np.split(keys, starts), strict=True):
        part[:] = read_shard(path, "pair_hash")[0]
    keep = first_occurrences(keys) if drop_duplicates else np.ones(len(keys), bool)
    return list(zip(paths, np.split(keep, starts), strict=True))


def _hold_out(shards: Sequence[_Shard], recipe: Recipe) -> list[list[str]]:
    """Take the pairs to hold out from the masks of all shards, and return their texts: at most `recipe.held_out`, and a tenth of all.

    They are those whose source sentences have the lowest hashes, so that no sentence is on both sides.
    """
    usable = sum(int(np.sum(keep)) for _, keep in shards)
    limit = min(recipe.held_out, usable // 10)
    candidates = []
    for path, keep in shards:
        (source_hash,) = read_shard(path, "source_hash")
        candidates.append(source_hash[keep & recipe.may_hold_out(source_hash)])
    unique, counts = np.unique(np.concatenate(candidates), return_counts=True)
    # A sentence that is very frequent stays in training.
    unique, counts = unique[counts <= limit], counts[counts <= limit]
    chosen = unique[np.cumsum(counts) <= limit]
    if usable and not len(chosen):
        raise UserError(f"data.train: {usable:,} pairs are too few to hold some out: name data.validation")
    texts: list[list[str]] = []
    for path, keep in shards:
        (source_hash,) = read_shard(path, "source_hash")
        held = keep & np.isin(source_hash, chosen)
        texts += itertools.compress(read_json(path, "candidate_texts"), held[recipe.may_hold_out(source_hash)])
        keep &= ~held
    return texts


def _write(name: Path, corpus: Sequence[_Shard], side: str) -> None:
    """Write `name`.ids and `name`.offsets of one side of a corpus."""
    with files.open_atomic(Path(f"{name}.ids")) as ids, files.open_atomic(Path(f"{name}.offsets")) as offsets:
        tokens = 0
        offsets.write(np.int64(tokens).tobytes())
        for path, keep in corpus:
            shard_ids, lengths = read_shard(path, f"{side}_ids", f"{side}_lengths")
            ids.write(shard_ids[np.repeat(keep, lengths)].tobytes())
            ends = tokens + np.cumsum(lengths[keep], dtype=np.int64)
            offsets.write(ends.tobytes())
            tokens += int(lengths[keep].sum())
