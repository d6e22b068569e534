"""Where the CPU time of a run's decoding goes: by JAX's profiler, on one core, one search at a time.

    taskset -c 0 python benchmarks/decoding_parts.py RUN [--checkpoint latest] [--batch-size 32] [--sentences 320] [--weights int8]

It translates test sentences twice: to compile, and to profile. The parts add up to the CPU time of the process if nothing else runs on the
core. With beams, a batch of 64 is divided into two searches of 32, hence the default of `--batch-size`; a greedy search has all 64. With 1,
each sentence is translated by a call of its own.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from pathlib import Path
from typing import Any

from profiled import dump_programs, print_parts, seconds_of_parts

PARTS = {  # the first one that matches `name in JAX, operation, [shape of the result]`
    "encoder": r"\.encode/",
    "output layer": r"logits/.*dot_general ",
    "normaliser and best words": r"softmax\)|top_k|[\[,]({V}|{V16}|{V32})[],]",
    "other products with weights": r"\.step/[^>]*/dot_general ",
    "copies of what weights in blocks multiply": r"\.step/[^>]*/(broadcast_in_dim|concatenate) ",
    "attention to source and caches": r"->|^ dot |^product |_attention/(attention|jit|exp)",
    "moving, copying and writing caches": r"/gather |dynamic_update_slice |broadcast_in_dim |^ fusion | copy |transpose ",
}


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
        dump_programs(folder)
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
        size = run.model.module.target_size
        wide = {"{V}": size, "{V16}": size // 16, "{V32}": size // 32}
        patterns = {part: re.sub(r"\{V\d*\}", lambda found: str(wide[found[0]]), pattern) for part, pattern in PARTS.items()}
        found = seconds_of_parts(Path(folder), patterns)
    found["Python, text, and calls of programs"] = whole - sum(found.values())
    print_parts(found, whole, len(sources), "sentence")


if __name__ == "__main__":
    main()
