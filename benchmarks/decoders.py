"""Translate a run's test sentences with one decoder, ours or another toolkit's, once for each line on stdin; for `versus_decoders.py`.

    python decoders.py ctranslate2 WORK [int8]
    python decoders.py opennmt|joey WORK
    python decoders.py jaxnmt WORK RUN CHECKPOINT [patience=1 ...]

WORK has what `versus_decoders.export` wrote. Each line on stdin is JSON with `beam_size` and `batch_size`. If `batch_size` is 1, each
sentence is translated in a call of its own, one after the other; otherwise one call translates all. The script then writes the target ids
to WORK/NAME.json, and a line `BURST {"units": .., "seconds": ..}` to stdout, in which `units` is the number of sentences.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np

PAD, BOS, EOS, UNK = range(4)
LIMIT = 256
"""Tokens in a translation at most, for the peers; two of them also have a limit by the source's length, 1.5 times as ours."""

Translate = Callable[[list, dict], list[list[int]]]


class Weights:
    """A run's weights, a module at a time."""

    def __init__(self, work: Path):
        self.arrays = np.load(work / "weights.npz")

    def __getitem__(self, module: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the weight of a dense layer as (out, in), or a norm's (width,); and the bias."""
        bias = self.arrays[f"{module}/bias"].reshape(-1)
        if f"{module}/scale" in self.arrays:
            return self.arrays[f"{module}/scale"], bias
        return np.ascontiguousarray(self.arrays[f"{module}/kernel"].reshape(-1, len(bias)).T), bias


def ctranslate2(work: Path, quantize: str = "float32") -> Translate:
    """Return CTranslate2's translator of WORK/model, which `versus_decoders.py` wrote; a sentence is its source ids."""
    import ctranslate2

    def vocabulary(side: str) -> list[str]:
        shared = work / "model/shared_vocabulary.json"
        return json.loads((shared if shared.exists() else work / f"model/{side}_vocabulary.json").read_text(encoding="utf-8"))

    source, ids = vocabulary("source"), {piece: index for index, piece in enumerate(vocabulary("target"))}
    model = ctranslate2.Translator(str(work / "model"), compute_type=quantize, inter_threads=1, intra_threads=os.cpu_count())

    def translate(sentences: list, order: dict) -> list[list[int]]:
        pieces = [[source[index] for index in each] for each in sentences]
        sizes = {"beam_size": order["beam_size"], "max_batch_size": order["batch_size"]}
        found = model.translate_batch(pieces, **sizes, max_decoding_length=LIMIT)
        return [[ids[piece] for piece in result.hypotheses[0]] for result in found]

    return translate


OPENNMT = {
    "encoder": {
        "": "encoder.transformer",
        "self_attention_norm": "layer_norm",
        "self_attention/qkv": "self_attn.linear_query self_attn.linear_keys self_attn.linear_values",
        "self_attention/out": "self_attn.final_linear",
        "mlp_norm": "feed_forward.layer_norm",
        "mlp/wi": "feed_forward.w_1",
        "mlp/wo": "feed_forward.w_2",
    },
    "decoder": {
        "": "decoder.transformer_layers",
        "self_attention_norm": "layer_norm_1",
        "self_attention/qkv": "self_attn.linear_query self_attn.linear_keys self_attn.linear_values",
        "self_attention/out": "self_attn.final_linear",
        "cross_attention_norm": "layer_norm_2",
        "cross_attention/q": "context_attn.linear_query",
        "cross_attention/kv": "context_attn.linear_keys context_attn.linear_values",
        "cross_attention/out": "context_attn.final_linear",
        "mlp_norm": "feed_forward.layer_norm",
        "mlp/wi": "feed_forward.w_1",
        "mlp/wo": "feed_forward.w_2",
    },
}
JOEY = {
    "encoder": {
        "": "encoder.layers",
        "self_attention_norm": "layer_norm",
        "self_attention/qkv": "src_src_att.q_layer src_src_att.k_layer src_src_att.v_layer",
        "self_attention/out": "src_src_att.output_layer",
        "mlp_norm": "feed_forward.layer_norm",
        "mlp/wi": "feed_forward.pwff_layer.0",
        "mlp/wo": "feed_forward.pwff_layer.3",
    },
    "decoder": {
        "": "decoder.layers",
        "self_attention_norm": "x_layer_norm",
        "self_attention/qkv": "trg_trg_att.q_layer trg_trg_att.k_layer trg_trg_att.v_layer",
        "self_attention/out": "trg_trg_att.output_layer",
        "cross_attention_norm": "dec_layer_norm",
        "cross_attention/q": "src_trg_att.q_layer",
        "cross_attention/kv": "src_trg_att.k_layer src_trg_att.v_layer",
        "cross_attention/out": "src_trg_att.output_layer",
        "mlp_norm": "feed_forward.layer_norm",
        "mlp/wi": "feed_forward.pwff_layer.0",
        "mlp/wo": "feed_forward.pwff_layer.3",
    },
}
"""For each side the peer's list of layers, and for each module of a layer of ours its module, or several that ours is split into."""


def layers_state(work: Path, names: dict[str, dict[str, str]]) -> dict:
    """Return the tensors of the layers, and of the norm at the end of each stack, by a peer's names."""
    import torch

    facts, weights, state = json.loads((work / "facts.json").read_text()), Weights(work), {}
    for side, modules in names.items():
        pairs = [(f"{side}.layer_norm", weights[f"{side}/final_norm"])]
        for i in range(facts[side]):
            for ours, theirs in modules.items():
                if ours:
                    parts = theirs.split()
                    split = zip(*(np.split(array, len(parts)) for array in weights[f"{side}/layer_{i}/{ours}"]), strict=True)
                    pairs += [(f"{modules['']}.{i}.{part}", pair) for part, pair in zip(parts, split, strict=True)]
        for name, (weight, bias) in pairs:
            state |= {f"{name}.weight": torch.tensor(weight), f"{name}.bias": torch.tensor(bias)}
    return state


def opennmt(work: Path) -> Translate:
    """Return OpenNMT-py's translator, which sorts by length, makes the batches, and reads and writes pieces; a sentence is its ids."""
    import onmt.translate
    from onmt import opts
    from onmt.constants import CorpusTask
    from onmt.inputters.dynamic_iterator import build_dynamic_dataset_iter
    from onmt.utils.parse import ArgumentParser

    model, vocabs, model_options = opennmt_model(work)
    pieces, parser, required = vocabs["tgt"].ids_to_tokens, ArgumentParser(), ["-model", "", "-src", "", "-output", os.devnull]
    ids = {piece: index for index, piece in enumerate(pieces)}
    opts.translate_opts(parser)
    nowhere = open(os.devnull, "w")

    @functools.cache  # a call for one sentence should not pay for it
    def prepare(beam_size: int, batch_size: int) -> tuple:
        sizes = ["-beam_size", beam_size, "-batch_size", batch_size, "-batch_type", "sents"]
        rules = ["-length_penalty", "wu", "-alpha", 1, "-max_length", LIMIT, "-max_length_ratio", 1.5]
        options = parser.parse_args([*required, *map(str, sizes + rules)])
        ArgumentParser.validate_translate_opts_dynamic(options)
        rest = {"global_scorer": onmt.translate.GNMTGlobalScorer.from_opt(options), "out_file": nowhere, "report_score": False}
        return options, onmt.translate.Translator.from_opt(model, vocabs, options, model_options, **rest)

    def translate(sentences: list, order: dict) -> list[list[int]]:
        options, translator = prepare(order["beam_size"], order["batch_size"])
        lines = [" ".join(pieces[index] for index in [*source, EOS]) for source in sentences]
        batches = build_dynamic_dataset_iter(options, {}, vocabs, task=CorpusTask.INFER, src=lines)
        _, found = translator._translate(batches, batches.transforms)
        return [[ids[piece] for piece in best.split()] for best, *_ in found]

    return translate


def opennmt_model(work: Path) -> tuple:
    """Return OpenNMT-py's model, its vocabularies and its options."""
    import torch
    from onmt import opts
    from onmt.inputters.inputter import dict_to_vocabs
    from onmt.model_builder import build_base_model
    from onmt.utils.parse import ArgumentParser

    facts, arrays = json.loads((work / "facts.json").read_text()), Weights(work).arrays
    pieces = ["<blank>", "<s>", "</s>", "<unk>", *map(str, range(4, facts["tokens"]))]
    vocabs = dict_to_vocabs({"src": pieces, "tgt": pieces, "data_task": "seq2seq", "decoder_start_token": "<s>"})
    vocabs["src"].default_id = UNK
    parser = ArgumentParser()
    opts.train_opts(parser)
    options = parser.parse_args(["-data", "{}", "-src_vocab", ""])  # the defaults of a training, as its checkpoints have them
    vars(options).update(
        **{"encoder_type": "transformer", "decoder_type": "transformer", "enc_layers": facts["encoder"], "dec_layers": facts["decoder"]},
        **{"hidden_size": facts["width"], "word_vec_size": facts["width"], "transformer_ff": facts["mlp_width"], "heads": facts["heads"]},
        **{
            "add_qkvbias": True,
            "add_ffnbias": True,
            "norm_eps": facts["norm_epsilon"],
            "position_encoding": True,
            "dropout": [0.0],
            "attention_dropout": [0.0],
        },
        **{"share_embeddings": True, "share_decoder_embeddings": True},
    )
    ArgumentParser.update_model_opts(options)
    ArgumentParser.validate_model_opts(options)
    state = layers_state(work, OPENNMT)
    table, bias, positions = (torch.tensor(arrays[name]) for name in ("table", "output_bias", "positions"))
    state |= {"generator.weight": table, "generator.bias": bias}
    for side in ("encoder", "decoder"):
        embedding = f"{side}.embeddings.make_embedding"
        state |= {f"{embedding}.emb_luts.0.weight": table, f"{embedding}.pe.pe": positions[:, None]}
    model = build_base_model(options, vocabs)
    model.load_state_dict({"model": state, "generator": None})
    return model.eval(), vocabs, options


def joey(work: Path) -> Translate:
    """Return Joey NMT's translator, which makes batches in the order that it is given, reads and writes pieces; a sentence is its ids."""
    import torch
    from joeynmt.config import TestConfig
    from joeynmt.datasets import StreamDataset
    from joeynmt.prediction import predict
    from joeynmt.tokenizers import BasicTokenizer

    model = joey_model(work)
    tokenizer, sides = BasicTokenizer(level="word"), ("source", "target")
    tokenizer.set_vocab(model.src_vocab)
    parts = {"tokenizer": dict.fromkeys(sides, tokenizer), "sequence_encoder": dict.fromkeys(sides, model.src_vocab.sentences_to_ids)}
    defaults = {
        **{"load_model": None, "batch_type": "sentence", "eval_metrics": [], "sacrebleu_cfg": None, "return_attention": False},
        **{"return_prob": "none", "generate_unk": True, "repetition_penalty": -1, "no_repeat_ngram_size": -1, "n_best": 1},
        **{"beam_alpha": 1.0, "min_output_length": 1, "max_output_length": -1},
    }

    def translate(sentences: list, order: dict) -> list[list[int]]:
        data = StreamDataset("", *sides, has_prompt=dict.fromkeys(sides, False), **parts)
        for source in sentences:
            data.set_item(" ".join(map(str, source)))
        options = TestConfig(**defaults, beam_size=order["beam_size"], batch_size=order["batch_size"])
        autocast = {"device_type": "cpu", "enabled": False}
        _, _, _, found, _, _ = predict(model, data, torch.device("cpu"), n_gpu=0, args=options, autocast=autocast)
        return [[int(piece) for piece in target if piece != str(EOS)] for target in found]

    return translate


def joey_model(work: Path):
    """Return Joey NMT's model; a piece is our id as text."""
    import torch
    from joeynmt.model import build_model
    from joeynmt.vocabulary import Vocabulary

    facts, arrays = json.loads((work / "facts.json").read_text()), Weights(work).arrays
    order = [UNK, PAD, BOS, EOS, *range(4, facts["tokens"])]  # as it numbers them
    symbols = {"unk_id": 0, "pad_id": 1, "bos_id": 2, "eos_id": 3, "sep_token": None, "lang_tags": []}
    symbols |= {"unk_token": str(UNK), "pad_token": str(PAD), "bos_token": str(BOS), "eos_token": str(EOS)}
    vocabulary = Vocabulary(list(map(str, order)), SimpleNamespace(**symbols))
    size = {"hidden_size": facts["width"], "ff_size": facts["mlp_width"], "num_heads": facts["heads"], "layer_norm": "pre"}
    stack = {"type": "transformer", "embeddings": {"embedding_dim": facts["width"], "scale": True}, "dropout": 0.0, **size}
    stacks = {side: {**stack, "num_layers": facts[side]} for side in ("encoder", "decoder")}
    model = build_model({**stacks, "tied_embeddings": True, "tied_softmax": True}, vocabulary, vocabulary)
    table, bias, positions = (torch.tensor(arrays[name]) for name in ("table", "output_bias", "positions"))
    model.decoder.output_layer.bias = torch.nn.Parameter(bias[order])  # greedy search of its own would write padding
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = facts["norm_epsilon"]
    state = layers_state(work, JOEY)
    state |= {f"{name}.weight": table[order] for name in ("src_embed.lut", "trg_embed.lut", "decoder.output_layer")}
    state |= {"encoder.pe.pe": positions[None], "decoder.pe.pe": positions[None], "decoder.output_layer.bias": bias[order]}
    model.load_state_dict(state)
    return model.eval()


def jaxnmt(work: Path, run: str, checkpoint: str, *settings: str) -> Translate:
    """Return our translator; a sentence is its text."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import jaxnmt

    extra: dict = dict(map(_setting, settings))
    weights = extra.pop("weights", "trained")
    opened = jaxnmt.load(run, int(checkpoint) if checkpoint.isdigit() else checkpoint, weights=weights)

    def translate(sentences: list, order: dict) -> list[list[int]]:
        return [[token for _, target in found.parts for token in target] for found in opened.translate(sentences, **extra | order)]

    return translate


def _setting(word: str) -> tuple[str, object]:
    """Return the name and value of `name=value`."""
    name, _, value = word.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def main() -> None:
    name, folder, *rest = sys.argv[1:]
    work = Path(folder)
    sentences = json.loads((work / "sentences.json").read_text())["texts" if name == "jaxnmt" else "ids"]
    translate = {"ctranslate2": ctranslate2, "opennmt": opennmt, "joey": joey, "jaxnmt": jaxnmt}[name](work, *rest)
    for line in sys.stdin:
        order = json.loads(line)
        calls = [sentences] if order["batch_size"] > 1 else [[sentence] for sentence in sentences]
        began = time.perf_counter()
        found = [target for call in calls for target in translate(call, order)]
        seconds = time.perf_counter() - began
        (work / f"{name}.json").write_text(json.dumps(found))
        print("BURST " + json.dumps({"units": len(sentences), "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
