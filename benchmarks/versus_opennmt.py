"""Our training and OpenNMT-py's, burst by burst in turn on one machine, on the same pieces: target tokens a second, and the ratio.

    python benchmarks/versus_opennmt.py WORK DATA --opennmt PYTHON

WORK is a folder for what is made on the way; DATA has train.src and train.tgt, split into pieces by spaces; PYTHON is the interpreter
of an environment with OpenNMT-py (tried with 3.5.1). Pieces that SentencePiece has made need `--ours --tokenizer.joiner ▁`. Both train the
same model:
transformer: pre-norm, 3+3 layers, width 256, MLP 1024, 4 heads, dropout 0.1 on residuals, attention and activations;
base: the same with 6+6 layers, width 512, MLP 2048 and 8 heads, the size of Vaswani et al. 2017;
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
import sys
from pathlib import Path

from turns import Runner, measure, measuring_options

HERE = Path(__file__).parent
SPECIAL = ["<unk>", "<blank>", "<s>", "</s>"]


MODELS = {
    "transformer": {
        **{"encoder_type": "transformer", "decoder_type": "transformer", "position_encoding": True},
        **{"enc_layers": 3, "dec_layers": 3, "heads": 4, "hidden_size": 256, "word_vec_size": 256, "transformer_ff": 1024},
        **{"dropout": [0.1], "attention_dropout": [0.1]},
    },
    "base": {
        **{"encoder_type": "transformer", "decoder_type": "transformer", "position_encoding": True},
        **{"enc_layers": 6, "dec_layers": 6, "heads": 8, "hidden_size": 512, "word_vec_size": 512, "transformer_ff": 2048},
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--opennmt", required=True, help="Python interpreter of OpenNMT-py's environment")
    parser.add_argument("--model", choices=MODELS, default="transformer")
    parser.add_argument("--steps", type=int, default=8, help="in a burst")
    measuring_options(parser)
    parser.add_argument("--ours", default=[], nargs=argparse.REMAINDER, help="settings of ours to change, as for `jaxnmt train`")
    words = parser.parse_args()
    words.work.mkdir(parents=True, exist_ok=True)
    work, data = words.work.resolve(), words.data.resolve()
    paced = str(HERE / "paced.py")
    peer = [words.opennmt, paced, "opennmt", "-config", str(opennmt_config(words.model, work, data))]
    mine = [sys.executable, paced, "jaxnmt", words.model, str(data / "train.src"), str(data / "train.tgt"), *words.ours]
    runners = [Runner("OpenNMT-py", peer, work / "opennmt.log"), Runner("jaxnmt", mine, work / "jaxnmt.log")]
    try:
        for runner in runners:
            runner.burst("2")  # warm: the first steps allocate
        measure(runners, str(words.steps), words)
    finally:
        for runner in runners:
            runner.process.kill()


if __name__ == "__main__":
    main()
