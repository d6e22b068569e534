"""Models as other software has them: folders of Marian and Pegasus with random numbers, and runs that nobody has trained."""

from __future__ import annotations

import io
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import sentencepiece
import tiny

from jaxnmt import config as cfg
from jaxnmt.config.files import save_config
from jaxnmt.data.tokenizer_training import train_tokenizer
from jaxnmt.models.seq2seq import build_model
from jaxnmt.run import Run
from jaxnmt.training.checkpoints import Checkpoints
from jaxnmt.training.progress import Progress
from jaxnmt.training.state import TrainState

WORDS = ["haus", "hausboot", "boot", "baum", "baumhaus", "see", "seeboot", "am", "im", "ist", "gross", "klein", "der", "die", "das"]


def lines(count: int, seed: int = 0) -> list[str]:
    """Return sentences of one to five words."""
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, random.integers(1, 6))) for _ in range(count)]


def run(folder: Path, joint: bool = True, kind: str = "bpe", **model) -> Run:
    """Return a run with subwords and random parameters, biases and scales too, whose validation sentences are in the file `v.tsv`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder.parent / "v.tsv").write_text("".join(f"{line}\t{line}\n" for line in lines(12, 1)))
    tokenizer = cfg.Tokenizer(kind=kind, vocab_size=40, joint=joint, byte_fallback=False)
    experiment = cfg.Experiment(
        data=cfg.Data(validation=(str(folder.parent / "v.tsv"),), source_language="de", target_language="en", max_length=24),
        tokenizer=tokenizer,
        model=cfg.replace(tiny.BASE, **model),
        decoding=cfg.Decoding(max_length_extra=4, length_normalization="average", batch_size=16),
    )
    save_config(experiment, folder / "config.json")
    made = train_tokenizer(tokenizer, [(line, line[::-1]) for line in lines(200)])
    made.save(folder / "tokenizer")
    built = build_model(experiment.model, made.source_vocab_size, made.target_vocab_size)
    params = tiny.params_of(built, 5)
    state = TrainState(jnp.int32(0), params, {}, None, lr_scale=jnp.float32(1), bad_steps=jnp.int32(0))
    with Checkpoints(folder, cfg.Checkpoints()) as checkpoints:
        checkpoints.save(state, Progress(), None)
    return Run(folder)


def tokenizer_files(folder: Path) -> int:
    """Write source.spm, target.spm and vocab.json as OPUS-MT has them, a piece missing in vocab.json. Returns the vocabulary's size."""
    pieces: dict[str, None] = {}
    for name, side in (("source", lines(200)), ("target", [line[::-1] for line in lines(200)])):
        model = io.BytesIO()
        options = {"vocab_size": 30, "model_type": "unigram", "minloglevel": 2}  # unknown 0, begin 1, end 2, no padding
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(side), model_writer=model, **options)
        (folder / f"{name}.spm").write_bytes(model.getvalue())
        processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
        pieces |= dict.fromkeys(map(processor.id_to_piece, range(3, processor.vocab_size() - 1)))
    tokens = ["</s>", "<unk>", ">>en<<", *pieces, "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"source_lang": "de", "target_lang": "en", "tokenizer_class": "MarianTokenizer"})
    )
    return len(tokens)


def fairseq_files(folder: Path, languages: list[str], has_table: bool) -> list[str]:
    """Write the tokenizer's files of NLLB, or with a table vocab.json, which lacks a piece, those of M2M100. Returns the tokens."""
    model = io.BytesIO()
    options = {"vocab_size": 40, "model_type": "bpe", "minloglevel": 2}  # unknown 0, begin 1, end 2
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines(200)), model_writer=model, **options)
    (folder / "sentencepiece.bpe.model").write_bytes(model.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    pieces = list(map(processor.id_to_piece, range(3, processor.vocab_size())))
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *(pieces[:0:-1] if has_table else pieces)]
    if has_table:
        (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": "</s>", "additional_special_tokens": languages}))
    return tokens + languages


def arrays(params) -> dict[str, np.ndarray]:
    """Return parameters by path."""
    from jaxnmt.parallel.axes import path_name

    return {path_name(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(params)}
