"""Records of tiny models of every kind, and of the ladder's rungs made narrow, which the tests of records and of pages share."""

import functools
import json
import re
from typing import Any

import pytest
import tiny
from laws import own

from jaxnmt import config as cfg
from jaxnmt.config import replace
from jaxnmt.config.files import load_config
from jaxnmt.data import scenes
from jaxnmt.data.tokenizer import Tokenizer
from jaxnmt.data.tokenizer_training import train_tokenizer
from jaxnmt.decoding.captioner import Captioner
from jaxnmt.decoding.translator import Translator
from jaxnmt.lab.visualize import caption
from jaxnmt.lab.visualize.record import record
from jaxnmt.models.seq2seq import build_model

TOKENIZER = train_tokenizer(cfg.Tokenizer(kind="words", vocab_size=0), [("a b@@ c d e f g h", "u@@ v w@@ x y z a b c d")])
SENTENCE = "a b@@ c d a e"
DECODING = cfg.Decoding(beam_size=3, n_best=3, max_length_ratio=1.0, max_length_extra=3)
CONFIGS: dict[str, Any] = {
    "transformer": replace(tiny.BASE, num_encoder_layers=2, num_decoder_layers=3),
    "rotary": tiny.VARIANTS["rotary"],
    "scanned": replace(tiny.BASE, num_decoder_layers=2, remat="full"),
    **{name: replace(config, tie_embeddings="none") for name, config in tiny.RECURRENT.items()},
    "own": own.Average(),
}

# Whose parts others have too: `make slow` looks at these.
SLOW = {"scanned", "rotary", "sutskever", "cho", "luong", "luong_concat"}


def cases(names) -> list:
    """The names as parameters of a test, some for `make slow` only."""
    return [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in names]


RUNGS = ("bag", "rnn_fixed", "lstm_fixed", "gru_bahdanau", "lstm_luong", "multi30k_tiny")
CAPTIONS = [
    (
        "a man in a blue shirt is standing on a lad@@ der cleaning a window .",
        "ein mann in einem blauen hemd steht auf einer leiter und putzt ein fenster .",
    ),
    ("two young girls are playing with a red ball in the snow .", "zwei junge mädchen spielen im schnee mit einem roten ball ."),
    ("a brown dog runs along the beach , two women are watching .", "ein brauner hund läuft am strand entlang , zwei frauen sehen zu ."),
]
CAPTION = "a man in a blue shirt is standing on a lad@@ der ."
SENTENCES = {name: SENTENCE for name in CONFIGS} | {f"shipped {name}": CAPTION for name in RUNGS}


@functools.cache
def config_of(name: str) -> Any:
    """Of CONFIGS, or "shipped NAME": that config's model with its own settings, a sixteenth as wide."""
    if name in CONFIGS:
        return CONFIGS[name]
    model = load_config(name.removeprefix("shipped ")).model
    return replace(model, **{width: getattr(model, width) // 16 for width in ("emb_dim", "hidden_dim", "mlp_dim") if hasattr(model, width)})


@functools.cache
def tokenizer_of(name: str) -> Tokenizer:
    return TOKENIZER if name in CONFIGS else train_tokenizer(load_config(name.removeprefix("shipped ")).tokenizer, CAPTIONS)


@functools.cache
def translator(name: str) -> Translator:
    tokenizer = tokenizer_of(name)
    model = build_model(config_of(name), tokenizer.source_vocab_size, tokenizer.target_vocab_size)
    return Translator(model, tiny.params_of(model, 1), tokenizer, 16)


@functools.cache
def recorded(name: str, sentence: str = "") -> dict[str, Any]:
    origin = {"run": name, "checkpoint": "checkpoint 1", "languages": ["en", "de"]}
    return origin | record(translator(name), config_of(name), sentence or SENTENCES[name], DECODING)


def read(page: str) -> dict[str, Any]:
    """Return the record inside a page."""
    return json.loads(re.search(r'<script type="application/json" id="record">(.*?)</script>', page, re.S)[1])


SCENE_WORDS = train_tokenizer(
    cfg.Tokenizer(kind="words", vocab_size=0, joiner="", joint=True),
    [(scenes.caption(scenes.scene("train", index), "en"), "") for index in range(300)],
).with_pictures()
CAPTIONED = {"transformer": "transformer", "lstm": "bahdanau", "fixed": "cho"}


@functools.cache
def captioner(kind: str) -> Captioner:
    """A model of random parameters that captions scenes: CAPTIONED, by kind of attention."""
    model = build_model(
        CONFIGS[CAPTIONED[kind]], SCENE_WORDS.source_vocab_size, SCENE_WORDS.target_vocab_size, cfg.Captioning(size=24, patch=4)
    )
    return Captioner(model, tiny.params_of(model), SCENE_WORDS, 24)


@functools.cache
def captioned(kind: str, name: str = "scenes/en:test#10") -> dict[str, Any]:
    """The record of its caption of a picture, as `jaxnmt visualize` writes it."""
    found = caption.record(captioner(kind), CONFIGS[CAPTIONED[kind]], name, "en", cfg.Decoding(beam_size=1, max_length_extra=8))
    return json.loads(json.dumps(found | {"run": "tiny", "checkpoint": "checkpoint 1", "languages": ["", "en"]}))
