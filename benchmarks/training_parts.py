"""Where the CPU time of a training step of a Transformer goes: by JAX's profiler, on one core.

    taskset -c 0 python benchmarks/training_parts.py CONFIG [--steps 4] [settings, as for `jaxnmt train`]

The first steps are not profiled. The parts add up to the CPU time of the process if nothing else runs on the core.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from profiled import dump_programs, print_parts, seconds_of_parts

SKIPPED = 2
PARTS = {  # the first one that matches `name in JAX, operation, [shape of the result]`
    "output layer: products": r"(while|projected_cross_entropy|jvp\(\)).*(BTD,VD|BTV,VD|NBTV,NBTD)[^ ]*dot_general",
    "output layer: softmax and loss": r"while/body",
    "feed-forward: products": r"/mlp/[^ ]*dot_general",
    "attention: products with weights": r"_attention/(qkv|q|kv|out|project)[^ ]*dot_general",
    "attention: scores, softmax, mixing": r"_attention",
    "feed-forward: activation, dropout, bias": r"/mlp/",
    "norms": r"norm",
    "embeddings, positions": r"embedding|embed|positions|gather|scatter",
    "update": r"add_any|scale_by|adam|optimizer|apply|sqrt|integer_pow",
    "residuals and dropout": r"encoder|decoder",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--names", action="store_true", help="print the names of the costliest operations that no part claims")
    options, settings = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        dump_programs(folder)
        from jaxnmt.parallel import compiler

        compiler.use_right_fusions()
        import jax
        import tyro

        from jaxnmt import Experiment, Hook, load_config
        from jaxnmt.lab.benchmark import Measurement

        experiment = tyro.cli(Experiment, args=settings, default=load_config(options.config))
        spent: list[float] = []

        class Profiled(Hook):
            def record(self, trainer: Any, finished: Any) -> None:
                if finished.step == SKIPPED:
                    profile = jax.profiler.ProfileOptions()
                    profile.python_tracer_level = 0
                    jax.profiler.start_trace(folder, profiler_options=profile)
                if finished.step in (SKIPPED, SKIPPED + options.steps):
                    spent.append(time.process_time())
                if finished.step == SKIPPED + options.steps:
                    jax.profiler.stop_trace()
                    trainer.stop("measured")

        with tempfile.TemporaryDirectory() as run:
            Measurement(experiment, Path(run), [Profiled()]).run()
        found = seconds_of_parts(Path(folder), PARTS)
    whole = spent[1] - spent[0]
    found["Python, batches, and calls of programs"] = whole - sum(found.values())
    print_parts(found, whole, options.steps, "step")


if __name__ == "__main__":
    main()
