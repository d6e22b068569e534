"""Merge shards into one corpus for each source: drop duplicates, hold out validation pairs, write the rest.

Memory holds one shard at a time, and 9 bytes for each pair while duplicates are looked for.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from jaxnmt.data import shards
from jaxnmt.data.cleaning import Reason, first_occurrences
from jaxnmt.data.source import Source
from jaxnmt.errors import UserError
from jaxnmt.io import files

SIDES = ("source", "target")


def merge(folder: Path, sources: list[Source], parts: Path, recipe: shards.Recipe, limit: int) -> None:
    """Write the files of a cache folder: `meta.json`, and for source N `N.source.ids`, `N.source.offsets` and those of the target.

    Args:
        parts: the folder of the shards.
        limit: the most pairs to hold out (never more than a tenth); 0: none.

    Raises:
        UserError: no pair of a source is left, or too few to hold some out.
    """
    paths = [[path for path, _, _ in shards.shard_paths(source, number, parts)] for number, source in enumerate(sources)]
    dropped: Counter[str] = Counter()
    for path in (path for group in paths for path in group):
        dropped.update(shards.read_json(path, "dropped"))
    fresh = [_fresh(group, recipe.cleaning.drop_duplicates) for group in paths]
    dropped[str(Reason.DUPLICATE)] += sum(int(np.sum(~mask)) for mask in fresh)
    usable = sum(int(np.sum(mask)) for mask in fresh)
    reasons = {reason: dropped[reason] for reason in (*map(str, Reason), shards.TOO_MANY_TOKENS)}
    read = sum(map(len, sources))
    for source, mask in zip(sources, fresh, strict=True):
        if not mask.any():
            lost = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items() if count)
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
    files.write(folder / "meta.json", json.dumps(meta))


def _fresh(paths: Sequence[Path], drop_duplicates: bool) -> np.ndarray:
    """Return a mask of one source's pairs: those that are kept when duplicates are dropped."""
    lengths = [len(shards.read_shard(path, "pair_hash")[0]) for path in paths]
    if not drop_duplicates:
        return np.ones(sum(lengths), bool)
    keys: np.ndarray = np.empty(sum(lengths), np.uint64)
    for path, part in zip(paths, np.split(keys, np.cumsum(lengths)[:-1]), strict=True):
        part[:] = shards.read_shard(path, "pair_hash")[0]
    return first_occurrences(keys)


def _with_masks(paths: Sequence[Path], fresh: np.ndarray) -> Iterator[tuple[Path, np.ndarray, np.ndarray]]:
    """Yield each shard, the hashes of its source sentences, and its part of the mask."""
    start = 0
    for path in paths:
        (source_hash,) = shards.read_shard(path, "source_hash")
        yield path, source_hash, fresh[start : start + len(source_hash)]
        start += len(source_hash)


def _choose(paths: Sequence[Sequence[Path]], fresh: Sequence[np.ndarray], limit: int, share: float) -> np.ndarray:
    """Return the hashes of the source sentences to hold out: the lowest ones, with `limit` pairs at most; uint64, sorted."""
    found = [
        source_hash[keep & shards.candidates(source_hash, share)]
        for group, mask in zip(paths, fresh, strict=True)
        for _, source_hash, keep in _with_masks(group, mask)
    ]
    unique, counts = np.unique(np.concatenate(found), return_counts=True)
    unique, counts = unique[counts <= limit], counts[counts <= limit]  # a sentence that is very frequent stays in training
    return unique[np.cumsum(counts) <= limit]


def _write(folder: Path, number: int, paths: Sequence[Path], fresh: np.ndarray, chosen: np.ndarray, share: float) -> tuple[dict, list]:
    """Write the files of one corpus. Returns its counts for `meta.json` and the texts of its held-out pairs."""
    texts: list = []
    pairs, tokens = 0, [0, 0]
    with contextlib.ExitStack() as stack:
        ids, offsets = (
            [stack.enter_context(files.open_atomic(folder / f"{number}.{side}.{kind}")) for side in SIDES] for kind in ("ids", "offsets")
        )
        for file in offsets:
            file.write(np.zeros(1, np.int64).tobytes())
        for path, source_hash, keep in _with_masks(paths, fresh):
            held = keep & np.isin(source_hash, chosen)
            if held.any():
                taken = held[shards.candidates(source_hash, share)]
                texts += [text for text, is_taken in zip(shards.read_json(path, "candidate_texts"), taken, strict=True) if is_taken]
            keep = keep & ~held
            pairs += int(keep.sum())
            for k, side in enumerate(SIDES):
                shard_ids, lengths = shards.read_shard(path, f"{side}_ids", f"{side}_lengths")
                ids[k].write(shard_ids[np.repeat(keep, lengths)].tobytes())
                ends = tokens[k] + np.cumsum(lengths[keep], dtype=np.int64)
                offsets[k].write(ends.tobytes())
                tokens[k] = int(ends[-1]) if len(ends) else tokens[k]
    return {"pairs": pairs, "tokens": tokens}, texts
