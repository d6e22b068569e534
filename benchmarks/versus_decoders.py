"""Our decoding and a peer's with the same weights, pass by pass in turn on one machine: sentences a second, and the ratio.

    python benchmarks/versus_decoders.py RUN WORK --ctranslate2 PYTHON [--batch-size 64] [--quantize int8] [--ours patience=1]
    python benchmarks/versus_decoders.py RUN WORK --opennmt PYTHON
    python benchmarks/versus_decoders.py RUN WORK --joey PYTHON

RUN is a Transformer with ReLU, sinusoidal positions, one vocabulary, and pre-norm; with CTranslate2 any that `jaxnmt export` writes for it.
WORK is a folder for intermediate files; PYTHON the interpreter of an environment with the peer (tried with CTranslate2 4.8.5,
OpenNMT-py 3.5.1, Joey NMT 2.3.0).
Both translate the run's test sentences, one process each with as many threads as there are cores. Both keep running, so start-up and
compilation are not measured. The peer reads pieces; ours reads text, and its time includes tokenising and detokenising. With
`--batch-size 1` a sentence is given once the last one is translated. CTranslate2 and OpenNMT-py sort the sentences by length, Joey NMT
does not. OpenNMT-py and Joey NMT divide scores as `length_normalization=gnmt` does and end a search by rules of their own. The last lines
say how many translations are equal, and BLEU.
"""

from __future__ import annotations

import argparse
import json
import operator
import shutil
import sys
from pathlib import Path

import numpy as np
from turns import Runner, measure, measuring_options

HERE = Path(__file__).resolve().parent
PEERS = {"ctranslate2": "CTranslate2", "opennmt": "OpenNMT-py", "joey": "Joey NMT"}
LONGEST = 5000
"""Position vectors, as many as OpenNMT-py and Joey NMT have."""


def export_ctranslate2(run, folder: Path) -> None:
    """Write a run as CTranslate2's model folder, without the check of `jaxnmt export`: this script compares the translations itself."""
    from jaxnmt.interop import ctranslate2

    if problem := ctranslate2.refusal(run):
        sys.exit(problem)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    ctranslate2.write(run, folder)


def export(run, work: Path) -> None:
    """Write a run's weights and sizes to `weights.npz` and `facts.json`."""
    import jax

    from jaxnmt.data.special_tokens import BOS, PAD
    from jaxnmt.models.layers import NORM_EPSILON, sinusoids

    weights = {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in jax.tree_util.tree_leaves_with_path(run.params)}
    model, tokenizer = run.config.model, run.tokenizer
    tokens = tokenizer.target_vocab_size
    weights["table"] = np.asarray(weights.pop("shared_embedding/table"))[:tokens]
    weights["output_bias"] = np.where(np.isin(np.arange(tokens), (PAD, BOS)), np.float32(-1e9), np.float32(0))
    np.savez(work / "weights.npz", positions=sinusoids(LONGEST, model.emb_dim), **weights)
    facts = {
        **{"encoder": model.num_encoder_layers, "decoder": model.num_decoder_layers, "heads": model.num_heads, "tokens": tokens},
        **{"width": model.emb_dim, "mlp_width": model.mlp_dim, "pre_norm": model.norm_order == "pre", "norm_epsilon": NORM_EPSILON},
    }
    (work / "facts.json").write_text(json.dumps(facts))


def compare(run, found: dict[str, list[list[int]]]) -> None:
    """Print how many translations are equal, and each program's BLEU."""
    from jaxnmt.evaluation.scores import bleu

    theirs, mine = found.values()
    print(f"{sum(map(operator.eq, theirs, mine))} of {len(mine)} translations have the same tokens")
    test = run.test_set()
    references = [lines[: len(mine)] for lines in test.references]
    for name, targets in found.items():
        print(f"BLEU {bleu(list(map(run.tokenizer.decode_target, targets)), references, test.tokenize).value:.2f}  {name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("work", type=Path)
    peer = parser.add_mutually_exclusive_group(required=True)
    for name, title in PEERS.items():
        peer.add_argument(f"--{name}", metavar="PYTHON", help=f"Python interpreter of an environment with {title}")
    parser.add_argument("--checkpoint", default="best", help="as `jaxnmt.load` reads it")
    parser.add_argument("--beam-size", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--sentences", type=int, help="only so many of the test sentences, the first ones")
    parser.add_argument("--quantize", help="CTranslate2's compute_type, if not float32")
    parser.add_argument("--ours", default=[], nargs="*", help="decoding settings of ours, such as patience=1, and weights=int8")
    measuring_options(parser)
    words = parser.parse_args()
    words.work.mkdir(parents=True, exist_ok=True)
    sys.path.insert(0, str(HERE.parent))
    import jaxnmt

    name, python = next((name, python) for name in PEERS if (python := getattr(words, name)))
    run = jaxnmt.load(words.run, int(words.checkpoint) if words.checkpoint.isdigit() else words.checkpoint)
    if name != "ctranslate2" and run.config.model.norm_order != "pre":
        sys.exit(f"{words.run} has post-norm, and {PEERS[name]} is measured with pre-norm only: give a run with --model.norm-order pre")
    export_ctranslate2(run, words.work / "model") if name == "ctranslate2" else export(run, words.work)
    texts = run.test_set().sources[: words.sentences]
    (words.work / "sentences.json").write_text(json.dumps({"texts": texts, "ids": run.tokenizer.encode_source(texts)}))
    program, work = str(HERE / "decoders.py"), str(words.work)
    quantize = [words.quantize] if words.quantize else []
    runners = [
        Runner(PEERS[name], [python, program, name, work, *quantize], words.work / "peer.log"),
        Runner("jaxnmt", [sys.executable, program, "jaxnmt", work, str(words.run), words.checkpoint, *words.ours], words.work / "ours.log"),
    ]
    order = json.dumps({"beam_size": words.beam_size, "batch_size": words.batch_size})
    try:
        for runner in runners:
            runner.burst(order)  # warm: ours compiles
        measure(runners, order, words)
    finally:
        for runner in runners:
            runner.process.kill()
    compare(run, {PEERS.get(program, program): json.loads((words.work / f"{program}.json").read_text()) for program in (name, "jaxnmt")})


if __name__ == "__main__":
    main()
