"""Shards become one corpus for each source: duplicates are dropped, validation pairs held out, the rest written in a row.

A shard is in memory at a time, and 9 bytes for each pair while duplicates are looked for.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxnmt.data import shards
from jaxnmt.data.cleaning import Reason
from jaxnmt.data.source import Source
from jaxnmt.errors import UserError
from jaxnmt.io import whole_files

SLICE = 1 << 20
"""About as many hashes are sorted at a time."""


def merge(folder: Path, sources: list[Source], parts: Path, recipe: shards.Recipe, limit: int) -> None:
    """Writes the files of a cache folder: `meta.json`, and for source N `N.source.ids`, `N.source.offsets` and the target's.

    Args:
        limit: pairs to hold out at most (never more than a tenth); 0: none.

    Raises:
        UserError: no pair of a source is left, or too few to hold some out.
    """
    paths = [[path for path, _, _ in shards.shard_paths(source, number, parts)] for number, source in enumerate(sources)]
    dropped: Counter[str] = Counter()
    for path in (path for group in paths for path in group):
        dropped.update(shards.read_json(path, "dropped"))
    fresh = [_fresh(group) if recipe.cleaning.drop_duplicates else _all(group) for group in paths]
    dropped[str(Reason.DUPLICATE)] += sum(int(np.sum(~mask)) for mask in fresh)
    usable = sum(int(np.sum(mask)) for mask in fresh)
    reasons = {reason: dropped[reason] for reason in (*map(str, Reason), shards.TOO_MANY_TOKENS)}
    read = sum(map(len, sources))
    lost = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items() if count)
    for source, mask in zip(sources, fresh, strict=True):
        if not mask.any():
            raise UserError(
                f"data.train: no pair of {source.name} is left ({read:,} read in all; dropped: {lost}): "
                "see data.cleaning and data.max_length"
            )
    chosen = _choose(paths, fresh, min(limit, usable // 10), recipe.candidates) if limit else np.empty(0, np.uint64)
    if limit and not len(chosen):
        raise UserError(f"data.train: {usable:,} pairs are too few to hold some out: name data.validation")
    corpora, held = [], []
    for number, (group, mask) in enumerate(zip(paths, fresh, strict=True)):
        counts, texts = _write(folder, number, group, mask, chosen, recipe.candidates)
        if not counts["pairs"]:
            raise UserError(f"data.train: all pairs of {sources[number].name} would be held out for validation: name data.validation")
        corpora.append(counts)
        held += texts
    report = {"read": read, **reasons, "held out": len(held), "kept": sum(counts["pairs"] for counts in corpora)}
    meta = {"dtype": np.dtype(recipe.dtype).name, "corpora": corpora, "report": report, "held_out": held}
    with whole_files.writing(folder / "meta.json") as file:
        file.write(json.dumps(meta).encode())


def _all(paths: Sequence[Path]) -> np.ndarray:
    return np.ones(sum(len(shards.read_shard(path, "pair_hash")[0]) for path in paths), bool)


def _fresh(paths: Sequence[Path]) -> np.ndarray:
    """Mask of the pairs of one source that no earlier pair equals, by 64-bit hashes: among 40 million pairs a false alarm has
    a chance of 1 in 20,000. Needs 9 bytes a pair, and some tens of MB for the slice of them that is sorted at a time."""
    fresh = _all(paths)
    pair_hash: np.ndarray = np.empty(len(fresh), np.uint64)
    starts = [0]
    for path in paths:
        (part,) = shards.read_shard(path, "pair_hash")
        pair_hash[starts[-1] : starts[-1] + len(part)] = part
        starts.append(starts[-1] + len(part))
    slices = len(pair_hash) // SLICE + 1
    for number in range(slices):
        blocks = zip(starts[:-1], starts[1:], strict=True)
        places = np.concatenate([start + np.flatnonzero(pair_hash[start:end] % np.uint64(slices) == number) for start, end in blocks])
        first = np.unique(pair_hash[places], return_index=True)[1]
        fresh[np.delete(places, first)] = False
    return fresh


def _choose(paths: Sequence[Sequence[Path]], fresh: Sequence[np.ndarray], limit: int, share: float) -> np.ndarray:
    """Hashes of the source sentences to hold out: the lowest, as many as have `limit` pairs at most; uint64, sorted."""
    found: list[np.ndarray] = [np.empty(0, np.uint64)]
    for group, mask in zip(paths, fresh, strict=True):
        start = 0
        for path in group:
            (source_hash,) = shards.read_shard(path, "source_hash")
            here = mask[start : start + len(source_hash)]
            found.append(source_hash[here & shards.candidates(source_hash, share)])
            start += len(source_hash)
    unique, counts = np.unique(np.concatenate(found), return_counts=True)
    unique, counts = unique[counts <= limit], counts[counts <= limit]  # a sentence said very often stays in training
    return unique[np.cumsum(counts) <= limit]


def _write(folder: Path, number: int, paths: Sequence[Path], fresh: np.ndarray, chosen: np.ndarray, share: float) -> tuple[dict, list]:
    """One corpus's files. Returns its counts and the texts of its held-out pairs."""
    texts: list = []
    pairs, start, tokens = 0, 0, [0, 0]
    with contextlib.ExitStack() as stack:
        names = [f"{number}.{side}.{kind}" for side in ("source", "target") for kind in ("ids", "offsets")]
        files = {name: stack.enter_context(whole_files.writing(folder / name)) for name in names}
        for side in ("source", "target"):
            files[f"{number}.{side}.offsets"].write(np.zeros(1, np.int64).tobytes())
        for path in paths:
            (source_hash,) = shards.read_shard(path, "source_hash")
            keep = fresh[start : start + len(source_hash)]
            start += len(source_hash)
            held = keep & np.isin(source_hash, chosen)
            if held.any():
                candidates = held[shards.candidates(source_hash, share)]
                texts += [text for text, taken in zip(shards.read_json(path, "candidate_texts"), candidates, strict=True) if taken]
            keep = keep & ~held
            pairs += int(keep.sum())
            for index, side in enumerate(("source", "target")):
                ids, lengths = shards.read_shard(path, f"{side}_ids", f"{side}_lengths")
                files[f"{number}.{side}.ids"].write(ids[np.repeat(keep, lengths)].tobytes())
                ends = tokens[index] + np.cumsum(lengths[keep], dtype=np.int64)
                files[f"{number}.{side}.offsets"].write(ends.tobytes())
                tokens[index] = int(ends[-1]) if len(ends) else tokens[index]
    return {"pairs": pairs, "tokens": tokens}, texts
