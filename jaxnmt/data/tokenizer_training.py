"""Train a tokenizer on the text of a run, or load the models that its settings name."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence

import sentencepiece

from jaxnmt import config, errors
from jaxnmt.data.special_tokens import BOS, EOS, PAD, UNK
from jaxnmt.data.tokenizer import Tokenizer, joiner_of
from jaxnmt.data.vocabulary import SPECIAL, Subwords, Vocabulary, Words, check_joiner, count_tokens
from jaxnmt.errors import UserError
from jaxnmt.io.text import canonical, existing_file

_THREADS = 16
"""Fixed, not one per core: the unigram trainer sums its counts per thread, and another number gives another model."""
_LONGEST_SENTENCE = 1 << 16
"""Bytes. SentencePiece does not train on longer sentences."""


def train_tokenizer(options: config.Tokenizer, pairs: Iterable[tuple[str, str]]) -> Tokenizer:
    """Train a tokenizer on all of `pairs`, or load the models that `options.model` names.

    The same pairs and options give the same tokenizer on any machine. With little text, the vocabulary may be smaller than requested.

    Raises:
        UserError: the pairs have no text, the vocabulary size is too small for its characters, or a given model does not fit.
    """
    if options.model:
        vocabularies = [Subwords(existing_file(name, "tokenizer.model").read_bytes(), f"tokenizer.model: {name}") for name in options.model]
        return Tokenizer(vocabularies[0], vocabularies[-1], normalization=options.normalization)
    pairs = list(pairs)
    sources, targets = ([canonical(pair[side], options.normalization) for pair in pairs] for side in (0, 1))
    texts = (
        {"both languages": [text for text in sources + targets if text]}
        if options.joint
        else {"the source language": sources, "the target language": targets}
    )
    learnt = [_learn(options, own, whose) for whose, own in texts.items()]
    return Tokenizer(learnt[0], learnt[-1], joiner_of(options), options.normalization)


def _learn(options: config.Tokenizer, texts: Sequence[str], whose: str) -> Vocabulary:
    if not any(text.split() for text in texts):
        raise UserError(f"no vocabulary can be made for {whose}: no text is left to make it from")
    return _learn_words(options, texts, whose) if options.kind == "words" else _learn_subwords(options, texts, whose)


def _learn_words(options: config.Tokenizer, texts: Sequence[str], whose: str) -> Words:
    counts = count_tokens(texts)
    check_joiner(counts, options.joiner, f"the training text of {whose}")
    ranked = sorted(counts, key=lambda token: (-counts[token], token))
    return Words(ranked[: options.vocab_size - len(SPECIAL)] if options.vocab_size else ranked, options.joiner)


def _learn_subwords(options: config.Tokenizer, texts: Sequence[str], whose: str) -> Subwords:
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([" ".join(text.split()) for text in texts]),
            model_writer=model,
            model_type=options.kind,
            vocab_size=options.vocab_size,
            hard_vocab_limit=False,
            character_coverage=options.character_coverage,
            byte_fallback=options.byte_fallback,
            # Text must come back as it went in: the model has to be able to generate what the references contain.
            normalization_rule_name="identity",
            max_sentence_length=_LONGEST_SENTENCE,
            num_threads=_THREADS,
            minloglevel=2,
            pad_id=PAD,
            bos_id=BOS,
            eos_id=EOS,
            unk_id=UNK,
            pad_piece=SPECIAL[PAD],
            bos_piece=SPECIAL[BOS],
            eos_piece=SPECIAL[EOS],
            unk_piece=SPECIAL[UNK],
        )
    except (RuntimeError, OSError) as error:
        if needed := re.search(r"smaller than required_chars\. \d+ vs (\d+)", str(error)):
            raise UserError(
                f"tokenizer.vocab_size {options.vocab_size} is too small for {whose}: characters, bytes and special tokens alone need "
                f"{needed[1]}; raise it, or lower tokenizer.character_coverage"
            ) from error
        reason = re.sub(r"^\w+: \S+\(\d+\) ", "", errors.first_line(error))  # without the place in SentencePiece's source
        raise UserError(f"SentencePiece could not train a tokenizer for {whose} ({reason}): check the settings tokenizer.*") from error
    return Subwords(model.getvalue())
