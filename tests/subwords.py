"""A translator with subwords whose model has learnt nothing, and words that share pieces."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tiny

from jaxnmt.config import Tokenizer
from jaxnmt.data.tokenizer_training import train_tokenizer
from jaxnmt.decoding.translator import Translator
from jaxnmt.models.seq2seq import build_model

WORDS = ["haus", "hausboot", "boot", "baum", "baumhaus", "see", "seeboot", "am", "im"]


def translator(warn: Callable[[str], object] = lambda line: None) -> Translator:
    """Return a translator of lines of up to 11 tokens."""
    random = np.random.default_rng(0)
    sentences = [" ".join(random.choice(WORDS, random.integers(1, 6))) for _ in range(200)]
    tokenizer = train_tokenizer(Tokenizer(kind="bpe", vocab_size=30, byte_fallback=False), [(line, line) for line in sentences])
    model = build_model(tiny.BASE, tokenizer.source_vocab_size, tokenizer.target_vocab_size)
    return Translator(model, tiny.params_of(model, 5), tokenizer, 12, warn=warn)
