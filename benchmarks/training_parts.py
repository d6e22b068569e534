"""Where the CPU time of a training step of a Transformer goes: by JAX's profiler, on one core.

    taskset -c 0 python benchmarks/training_parts.py CONFIG [--steps 4] [--ours data.train=TRAIN.de,TRAIN.en model.dropout=0.2]

The first steps are not profiled. The parts add up to the CPU time of the process if nothing else runs on the core.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import time
from pathlib import Path
from typing import Any

from profiled import dump_programs, print_parts, seconds_of_parts

SKIPPED = 2
PARTS = {  # the first one that matches `name in JAX, operation, [shape of the result]`; sums that several operations share have no name
    "output layer: products": r"while/body/.*(dot_general| dot )|^(product)? fusion \[\d{4,},",
    "output layer: softmax and loss": r"while/body|^(product)? fusion \[1,\d+,",
    "update": r"cond/branch|train_step\)/(square|add|mul|sqrt)",
    "feed-forward: products": r"/mlp/.*(dot_general| dot )",
    "feed-forward: activation, dropout, biases": r"/mlp/|^(product)? fusion \[\d+,\d+,\d{4,}\]",
    "attention: products with weights": r"_attention(\.project)?/(qkv|q|kv|out)/.*(dot_general| dot )",
    "attention: scores, softmax, dropout, mixing": r"_attention",
    "norms, residuals, embeddings, biases": r"encoder|decoder|embedding|^(product)? fusion",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--ours", default=[], nargs="*", help="settings, such as model.dropout=0.2")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        dump_programs(folder)
        from jaxnmt.parallel import compiler

        compiler.use_right_fusions()
        import jax

        from jaxnmt import Hook, load_config, replace
        from jaxnmt.lab.benchmark import Measurement

        experiment = load_config(options.config)
        for name, _, value in (each.partition("=") for each in options.ours):
            now = functools.reduce(getattr, name.split("."), experiment)
            experiment = replace(experiment, **{name: (value,) if isinstance(now, tuple) else type(now)(value)})
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
