"""The CPU time of parts of a program, by JAX's profiler and by what XLA says of its operations."""

from __future__ import annotations

import collections
import gzip
import itertools
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

REST = "the rest of the programs"


def dump_programs(folder: str) -> None:
    """Let XLA write the programs that it compiles to a folder; before JAX is imported."""
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_dump_to={folder} --xla_dump_hlo_as_text"
    os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)  # XLA dumps what it compiles


def seconds_of_parts(folder: Path, patterns: Mapping[str, str]) -> dict[str, float]:
    """Return the seconds of each part of a profile, by the programs that XLA dumped to the same folder.

    Args:
        patterns: for each part a regular expression. An operation belongs to the first that matches `name in JAX, operation, [shape of the
            result]`, else to `REST`.
    """
    names = _names(folder)
    events = []
    for event in json.loads(gzip.decompress(next(folder.rglob("*.trace.json.gz")).read_bytes()))["traceEvents"]:
        place = event.get("args", {}).get("hlo_module"), event.get("args", {}).get("hlo_op")
        if event.get("ph") == "X" and place in names:
            part = next((part for part, pattern in patterns.items() if re.search(pattern, names[place])), REST)
            events.append((event["ts"], event["ts"] + event["dur"], event["tid"], part))
    events.sort(key=lambda event: (event[0], -event[1]))
    # XLA runs operations in two threads even on one core: where both have begun one, each counts half of the time.
    edges = sorted(edge for number, (start, end, *_) in enumerate(events) for edge in ((start, 1, number), (end, 0, number)))
    seconds: collections.Counter[str] = collections.Counter()
    running: dict[int, list[int]] = collections.defaultdict(list)  # for each thread, the operations that have begun
    for (now, begins, number), (then, *_) in itertools.pairwise(edges):
        thread = running[events[number][2]]
        thread.append(number) if begins else thread.remove(number)
        innermost = [numbers[-1] for numbers in running.values() if numbers]
        for each in innermost:
            seconds[events[each][3]] += (then - now) / 1e6 / len(innermost)
    return dict(seconds)


def _names(folder: Path) -> dict[tuple[str, str], str]:
    """Return `name in JAX, operation, [shape of the result]` of each operation of the dumped programs.

    XLA forgets the names of some products of many matrices: they are called `product`.
    """
    names = {}
    for file in folder.glob("*after_optimizations.txt"):
        module = file.name.split(".")[1]
        for line in file.read_text().splitlines():
            if found := re.match(r"\s*(?:ROOT )?%?([\w.-]+) = \(?\w+(\[[\d,]*\]).*? ([a-z][\w-]*)\(", line):
                name = re.search(r'op_name="([^"]*)"', line)
                unnamed = "product" if found[1].startswith("ynn_fusion") else ""
                names[module, found[1]] = f"{name[1] if name else unnamed} {found[3]} {found[2]}"
    return names


def print_parts(seconds: Mapping[str, float], whole: float, count: int, unit: str) -> None:
    """Print the parts, the largest first, and their sum, `whole`: milliseconds for each of `count` units, and shares."""
    for part, spent in [*sorted(seconds.items(), key=lambda each: -each[1]), ("sum", whole)]:
        print(f"{part:<42} {1e3 * spent / count:8.2f} ms a {unit} {spent / whole:6.1%}")
