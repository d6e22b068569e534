"""Tiny models, batches and runs that the tests share."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxnmt import config as cfg
from jaxnmt.data.special_tokens import EOS
from jaxnmt.lab.laws.subject import SOURCE_VOCAB, TARGET_VOCAB, batch_of, model_of, random_pairs  # noqa: F401
from jaxnmt.models.seq2seq import Seq2Seq

BASE = cfg.Transformer(emb_dim=16, num_heads=2, mlp_dim=24, num_encoder_layers=1, num_decoder_layers=1, dropout=0.0)

VARIANTS: dict[str, cfg.Transformer] = {
    "pre": BASE,
    "post": cfg.replace(BASE, norm_order="post", positions="none", activation="silu", num_decoder_layers=2, output_bias=True),
    "rotary": cfg.replace(BASE, norm="rmsnorm", positions="rotary", activation="swiglu", tie_embeddings="decoder", head_dim=6),
    "learned": cfg.replace(BASE, norm="rmsnorm", norm_order="post", positions="learned", activation="gelu", tie_embeddings="none"),
}
SCANNED = cfg.replace(BASE, scan_layers=True, remat="full", num_encoder_layers=2, num_decoder_layers=2)

RNN = cfg.Recurrent(emb_dim=12, hidden_dim=16, dropout=0.0)
ONE_WAY = {"bidirectional": "none", "bridge": "copy", "context": "fixed"}
RECURRENT: dict[str, cfg.Recurrent] = {  # each cell, stack, direction, bridge, context and score there is
    "bag": cfg.replace(RNN, encoder="bag", context="fixed", cell="rnn", activation="relu"),
    "elman": cfg.replace(RNN, **ONE_WAY, cell="rnn", reverse_source=True),
    "sutskever": cfg.replace(RNN, **ONE_WAY, input_feeding=False, num_encoder_layers=2, num_decoder_layers=2, reverse_source=True),
    "cho": cfg.replace(RNN, context="fixed", cell="gru", num_decoder_layers=2, variational=True),
    "bahdanau": cfg.replace(RNN, context="bahdanau", cell="gru", tie_embeddings="all"),
    "gnmt": cfg.replace(RNN, context="bahdanau", num_encoder_layers=3, num_decoder_layers=3, bidirectional="first", residual=True),
    "luong": cfg.replace(RNN, num_encoder_layers=2, num_decoder_layers=2, residual=True, bridge="copy", variational=True),
    "luong_dot": cfg.replace(RNN, score="dot", cell="gru", input_feeding=False, num_decoder_layers=2, window=2),
    "luong_concat": cfg.replace(RNN, score="concat", cell="layernorm_lstm", encoder_dim=10, copy=True, coverage=0.5),
    "luong_location": cfg.replace(
        RNN, score="location", cell="rnn", max_positions=6, reverse_source=True, emb_dim=16, tie_embeddings="decoder"
    ),
}

_NOISY = {"dropout": 0.2, "attention_dropout": 0.1, "activation_dropout": 0.1}
RUNGS: dict[str, cfg.Model] = {  # with dropout, for the laws about training
    **{name: cfg.replace(config, **_NOISY) for name, config in {**VARIANTS, "scanned": SCANNED}.items()},
    **{name: cfg.replace(config, dropout=0.2) for name, config in RECURRENT.items()},
}

_TASKS: dict[str, tuple[cfg.Model, cfg.Task]] = {
    "classifier": (RUNGS["pre"], cfg.Classification(pooling="attention", class_weights="balanced")),
    "classifier_lstm": (RUNGS["luong"], cfg.Classification(pooling="last")),
    "label_sets": (RUNGS["bag"], cfg.Classification(labels="several", pooling="mean")),
    "numbers": (RUNGS["rotary"], cfg.Classification(labels="number", pooling="last")),
    "masked": (RUNGS["learned"], cfg.MaskedLanguage(rate=0.5)),
    "masked_lstm": (RUNGS["luong"], cfg.MaskedLanguage(rate=0.5)),
    "captions": (RUNGS["pre"], cfg.Captioning(size=8, patch=4)),
    "captions_lstm": (RUNGS["bahdanau"], cfg.Captioning(size=8, patch=4, regions="patches", attention_penalty=0.5)),
    "vectors": (RUNGS["cho"], cfg.Captioning(source="vectors", size=6)),
    "denoising": (RUNGS["pre"], cfg.Denoising(rate=0.2, span=1.5)),
    "language": (RUNGS["rotary"], cfg.Language()),
    "language_lstm": (RUNGS["sutskever"], cfg.Language()),
}
SUBJECTS: dict[str, tuple[cfg.Model, cfg.Task]] = {name: (config, cfg.Translation()) for name, config in RUNGS.items()} | _TASKS


def params_of(model: Seq2Seq, seed: int = 0):
    """Random parameters, biases and scales too, so that none can be forgotten without being noticed."""
    random = np.random.default_rng(seed)

    def make(path, x):
        noise = random.standard_normal(x.shape).astype(np.float32)
        name = path[-1].key
        return jnp.asarray({"scale": 1 + 0.2 * noise, "bias": 0.2 * noise, "table": 0.4 * noise}.get(name, 0.3 * noise))

    return jax.tree_util.tree_map_with_path(make, jax.eval_shape(model.init, jax.random.key(0)))


def assert_close(left, right, rtol: float = 1e-5, atol: float = 1e-6):
    """Two pytrees of one structure are equal but for rounding; the leaf that is not is named."""
    compare = functools.partial(np.testing.assert_allclose, rtol=rtol, atol=atol)
    jax.tree_util.tree_map_with_path(lambda path, a, b: compare(a, b, err_msg=jax.tree_util.keystr(path)), left, right)


def assert_same(left, right):
    """Two pytrees of one structure are equal to the bit."""
    jax.tree_util.tree_map_with_path(
        lambda path, a, b: np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path)), left, right
    )


def some_sentences(count: int, length: int):
    """Return source tokens (count, length + 1), EOS at the end, and limits of 1 to 13 tokens."""
    random = np.random.default_rng(0)
    source = np.concatenate([random.integers(3, 9, (count, length), np.int32), np.full((count, 1), EOS, np.int32)], 1)
    return source, random.permutation(np.arange(count) % 13 + 1).astype(np.int32)


def write_text(folder: Path, name: str, count: int, seed: int) -> str:
    """Two files of sentences of up to six letters and their reversals, as a source's one word."""
    random = np.random.default_rng(seed)
    lines = [random.choice(list("abcdefghij"), random.integers(1, 7)) for _ in range(count)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.xx").write_text("".join(f"{' '.join(line)}\n" for line in lines))
    (folder / f"{name}.yy").write_text("".join(f"{' '.join(line[::-1])}\n" for line in lines))
    return f"{folder / name}.xx,{folder / name}.yy"


_CONFIG = """from jaxnmt.config import *

def config():
    return Experiment(
        data=Data(max_length=8, held_out=10, workers=1, cache={cache!r}),
        tokenizer=Tokenizer(kind="words", vocab_size=0),
        batching=Batching(layout="buckets", max_shapes=1, tokens=256),
        model=Recurrent(encoder="bag", context="fixed", cell="rnn", emb_dim=16, hidden_dim=16, dropout=0.1),
        schedule=Schedule(learning_rate=1e-2, warmup_steps=10),
        training=Training(steps=60, ema_decay=0.9),
        validation=Validation(every=30, metric="bleu", beam_size=2),
        decoding=Decoding(beam_size=2, max_length_extra=3, batch_size=8, length_penalty=3.0),
        logging=Logging(every=5),
    )
"""


def write_config(folder: Path) -> str:
    """A config file `mine.py` of a run of 60 steps on text that its command names."""
    path = folder / "mine.py"
    path.write_text(_CONFIG.format(cache=str(folder / "cache")))
    return str(path)


def experiment(folder: Path, **changes) -> cfg.Experiment:
    """A run of 8 steps with all that makes resuming hard: dropout, an average, accumulation and a mixture."""
    data = cfg.Data(
        train=(write_text(folder, "a", 60, 1) + "@2", write_text(folder, "b", 40, 2)),
        validation=(write_text(folder, "v", 11, 3),),
        max_length=8,
        cleaning=cfg.Cleaning(drop_duplicates=False),
        cache=str(folder / "cache"),
        workers=1,
    )
    made = cfg.Experiment(
        data=data,
        tokenizer=cfg.Tokenizer(kind="words", vocab_size=0),
        batching=cfg.Batching(layout="packed", tokens=256, row_length=16),
        model=cfg.replace(BASE, dropout=0.2, attention_dropout=0.1, activation_dropout=0.1),
        schedule=cfg.Schedule(learning_rate=3e-3, warmup_steps=4),
        training=cfg.Training(steps=8, accumulation=2, ema_decay=0.9),
        validation=cfg.Validation(every=4, metric="loss"),
        checkpoints=cfg.Checkpoints(every=3),
        logging=cfg.Logging(every=2, tensorboard=False),
        decoding=cfg.Decoding(max_length_extra=4, batch_size=8, beam_size=2),
    )
    return cfg.replace(made, **changes)


def as_arrays(batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """On the device."""
    return {name: jnp.asarray(x) for name, x in batch.items()}


def on_eight_devices(*words) -> subprocess.CompletedProcess[str]:
    """Run Python with these words in a process that sees eight CPU devices; it must succeed."""
    return on_devices(8, *words)


def on_devices(count: int, *words) -> subprocess.CompletedProcess[str]:
    """Run Python with these words in a process that sees some CPU devices; it must succeed."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
    done = subprocess.run([sys.executable, *map(str, words)], env=os.environ | {"XLA_FLAGS": flags}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def labelled(folder: Path, labels: str = "one", **changes) -> cfg.Experiment:
    """A run that learns in 100 steps which of the letters a, b and c a text has: the last of them, or all; or the share of a."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)

    def write(name: str, count: int) -> str:
        texts = ["".join(random.choice(list("abcx"), random.integers(1, 7))) for _ in range(count)]
        target = {
            "one": lambda text: max([letter for letter in text if letter < "x"], default="none of them"),
            "several": lambda text: ",".join(sorted(set(text) & set("abc"))),
            "number": lambda text: f"{10 + text.count('a') / len(text):.3f}",
        }[labels]
        lines = [f"{' '.join(text)}\t{target(text)}\n" for text in texts]
        (folder / name).write_text("".join(lines))
        return str(folder / name)

    made = cfg.Experiment(
        task=cfg.Classification(labels=labels),
        data=cfg.Data(
            train=(write("train.tsv", 400),), validation=(write("v.tsv", 40),), max_length=12, cache=str(folder / "cache"), workers=1
        ),
        tokenizer=cfg.Tokenizer(kind="words", vocab_size=0),
        batching=cfg.Batching(layout="buckets", max_shapes=1, tokens=512),
        model=cfg.Recurrent(encoder="bag", context="fixed", cell="rnn", emb_dim=32, hidden_dim=32, dropout=0.0),
        schedule=cfg.Schedule(learning_rate=3e-2, warmup_steps=10),
        training=cfg.Training(steps=100, ema_decay=0.9, label_smoothing=0.0),
        validation=cfg.Validation(every=50, metric="loss" if labels == "number" else "accuracy"),
        logging=cfg.Logging(every=30, tensorboard=False),
    )
    return cfg.replace(made, **changes)
