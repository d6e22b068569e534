"""Where the CPU time of a run's decoding goes: by JAX's profiler, on one core, one search at a time.

    taskset -c 0 python benchmarks/decoding_parts.py RUN [--checkpoint latest] [--batch-size 32] [--sentences 320] [--weights int8]

It translates test sentences twice: to compile, and to profile. The parts add up to the CPU time of the process if nothing else runs on the
core. A batch of 64 is divided into two searches of 32, hence the default of `--batch-size`. With 1, each sentence is translated by a call
of its own.
"""

from __future__ import annotations

import argparse
import collections
import gzip
import itertools
import json
import os
import re
import tempfile
import time
from pathlib import Path
from typing import Any

PARTS = {  # the first one that matches `name in JAX, operation, [shape of the result]`
    "encoder": r"\.encode/",
    "output layer": r"logits/.*dot_general ",
    "normaliser and best words": r"softmax\)|top_k|[\[,]({V}|{V16}|{V32})[],]",
    "other products with weights": r"\.step/[^>]*/dot_general ",
    "attention to source and caches": r"->|^ dot |_attention/(attention|jit)",
    "moving, copying and writing caches": r"/gather |dynamic_update_slice |broadcast_in_dim |^ fusion | copy |transpose ",
}


def parts(folder: Path, vocabulary: int) -> dict[str, float]:
    """Return the seconds of each part of a profile, by the programs that XLA dumped to the same folder."""
    names = {}
    for file in folder.glob("*after_optimizations.txt"):
        module = file.name.split(".")[1]
        for line in file.read_text().splitlines():
            if found := re.match(r"\s*(?:ROOT )?%?([\w.-]+) = \(?\w+(\[[\d,]*\]).*? ([a-z][\w-]*)\(", line):
                name = re.search(r'op_name="([^"]*)"', line)
                names[module, found[1]] = f"{name[1] if name else ''} {found[3]} {found[2]}"
    wide = {"{V}": vocabulary, "{V16}": vocabulary // 16, "{V32}": vocabulary // 32}
    patterns = {part: re.sub(r"\{V\d*\}", lambda found: str(wide[found[0]]), pattern) for part, pattern in PARTS.items()}
    events = []
    for event in json.loads(gzip.decompress(next(folder.rglob("*.trace.json.gz")).read_bytes()))["traceEvents"]:
        place = event.get("args", {}).get("hlo_module"), event.get("args", {}).get("hlo_op")
        if event.get("ph") == "X" and place in names:
            part = next((part for part, pattern in patterns.items() if re.search(pattern, names[place])), "the rest of the programs")
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--checkpoint", default="best", help="as `jaxnmt.load` reads it")
    parser.add_argument("--sentences", type=int, default=320, help="of the run's test sentences, the first ones")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--weights", default="trained", help="as `jaxnmt.load` takes them")
    parser.add_argument("--ours", default=[], nargs="*", help="decoding settings, such as patience=1")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_dump_to={folder} --xla_dump_hlo_as_text"
        os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)  # XLA dumps what it compiles
        import jax

        import jaxnmt
        from jaxnmt.decoding import programs

        programs.IN_FLIGHT = 1
        checkpoint: Any = int(options.checkpoint) if options.checkpoint.isdigit() else options.checkpoint
        run = jaxnmt.load(options.run, checkpoint, weights=options.weights)
        sources = run.test_set().sources[: options.sentences]
        settings: dict[str, Any] = {"batch_size": options.batch_size}
        for name, _, value in (each.partition("=") for each in options.ours):
            settings[name] = json.loads(value) if value[0].isdigit() else value

        def seconds() -> float:
            before = time.process_time()
            for some in [[source] for source in sources] if options.batch_size == 1 else [sources]:
                run.translate(some, **settings)
            return time.process_time() - before

        seconds()  # compiles
        profile = jax.profiler.ProfileOptions()
        profile.python_tracer_level = 0
        with jax.profiler.trace(folder, profiler_options=profile):
            whole = seconds()
        found = parts(Path(folder), run.model.module.target_size)
    found["Python, text, and calls of programs"] = whole - sum(found.values())
    for part, spent in [*sorted(found.items(), key=lambda each: -each[1]), ("sum", whole)]:
        print(f"{part:<38} {1e3 * spent / len(sources):6.2f} ms a sentence {spent / whole:6.1%}")


if __name__ == "__main__":
    main()
