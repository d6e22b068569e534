"""Text to token ids and back: SentencePiece on raw text, or a plain vocabulary of text that is already split.

A `Tokenizer` is two vocabularies, source and target; joint means that they are the same one. In every vocabulary the ids
0 to 3 are padding, begin, end and unknown, and no text, whatever it says, is encoded as one of the first three.
"""

from __future__ import annotations

import collections
import functools
import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

import sentencepiece
from etils import epath

from jaxnmt import config
from jaxnmt.config import UserError

PAD, BOS, EOS, UNK = range(4)
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")

_THREADS = 16
"""Fixed, not one per core: the unigram trainer sums its counts per thread, and another number gives another model."""
_LONGEST_SENTENCE = 1 << 16
"""Bytes; longer sentences are left out of SentencePiece's training."""


class Vocabulary(Protocol):
    """One language's tokens, or those of both."""

    suffix: str
    pretokenized: bool

    def __len__(self) -> int: ...
    def encode(self, texts: Sequence[str]) -> list[list[int]]: ...
    def decode(self, ids: Sequence[int]) -> str: ...
    def piece(self, index: int) -> str: ...
    def words(self, text: str) -> tuple[list[str], list[int]]: ...
    def to_bytes(self) -> bytes: ...


class Subwords:
    """A SentencePiece model.

    Raises:
        UserError: `model` is none, or its special ids are not padding 0, begin 1, end 2, unknown 3.
    """

    suffix = "model"
    pretokenized = False

    def __init__(self, model: bytes, name: str = "SentencePiece model") -> None:
        self._model = model
        try:
            if not model:
                raise RuntimeError("empty")
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise UserError(f"{name} is not a SentencePiece model, or is damaged: train or fetch it again") from error
        processor = self._processor
        found = processor.pad_id(), processor.bos_id(), processor.eos_id(), processor.unk_id()
        if found != (PAD, BOS, EOS, UNK):
            raise UserError(
                f"{name} has the special ids pad {found[0]}, bos {found[1]}, eos {found[2]}, unk {found[3]} (-1: none), but 0, 1, 2, 3 "
                "are needed: train it with --pad_id=0 --bos_id=1 --eos_id=2 --unk_id=3"
            )

    def __reduce__(self):
        return Subwords, (self._model,)

    def __len__(self) -> int:
        return self._processor.vocab_size()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        # One thread: workers are processes already. Exotic spaces are spaces, as `str.split` sees them.
        return self._processor.encode([" ".join(text.split()) for text in texts], out_type=int, num_threads=1)

    def decode(self, ids: Sequence[int]) -> str:
        return self._processor.decode(list(ids))

    def piece(self, index: int) -> str:
        """A token as the vocabulary has it; `▁` begins a word."""
        return self._processor.id_to_piece(index)

    def words(self, text: str) -> tuple[list[str], list[int]]:
        """The words of a text, and the number of the one that each of its tokens is of (spaces divide tokens too)."""
        words = text.split()
        return words, [number for number, ids in enumerate(self.encode(words)) for _ in ids]

    def to_bytes(self) -> bytes:
        return self._model


class Words:
    """A list of tokens that spaces divide; what is not in it is unknown.

    The special tokens are known by their place, the first four, not by their text, so that a token `</s>` of the text is
    a token like others.

    Args:
        tokens: all but the special ones, in the order of their ids, which start at 4.
        joiner: what marks a split inside a word ("@@ "); removed by `decode`.
    """

    suffix = "vocab"
    pretokenized = True

    def __init__(self, tokens: Sequence[str], joiner: str) -> None:
        self._tokens = [*SPECIAL, *tokens]
        self._joiner = joiner
        self._ids = {token: index for index, token in enumerate(self._tokens) if index >= len(SPECIAL)}

    @classmethod
    def from_bytes(cls, data: bytes, joiner: str, name: str) -> Words:
        """Reads what `to_bytes` wrote.

        Raises:
            UserError: it is not UTF-8, its first four lines are not the special tokens, or a token is there twice.
        """
        try:
            lines = data.decode().split("\n")
        except UnicodeDecodeError as error:
            raise UserError(f"{name} is not UTF-8: a vocabulary has one token a line") from error
        tokens = lines[len(SPECIAL) : -1]
        if tuple(lines[: len(SPECIAL)]) != SPECIAL or lines[-1]:
            raise UserError(f"{name} is no whole vocabulary: it must start with {', '.join(SPECIAL)}, one token a line, and end with \\n")
        if len(set(tokens)) < len(tokens):
            twice = next(token for token, count in collections.Counter(tokens).items() if count > 1)
            raise UserError(f"{name} has the token {twice!r} twice: remove one of the lines")
        return cls(tokens, joiner)

    def __reduce__(self):
        return Words, (self._tokens[len(SPECIAL) :], self._joiner)

    def __len__(self) -> int:
        return len(self._tokens)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [[self._ids.get(token, UNK) for token in split(text)] for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        return self._joined([self._tokens[index] for index in ids])

    def piece(self, index: int) -> str:
        """A token as the vocabulary has it."""
        return self._tokens[index]

    def words(self, text: str) -> tuple[list[str], list[int]]:
        """The words of a text, put together, and the number of the one that each of its tokens is of."""
        tokens = split(text)
        return split(self._joined(tokens)), word_numbers(tokens, lambda rest: split(self._joined(rest)))

    def _joined(self, tokens: Sequence[str]) -> str:
        text = " ".join(tokens) + " "  # so that a joiner at the very end goes too
        return (text.replace(self._joiner, "") if self._joiner else text).strip(" ")

    def to_bytes(self) -> bytes:
        return "".join(f"{token}\n" for token in self._tokens).encode()


def split(text: str) -> list[str]:
    """The tokens of text that is already split: at spaces only, so that a no-break space inside a token stays there."""
    return [token for token in text.split(" ") if token]


Token = TypeVar("Token")


def word_numbers(tokens: Sequence[Token], words: Callable[[Sequence[Token]], list[str]]) -> list[int]:
    """The number, from 0, of the word that each token is of.

    Counted from behind: a token is of the first word that it and all after it make. So what marks a word's start, and adds no letter,
    belongs to the word that follows.
    """
    left = [len(words(tokens[start:])) for start in range(len(tokens))]
    return [max(0, min(left[0] - rest, left[0] - 1)) for rest in left]


class Tokenizer:
    """Source and target vocabulary. Neither begin nor end tokens are added by encoding."""

    def __init__(self, source: Vocabulary, target: Vocabulary, joiner: str = "") -> None:
        self._source, self._target, self._joiner = source, target, joiner

    @property
    def joint(self) -> bool:
        """Whether both languages share one vocabulary."""
        return self._source is self._target

    @property
    def pretokenized(self) -> bool:
        """Whether it works on text that is already split; then BLEU must not split it again."""
        return self._target.pretokenized

    @property
    def source_vocab_size(self) -> int:
        return len(self._source)

    @property
    def target_vocab_size(self) -> int:
        return len(self._target)

    def encode_source(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without begin and end."""
        return self._source.encode(texts)

    def encode_target(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without begin and end."""
        return self._target.encode(texts)

    def source_pieces(self, ids: Sequence[int]) -> list[str]:
        """Each token as the source vocabulary has it."""
        return [self._source.piece(int(index)) for index in ids]

    def target_pieces(self, ids: Sequence[int]) -> list[str]:
        """Each token as the target vocabulary has it."""
        return [self._target.piece(int(index)) for index in ids]

    def source_words(self, text: str, ids: Sequence[int]) -> tuple[list[str], list[int]]:
        """The words of a source text, and the number of the one that each of its tokens is of."""
        words, numbers = self._source.words(text)
        return (words, numbers) if len(numbers) == len(ids) else self._words_of(self._source, ids)  # a foreign model's span several words

    def target_words(self, ids: Sequence[int]) -> tuple[list[str], list[int]]:
        """The words of the text that `decode_target` makes, and the number of the one that each token is of."""
        return self._words_of(self._target, ids)

    def _words_of(self, vocabulary: Vocabulary, ids: Sequence[int]) -> tuple[list[str], list[int]]:
        cut = split if vocabulary.pretokenized else str.split
        return cut(vocabulary.decode(ids)), word_numbers(ids, lambda rest: cut(vocabulary.decode(rest)))

    def decode_target(self, ids: Iterable[int]) -> str:
        """Detokenised text of the ids up to the first EOS; PAD and BOS are skipped. Split words are joined."""
        kept = []
        for index in ids:
            if index == EOS:
                break
            if index not in (PAD, BOS):
                kept.append(int(index))
        return self._target.decode(kept)

    def _files(self) -> dict[str, bytes]:
        sides = {"joint": self._source} if self.joint else {"source": self._source, "target": self._target}
        files = {f"{side}.{vocabulary.suffix}": vocabulary.to_bytes() for side, vocabulary in sides.items()}
        description = {"files": list(files), "joiner": self._joiner}
        return {**files, "tokenizer.json": (json.dumps(description, indent=2) + "\n").encode()}

    @functools.cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256()
        for name, data in self._files().items():
            digest.update(f"{name} {len(data)}\n".encode() + data)
        return digest.hexdigest()

    def fingerprint(self) -> str:
        """SHA-256 of all that decides how text is encoded and decoded."""
        return self._digest

    def save(self, folder: epath.PathLike) -> None:
        """Writes `joint.model` or `source.model` and `target.model` (words: `.vocab`), and last `tokenizer.json`."""
        folder = epath.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in self._files().items():
            temporary = folder / f".{name}.{os.getpid()}"
            temporary.write_bytes(data)
            temporary.replace(folder / name)


def load_tokenizer(folder: epath.PathLike) -> Tokenizer:
    """Reads what `Tokenizer.save` wrote.

    Raises:
        UserError: a file is missing or damaged.
    """
    folder = epath.Path(folder)
    try:
        description = json.loads((folder / "tokenizer.json").read_text())
        joiner = description["joiner"]
        vocabularies = [_load_vocabulary(folder / name, joiner) for name in description["files"]]
        return Tokenizer(vocabularies[0], vocabularies[-1], joiner)
    except FileNotFoundError as error:
        raise UserError(f"there is no whole tokenizer in {folder}: {error.filename or error} is missing") from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(f"{folder / 'tokenizer.json'} is damaged ({error}): restore it, or remove the folder to train it again") from error


def _load_vocabulary(path: epath.Path, joiner: str) -> Vocabulary:
    data = path.read_bytes()
    return Words.from_bytes(data, joiner, str(path)) if path.suffix == ".vocab" else Subwords(data, str(path))


def train_tokenizer(options: config.Tokenizer, pairs: Iterable[tuple[str, str]]) -> Tokenizer:
    """A tokenizer for `pairs`, all of which are used (`prepare` hands over `max_sentences`, spread over the corpus).

    With `options.model` given, that is loaded and `pairs` stays unread. The same pairs and options give the same
    tokenizer on any machine. The vocabulary may come out smaller than asked for where there is little text.

    Raises:
        UserError: the pairs have no text, the vocabulary size is too small for its characters, or a given model does not fit.
    """
    if options.model:
        return _given(options)
    sources, targets = zip(*pairs, strict=True) if (pairs := list(pairs)) else ((), ())
    learn = _learn_words if options.kind == "words" else _learn_subwords
    joiner = options.joiner if options.kind == "words" else ""
    if options.joint:
        joint = learn(options, [*sources, *targets], "both languages")
        return Tokenizer(joint, joint, joiner)
    return Tokenizer(learn(options, sources, "the source language"), learn(options, targets, "the target language"), joiner)


def _given(options: config.Tokenizer) -> Tokenizer:
    needed = 1 if options.joint else 2
    if options.kind == "words":
        raise UserError("tokenizer.model is for SentencePiece models, but tokenizer.kind is words: set one of the two")
    if len(options.model) != needed:
        raise UserError(f"tokenizer.model names {len(options.model)} file(s), but {needed} needed with tokenizer.joint {options.joint}")
    vocabularies = []
    for name in options.model:
        path = epath.Path(name).expanduser()
        if not path.is_file():
            raise UserError(f"tokenizer.model: there is no file {name}")
        vocabularies.append(Subwords(path.read_bytes(), f"tokenizer.model: {name}"))
    return Tokenizer(vocabularies[0], vocabularies[-1])


def _learn_words(options: config.Tokenizer, texts: Sequence[str], whose: str) -> Words:
    counts = collections.Counter(token for text in texts for token in split(text) if "\n" not in token)
    if not counts:
        raise UserError(f"no vocabulary can be made for {whose}: there is no text left to make it from")
    if 0 < options.vocab_size <= len(SPECIAL):
        raise UserError(f"tokenizer.vocab_size {options.vocab_size} leaves no room beside {len(SPECIAL)} special tokens (0: all words)")
    ranked = sorted(counts, key=lambda token: (-counts[token], token))
    return Words(ranked[: options.vocab_size - len(SPECIAL)] if options.vocab_size else ranked, options.joiner)


def _learn_subwords(options: config.Tokenizer, texts: Sequence[str], whose: str) -> Subwords:
    written = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(" ".join(text.split()) for text in texts),
            model_writer=written,
            model_type=options.kind,
            vocab_size=options.vocab_size,
            hard_vocab_limit=False,
            character_coverage=options.character_coverage,
            byte_fallback=options.byte_fallback,
            # Text comes back as it went in: what the references contain must be possible to generate.
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
        if "sentences_.empty()" in str(error) or "all_chars_count" in str(error):
            raise UserError(f"no tokenizer can be trained for {whose}: there is no text left to train it on") from error
        raise UserError(f"SentencePiece could not train a tokenizer for {whose} (tokenizer: {options}): {error}") from error
    return Subwords(written.getvalue())
