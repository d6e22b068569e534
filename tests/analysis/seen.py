"""Records of tiny models of every kind, which the tests of records and of pages share."""

import functools
from typing import Any

import tiny
from laws import own

from jaxnmt import config as cfg
from jaxnmt.analysis.visualize.record import record
from jaxnmt.config import replace
from jaxnmt.data.tokenizer import train_tokenizer
from jaxnmt.decoding.translator import Translator
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


@functools.cache
def translator(name: str) -> Translator:
    model = build_model(CONFIGS[name], TOKENIZER.source_vocab_size, TOKENIZER.target_vocab_size)
    return Translator(model, tiny.params_of(model, 1), TOKENIZER, 16)


@functools.cache
def recorded(name: str, sentence: str = SENTENCE) -> dict[str, Any]:
    origin = {"run": name, "checkpoint": "checkpoint 1", "languages": ["en", "fr"]}
    return origin | record(translator(name), CONFIGS[name], sentence, DECODING)
