"""Our decoding and CTranslate2's with the same weights, pass by pass in turn on one machine: sentences a second, and the ratio.

    python benchmarks/versus_ctranslate2.py RUN WORK --ctranslate2 PYTHON [--batch-size 64] [--quantize int8] [--ours patience=1]

RUN is a Transformer with pre-norm or post-norm, ReLU, sinusoidal positions and one vocabulary; WORK is a folder for intermediate files;
PYTHON the interpreter of an environment with ctranslate2 (tried with 4.8.5). Both translate the run's test sentences, one process each with
as many threads as there are cores. Both keep running, so start-up and compilation are not measured. CTranslate2 reads pieces; ours reads
text, and its time includes tokenising and detokenising. The last line says how many translations are equal.
"""

from __future__ import annotations

import argparse
import json
import operator
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from turns import Runner, measure, measuring_options

LONGEST = 512


def export(run, work: Path) -> None:
    """Write a run's weights and its test sentences' pieces to `weights.npz` and `sentences.json`."""
    import jax

    weights = {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in jax.tree_util.tree_leaves_with_path(run.params)}
    model, tokenizer = run.config.model, run.tokenizer
    from jaxnmt.models.layers import sinusoids

    np.savez(work / "weights.npz", positions=sinusoids(LONGEST, model.emb_dim), **weights)
    sentences = tokenizer.encode_source(run.test_set().sources)
    facts = {
        **{"encoder": model.num_encoder_layers, "decoder": model.num_decoder_layers, "heads": model.num_heads},
        **{"pre_norm": model.norm_order == "pre", "tokens": tokenizer.target_vocab_size, "sentences": sentences},
    }
    (work / "sentences.json").write_text(json.dumps(facts))


def build(work: Path) -> None:
    """Make a model folder of CTranslate2 out of what `export` wrote; runs in its environment."""
    import ctranslate2

    facts, w = json.loads((work / "sentences.json").read_text()), np.load(work / "weights.npz")
    spec = ctranslate2.specs.TransformerSpec.from_config((facts["encoder"], facts["decoder"]), facts["heads"], pre_norm=facts["pre_norm"])
    tokens = facts["tokens"]

    def linear(part, name: str) -> None:
        """Our kernel (in, out), whose output may have several axes, is its weight (out, in)."""
        bias = w[f"{name}/bias"].reshape(-1)
        part.weight, part.bias = np.ascontiguousarray(w[f"{name}/kernel"].reshape(-1, len(bias)).T), bias

    def norm(part, name: str) -> None:
        part.gamma, part.beta = w[f"{name}/scale"], w[f"{name}/bias"]

    for side, stack in (("encoder", spec.encoder), ("decoder", spec.decoder)):
        stack.position_encodings.encodings = w["positions"]
        if facts["pre_norm"]:
            norm(stack.layer_norm, f"{side}/final_norm")
        for i, layer in enumerate(stack.layer):
            name = f"{side}/layer_{i}"
            linear(layer.self_attention.linear[0], f"{name}/self_attention/qkv")
            linear(layer.self_attention.linear[1], f"{name}/self_attention/out")
            norm(layer.self_attention.layer_norm, f"{name}/self_attention_norm")
            if side == "decoder":
                for part, kernel in zip(layer.attention.linear, ("q", "kv", "out"), strict=True):
                    linear(part, f"{name}/cross_attention/{kernel}")
                norm(layer.attention.layer_norm, f"{name}/cross_attention_norm")
            linear(layer.ffn.linear_0, f"{name}/mlp/wi")
            linear(layer.ffn.linear_1, f"{name}/mlp/wo")
            norm(layer.ffn.layer_norm, f"{name}/mlp_norm")
    table = w["shared_embedding/table"][:tokens]
    spec.encoder.embeddings[0].weight = spec.decoder.embeddings.weight = spec.decoder.projection.weight = table
    spec.decoder.projection.bias = np.where(np.isin(np.arange(tokens), (0, 1)), np.float32(-1e9), np.float32(0))  # PAD, BOS
    spec.decoder.start_from_zero_embedding = False
    names = ["<pad>", "<s>", "</s>", *map(str, range(3, tokens))]
    spec.register_source_vocabulary(names)
    spec.register_target_vocabulary(names)
    spec.config.bos_token, spec.config.eos_token, spec.config.unk_token, spec.config.decoder_start_token = "<s>", "</s>", "3", "<s>"
    spec.validate()
    (work / "model").mkdir(exist_ok=True)
    spec.save(str(work / "model"))


def ctranslate2(work: Path, quantize: str) -> None:
    """Translate whenever a line of JSON says with which options; runs in CTranslate2's environment."""
    import ctranslate2

    model = ctranslate2.Translator(str(work / "model"), compute_type=quantize, inter_threads=1, intra_threads=os.cpu_count())
    sentences = [[*map(str, ids), "</s>"] for ids in json.loads((work / "sentences.json").read_text())["sentences"]]

    def translate(options: dict) -> list[list[int]]:
        names = {"beam_size": "beam_size", "batch_size": "max_batch_size", "patience": "patience", "length_penalty": "length_penalty"}
        found = model.translate_batch(sentences, **{names[name]: value for name, value in options.items()}, max_decoding_length=256)
        return [[int(token) for token in result.hypotheses[0]] for result in found]

    _serve(translate, len(sentences), work / "ctranslate2.json")


def ours(run, work: Path, extra: dict) -> None:
    """Translate whenever a line of JSON says with which options."""
    sources = run.test_set().sources

    def translate(options: dict) -> list[list[int]]:
        return [[token for _, target in found.parts for token in target] for found in run.translate(sources, **extra | options)]

    _serve(translate, len(sources), work / "ours.json")


def _serve(translate, count: int, output: Path) -> None:
    for line in sys.stdin:
        began = time.perf_counter()
        found = translate(json.loads(line))
        seconds = time.perf_counter() - began
        output.write_text(json.dumps(found))
        print("BURST " + json.dumps({"units": count, "seconds": seconds}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--ctranslate2", help="Python interpreter of an environment with ctranslate2")
    parser.add_argument("--beam-size", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--quantize", default="float32", help="CTranslate2's compute_type")
    parser.add_argument("--ours", default=[], nargs="*", help="decoding settings of ours, such as patience=1")
    parser.add_argument("--as", dest="role", choices=["build", "ctranslate2", "ours"], help=argparse.SUPPRESS)
    measuring_options(parser)
    words = parser.parse_args()
    words.work.mkdir(parents=True, exist_ok=True)
    if words.role in ("build", "ctranslate2"):
        build(words.work) if words.role == "build" else ctranslate2(words.work, words.quantize)
        return
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import jaxnmt

    run = jaxnmt.load(words.run)
    if words.role == "ours":
        ours(run, words.work, dict(map(_setting, words.ours)))
        return
    export(run, words.work)
    ourselves, quantize = [__file__, str(words.run), str(words.work)], ["--quantize", words.quantize]
    subprocess.run([words.ctranslate2, *ourselves, "--as", "build"], check=True)
    runners = [
        Runner("CTranslate2", [words.ctranslate2, *ourselves, *quantize, "--as", "ctranslate2"], words.work / "peer.log"),
        Runner("jaxnmt", [sys.executable, *ourselves, "--as", "ours", "--ours", *words.ours], words.work / "ours.log"),
    ]
    order = json.dumps({"beam_size": words.beam_size, "batch_size": words.batch_size})
    try:
        for runner in runners:
            runner.burst(order)  # warm: ours compiles
        measure(runners, order, words)
    finally:
        for runner in runners:
            runner.process.kill()
    theirs, mine = (json.loads((words.work / name).read_text()) for name in ("ctranslate2.json", "ours.json"))
    print(f"{sum(map(operator.eq, theirs, mine))} of {len(mine)} translations have the same tokens")


def _setting(word: str) -> tuple[str, object]:
    """Return the name and value of `name=value`."""
    name, _, value = word.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


if __name__ == "__main__":
    main()
