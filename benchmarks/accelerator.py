"""What an accelerator does: whether its numbers are right, and how fast training and decoding are. In one command.

    python benchmarks/accelerator.py FOLDER            # make bench-gpu
    python benchmarks/accelerator.py FOLDER --small    # the same on a CPU, with small sizes, to try the script

It writes FOLDER/accelerator.json and accelerator.md after each figure. A part that fails is reported, and the others go on. It needs
only the installed package: its text is random words. (Not yet run on a GPU; it is meant to take eight minutes.)
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

WORDS, LINES = 30_000, 20_000
Keep = Callable[[str, Any], None]
PARTS: dict[str, Callable[[pathlib.Path, bool, Keep], None]] = {}


def part(function):
    PARTS[function.__name__] = function
    return function


def text_of(folder: pathlib.Path, small: bool) -> list[str]:
    """Write pairs of random sentences of 10 to 60 words, whose frequencies are Zipf's, and return the flags that name them."""
    import numpy as np

    random, words, lines = np.random.default_rng(1), 500 if small else WORDS, 500 if small else LINES
    vocabulary = np.array([f"w{i}" for i in range(words)])
    chances = 1 / np.arange(1, words + 1)
    file = folder / "pairs.tsv"
    if not file.exists():
        sides = [[" ".join(random.choice(vocabulary, n, p=chances / chances.sum())) for n in random.integers(10, 60, lines)] for _ in "st"]
        file.write_text("".join(f"{a}\t{b}\n" for a, b in zip(*sides, strict=True)))
    return ["--data.train", str(file), "--data.validation", "--data.held-out", "64", "--tokenizer.kind", "words"]


def jaxnmt(*words: str, **environment: str) -> None:
    """Run a command of the package; raise with its last lines if it fails."""
    done = subprocess.run([sys.executable, "-m", "jaxnmt", *words], capture_output=True, text=True, env=os.environ | environment)
    if done.returncode:
        raise RuntimeError(f"jaxnmt {' '.join(words)}: {done.stderr[-2000:]}")


def in_a_process(function: str, small: bool, **environment: str) -> Any:
    """Return what a function of this file returns, called in a process of its own."""
    code = f"import accelerator, json; print(json.dumps(accelerator.{function}({small})))"
    here = str(pathlib.Path(__file__).parent)
    paths = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths} | environment
    )
    if done.returncode:
        raise RuntimeError(f"{function}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def seconds_of(call: Callable[[], Any], times: int = 10) -> float:
    """Return the median time of a call, after one that does not count."""
    import jax

    jax.block_until_ready(call())
    found = []
    for _ in range(times):
        began = time.perf_counter()
        jax.block_until_ready(call())
        found.append(time.perf_counter() - began)
    return statistics.median(found)


# ---- what runs in a process of its own


def products(small: bool) -> dict[str, float]:
    """FLOP/s of products of square matrices, eight in a row."""
    import jax
    import jax.numpy as jnp

    n, found = 256 if small else 8192, {"device": jax.devices()[0].device_kind}
    for dtype in ("bfloat16", "float32"):
        call = functools.partial(jax.jit(lambda x: jnp.linalg.matrix_power(x, 256)), jnp.full((n, n), 1 / n, dtype))
        found[dtype] = 8 * 2 * n**3 / seconds_of(call)
    return found


def attention(small: bool) -> dict[str, Any]:
    """Fused and plain attention of packed rows in bfloat16: the largest difference, relative to the largest value; milliseconds."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxnmt import config as cfg
    from jaxnmt.models.attention import attend
    from jaxnmt.models.fused_attention import Mask, fits
    from jaxnmt.parallel.sharding import make_mesh

    rows, length, heads, width = (2, 128, 2, 64) if small else (64, 256, 16, 64)
    mesh = make_mesh(cfg.Mesh(), jax.devices()[:1])
    q, k, v, out = (jax.random.normal(jax.random.key(i), (rows, length, heads, width), jnp.bfloat16) for i in range(4))
    segments = jnp.asarray(np.arange(length) // 40 + 1, jnp.int32)[None].repeat(rows, 0)

    class Either(nn.Module):
        def __call__(self, q, k, v, mask):
            return attend(self, q, k, v, mask, 0.0, None, mesh)

    found: dict[str, Any] = {"fused": fits(mesh, length, length, width, q.dtype)}
    for causal in (False, True):
        mask = Mask(segments, segments, causal)
        results, times = [], []
        for given in (mask, mask.dense()):

            def both(q, k, v, given=given):
                y, back = jax.vjp(lambda q, k, v: Either().apply({}, q, k, v, given), q, k, v)
                return y, *back(out)

            program = jax.jit(both)
            results.append([np.asarray(x, np.float32) for x in program(q, k, v)])
            times.append(1e3 * seconds_of(lambda program=program: program(q, k, v)))
        off = [np.abs(a - b).max() / np.abs(b).max() for a, b in zip(*results, strict=True)]
        found["causal" if causal else "whole"] = {"off": float(max(off)), "fused_ms": times[0], "plain_ms": times[1]}
    return found


def bits(small: bool) -> dict[str, Any]:
    """A hash of the parameters after some steps, taken twice from the same start, and the time of a step."""
    import jax
    import numpy as np

    from jaxnmt import config as cfg
    from jaxnmt.config.files import load_config
    from jaxnmt.data.packing import Shape
    from jaxnmt.models.seq2seq import build_model
    from jaxnmt.parallel.sharding import make_mesh
    from jaxnmt.training.step import TrainPrograms

    shape = Shape(4, 32, 32) if small else Shape(64, 256, 256)
    experiment = cfg.replace(load_config("transformer_small" if small else "wmt14_base"), **{"training.accumulation": 1})
    mesh = make_mesh(cfg.Mesh(), jax.devices()[:1])
    model = build_model(experiment.model, 8192, 8192, experiment.task)
    programs = TrainPrograms(model, experiment, mesh)
    random = np.random.default_rng(0)
    tokens = lambda length: random.integers(4, 8192, (shape.rows, length)).astype(np.int32)  # noqa: E731
    segments = np.ones((shape.rows, shape.source), np.int32)
    positions = np.broadcast_to(np.arange(shape.source, dtype=np.int32), segments.shape)
    batch = {"encoder_input_tokens": tokens(shape.source), "decoder_input_tokens": tokens(shape.target)}
    batch |= {"decoder_target_tokens": tokens(shape.target), "decoder_loss_weights": segments.astype(np.float32)}
    batch |= {f"{side}_{name}": x for side in ("encoder", "decoder") for name, x in (("segment_ids", segments), ("positions", positions))}
    programs.compile([shape], True)
    hashes, times = [], []
    for _ in range(2):
        state = programs.fresh(experiment.training)
        for _ in range(3 if small else 20):
            began = time.perf_counter()
            state, metrics = programs(state, shape, batch)
            jax.block_until_ready(metrics)
            times.append(time.perf_counter() - began)
        leaves = [np.asarray(x).tobytes() for x in jax.tree.leaves(state.params)]
        hashes.append(hashlib.sha256(b"".join(leaves)).hexdigest()[:16])
    return {"same": hashes[0] == hashes[1], "hashes": hashes, "step_ms": 1e3 * statistics.median(times[1:])}


# ---- the parts: each keeps what it has measured at once


@part
def matrix_products(folder: pathlib.Path, small: bool, keep: Keep) -> None:
    for name, value in in_a_process("products", small).items():
        keep(name, value)


@part
def fused_and_plain_attention(folder: pathlib.Path, small: bool, keep: Keep) -> None:
    for name, value in in_a_process("attention", small).items():
        keep(name, value)


@part
def determinism(folder: pathlib.Path, small: bool, keep: Keep) -> None:
    keep("as it is", in_a_process("bits", small))
    flag = " ".join([os.environ.get("XLA_FLAGS", ""), "--xla_gpu_deterministic_ops=true"])
    keep("xla_gpu_deterministic_ops", in_a_process("bits", small, XLA_FLAGS=flag))


@part
def training(folder: pathlib.Path, small: bool, keep: Keep) -> None:
    """Speed, and the memory of a device beside that of `plan`; what matters most comes first."""
    rows = [("wmt14_base", "bfloat16", 32768), ("wmt14_big", "bfloat16", 16384), ("lstm_luong", "bfloat16", 16384)]
    rows += [("wmt14_base", "float32", 16384), ("wmt14_big", "float32", 8192), ("lstm_luong", "float32", 16384)]
    if small:
        rows = [("transformer_small", "bfloat16", 512), ("lstm_luong", "float32", 512)]
    for name, dtype, tokens in rows:
        shape = ["--batching.max-shapes", "2"] if "lstm" in name else ["--batching.row-length", "64" if small else "256"]
        words = [*text_of(folder, small), "--model.dtype", dtype, "--batching.tokens", str(tokens), "--data.max-length", "64", *shape]
        file, plan = (folder / f"{name}_{dtype}{end}" for end in (".jsonl", "_plan.json"))
        found: dict[str, Any] = {}
        try:
            jaxnmt("bench", name, *words, "--tokenizer.vocab-size", "0", "--run-time", "3" if small else "8", "--json", str(file))
            record = json.loads(file.read_text().splitlines()[-1])
            kept = ("target_tokens_per_s", "utilisation", "padding", "input_wait", "compile_s", "peak_flops", "peak_device_memory_bytes")
            found |= {key: record[key] for key in kept if key in record}
            keep(f"{name} {dtype}", found)
            if dtype == "bfloat16":
                on = ["--on", "cpu:1" if small else "gpu", "--tokenizer.vocab-size", str(500 if small else WORDS)]
                jaxnmt("plan", name, *words, *on, "--json", str(plan), "--run", str(folder / "no run"))
                found["planned_memory_bytes"] = max(shape["memory"] for shape in json.loads(plan.read_text())["shapes"])
        except RuntimeError as error:
            found["failed"] = str(error)
        keep(f"{name} {dtype}", found)


@part
def decoding(folder: pathlib.Path, small: bool, keep: Keep) -> None:
    run, file = folder / "run", folder / "decoding.jsonl"
    config, sizes = ("transformer_small", ["8"]) if small else ("wmt14_base", ["64", "256"])
    test = folder / "test.tsv"
    words = [*text_of(folder, small), "--tokenizer.vocab-size", "0", "--data.test", str(test), "--data.max-length", "64"]
    short = [line for line in (folder / "pairs.tsv").read_text().splitlines() if len(line.split()) < 40]
    test.write_text("\n".join(short[: 8 if small else 256]) + "\n")
    limits = ["--training.steps", "2", "--schedule.warmup-steps", "1", "--validation.every", "1000", "--batching.tokens", "2048"]
    if not run.exists():
        jaxnmt("train", config, *words, *limits, "--run", str(run))
    jaxnmt("bench", str(run), "--run-time", "3" if small else "8", "--json", str(file), "--batch-sizes", *sizes)
    record = json.loads(file.read_text().splitlines()[-1])
    keep("one by one", {"sentences_per_s": 1 / record["latency_median_s"], "target_tokens_per_s": float("nan")})
    for batch in record["batches"]:
        keep(str(batch["batch_size"]), batch)


def table(found: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    device = found.get("matrix_products", {}).get("device", "an unknown device")
    lines = [
        f"Measured by `python benchmarks/accelerator.py` on {device}, one run.",
        "",
    ]
    rate = found.get("matrix_products", {})
    lines += ["| what | figure |", "|---|---:|"]
    lines += [f"| matrix products, {dtype}, TFLOP/s | {rate[dtype] / 1e12:,.1f} |" for dtype in ("bfloat16", "float32") if dtype in rate]
    for kind in ("whole", "causal"):
        if x := found.get("fused_and_plain_attention", {}).get(kind):
            lines.append(
                f"| attention, {kind}: fused; plain, ms; largest difference | {x['fused_ms']:.2f}; {x['plain_ms']:.2f}; {x['off']:.1e} |"
            )
    for flag, x in found.get("determinism", {}).items():
        if isinstance(x, dict):
            lines.append(f"| two trainings are equal to the bit, {flag}; ms a step | {'yes' if x['same'] else 'no'}; {x['step_ms']:.1f} |")
    lines += [
        "",
        "| training | target tokens/s | of the measured matrix rate | memory of the device, GiB | planned, GiB |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, x in found.get("training", {}).items():
        if "target_tokens_per_s" in x:
            flops, dtype = x["utilisation"] * x["peak_flops"], name.split()[1]
            used, planned = (f"{x[key] / 2**30:.2f}" if key in x else "" for key in ("peak_device_memory_bytes", "planned_memory_bytes"))
            lines.append(f"| {name} | {x['target_tokens_per_s']:,.0f} | {flops / rate.get(dtype, float('nan')):.0%} | {used} | {planned} |")
    lines += ["", "| decoding, beam 5, sentences together | sentences/s | tokens/s |", "|---|---:|---:|"]
    lines += [f"| {n} | {x['sentences_per_s']:,.0f} | {x['target_tokens_per_s']:,.0f} |" for n, x in found.get("decoding", {}).items()]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"seconds": {}, "failed": {}}

    def keep(part: str, name: str, value: Any) -> None:
        found.setdefault(part, {})[name] = value
        (options.folder / "accelerator.json").write_text(json.dumps(found, indent=1))
        (options.folder / "accelerator.md").write_text(table(found))

    for name in options.parts:
        began = time.perf_counter()
        try:
            PARTS[name](options.folder, options.small, functools.partial(keep, name))
        except Exception as error:
            keep("failed", name, str(error))
            traceback.print_exc()
        keep("seconds", name, round(time.perf_counter() - began, 1))
        print(f"{name}: {found['seconds'][name]} s", flush=True)
    print(table(found))
    return int(bool(found["failed"]) or any("failed" in row for row in found.get("training", {}).values()))


if __name__ == "__main__":
    sys.exit(main())
