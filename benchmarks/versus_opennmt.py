"""Our training and OpenNMT-py's, burst by burst in turn on one machine, on the same pieces: target tokens a second, and the ratio.

    python benchmarks/versus_opennmt.py WORK DATA --opennmt PYTHON

WORK is a folder for what is made on the way; DATA has train.src and train.tgt, split into pieces by spaces; PYTHON is the interpreter
of an environment with OpenNMT-py (tried with 3.5.1). Pieces that SentencePiece has made need `--ours --tokenizer.joiner ▁`. Both train the
same model:
transformer: pre-norm, 3+3 layers, width 256, MLP 1024, 4 heads, dropout 0.1 on residuals, attention and activations;
lstm: one bidirectional encoder layer of 256 each way, one decoder layer of 512 with input feeding and Luong's general attention, word
vectors of 512, dropout 0.1.
Either has one vocabulary and one embedding matrix (of every piece of the text), label smoothing 0.1, Adam, float32, batches of 4096
target positions. Both processes live all the while and wait for their turn, so that start-up and compilation are in no figure, and a
machine that slows down slows both. Tokens are those of the targets with their end token, padding not counted. A pair during which other
processes used more than --foreign of the cores is measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
SPECIAL = ["<unk>", "<blank>", "<s>", "</s>"]


MODELS = {
    "transformer": {
        **{"encoder_type": "transformer", "decoder_type": "transformer", "position_encoding": True},
        **{"enc_layers": 3, "dec_layers": 3, "heads": 4, "hidden_size": 256, "word_vec_size": 256, "transformer_ff": 1024},
        **{"dropout": [0.1], "attention_dropout": [0.1]},
    },
    "lstm": {
        **{"encoder_type": "brnn", "decoder_type": "rnn", "rnn_type": "LSTM", "enc_layers": 1, "dec_layers": 1},
        **{"hidden_size": 512, "word_vec_size": 512, "global_attention": "general", "input_feed": 1, "dropout": [0.1]},
    },
}


def opennmt_config(model: str, work: Path, data: Path) -> Path:
    """OpenNMT-py's settings and vocabulary in files."""
    pieces = sorted({piece for side in ("src", "tgt") for piece in (data / f"train.{side}").read_text(encoding="utf-8").split()})
    vocabulary = work / "pieces.txt"
    vocabulary.write_text("\n".join(SPECIAL + pieces) + "\n", encoding="utf-8")
    settings = {
        "data": {"corpus": {"path_src": str(data / "train.src"), "path_tgt": str(data / "train.tgt")}},
        "save_data": str(work / "opennmt"),
        "save_model": str(work / "opennmt"),
        "overwrite": True,
        **{"src_vocab": str(vocabulary), "tgt_vocab": str(vocabulary), "share_vocab": True},
        **{"share_embeddings": True, "share_decoder_embeddings": True},
        **MODELS[model],
        **{"label_smoothing": 0.1, "param_init": 0, "param_init_glorot": True},
        **{"optim": "adam", "adam_beta2": 0.98, "learning_rate": 0.0005, "max_grad_norm": 0, "normalization": "tokens"},
        **{"batch_type": "tokens", "batch_size": 4096, "accum_count": [1], "bucket_size": 29000, "num_workers": 0},
        **{"train_steps": 1000000, "valid_steps": 10000000, "save_checkpoint_steps": 10000000, "report_every": 1000000},
    }
    path = work / "opennmt.yaml"
    path.write_text(json.dumps(settings, indent=2))  # JSON is YAML
    return path


class Runner:
    """A training process that does so many steps when told to."""

    def __init__(self, name: str, command: list[str], log: Path):
        self.name, self.log = name, log
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": str(os.cpu_count())}
        with log.open("w") as errors:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
            )

    def burst(self, steps: int) -> dict:
        """-> {"tokens", "seconds", "foreign"}: of so many steps; `foreign` is the share of the cores that others used."""
        others, began = _others(self.process.pid), time.perf_counter()
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        while True:
            line = self.process.stdout.readline()
            if not line:
                sys.exit(f"{self.name} ended; its messages are in {self.log}")
            if line.startswith("BURST "):
                break
        foreign = (_others(self.process.pid) - others) / (time.perf_counter() - began) / os.cpu_count()
        return json.loads(line.removeprefix("BURST ")) | {"foreign": max(foreign, 0.0)}


def _others(pid: int) -> float:
    """CPU seconds that the machine has spent on anything but a process."""
    busy = list(map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]))
    own = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (sum(busy) - busy[3] - busy[4] - int(own[11]) - int(own[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--opennmt", required=True, help="Python interpreter of OpenNMT-py's environment")
    parser.add_argument("--model", choices=MODELS, default="transformer")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="in a burst")
    parser.add_argument("--tries", type=int, default=10, help="pairs at most, those that were disturbed among them")
    parser.add_argument("--foreign", type=float, default=0.08, help="share of the cores from which on a pair counts as disturbed")
    parser.add_argument("--ours", default=[], nargs=argparse.REMAINDER, help="settings of ours to change, as for `jaxnmt train`")
    words = parser.parse_args()
    words.work.mkdir(parents=True, exist_ok=True)
    work, data = words.work.resolve(), words.data.resolve()
    paced = str(HERE / "paced.py")
    peer = [words.opennmt, paced, "opennmt", "-config", str(opennmt_config(words.model, work, data))]
    mine = [sys.executable, paced, "jaxnmt", words.model, str(data / "train.src"), str(data / "train.tgt"), *words.ours]
    runners = [Runner("OpenNMT-py", peer, work / "opennmt.log"), Runner("jaxnmt", mine, work / "jaxnmt.log")]
    try:
        measure(runners, words)
    finally:
        for runner in runners:
            runner.process.kill()


def measure(runners: list[Runner], words: argparse.Namespace) -> None:
    """Print each pair; at the end the medians, of the undisturbed pairs where there are enough."""
    for runner in runners:
        runner.burst(2)  # warm: the first steps allocate
    pairs: list[tuple[float, float, float]] = []
    print("OpenNMT-py   jaxnmt   ratio   others' share of the cores")
    for _ in range(max(words.tries, words.pairs)):
        results = [runner.burst(words.steps) for runner in runners]
        peer, ours = (result["tokens"] / result["seconds"] for result in results)
        foreign = max(result["foreign"] for result in results)
        pairs.append((foreign, peer, ours))
        told = " and ".join(f"{result['foreign']:.0%}" for result in results)
        print(f"{peer:10.0f} {ours:8.0f} {ours / peer:7.2f}   {told}{'  disturbed' if foreign > words.foreign else ''}", flush=True)
        if sum(foreign <= words.foreign for foreign, *_ in pairs) == words.pairs:
            break
    quiet = [pair for pair in pairs if pair[0] <= words.foreign]
    chosen = quiet if len(quiet) >= words.pairs else sorted(pairs)[: words.pairs]
    peer, ours, ratio = (statistics.median(values) for values in zip(*[(p, o, o / p) for _, p, o in chosen], strict=True))
    kind = "undisturbed" if chosen is quiet else f"least disturbed (only {len(quiet)} of {len(pairs)} were not)"
    print(f"{peer:10.0f} {ours:8.0f} {ratio:7.2f}   medians of {len(chosen)} pairs, {kind}")


if __name__ == "__main__":
    main()
