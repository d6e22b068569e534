"""Text to token ids and back: two vocabularies, source and target, trained, kept in a folder, and loaded from it."""

from __future__ import annotations

import collections
import functools
import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import sentencepiece
from etils import epath

from jaxnmt import config, errors
from jaxnmt.data.special_tokens import BOS, EOS, PAD, UNK
from jaxnmt.data.vocabulary import SPECIAL, Subwords, Vocabulary, Words, check_joiner, join, split, word_numbers
from jaxnmt.errors import UserError
from jaxnmt.io import whole_files
from jaxnmt.io.lines import canonical, normalise

_THREADS = 16
"""Fixed, not one per core: the unigram trainer sums its counts per thread, and another number gives another model."""
_LONGEST_SENTENCE = 1 << 16
"""Bytes; longer sentences are left out of SentencePiece's training."""


class Tokenizer:
    """Source and target vocabulary. Neither begin nor end tokens are added by encoding.

    Args:
        joiner: how words are split in text that comes split; "" where it does not.
        normalization: the Unicode form of text before it is encoded and after it is decoded, see `lines.canonical`.
    """

    def __init__(self, source: Vocabulary, target: Vocabulary, joiner: str = "", normalization: str = "none") -> None:
        self._source, self._target, self.joiner, self.normalization = source, target, joiner, normalization

    @property
    def joint(self) -> bool:
        """Whether both languages share one vocabulary."""
        return self._source is self._target

    @property
    def pretokenized(self) -> bool:
        """Whether it works on text that is already split."""
        return self._target.pretokenized

    @property
    def source_vocab_size(self) -> int:
        return len(self._source)

    @property
    def target_vocab_size(self) -> int:
        return len(self._target)

    def encode_source(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without begin and end."""
        return self._source.encode(self._canonical(texts))

    def encode_target(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without begin and end."""
        return self._target.encode(self._canonical(texts))

    def _canonical(self, texts: Iterable[str]) -> list[str]:
        return [canonical(text, self.normalization) for text in texts]

    def source_pieces(self, ids: Sequence[int]) -> list[str]:
        """Each token as the source vocabulary has it."""
        return [self._source.piece(int(index)) for index in ids]

    def target_pieces(self, ids: Sequence[int]) -> list[str]:
        """Each token as the target vocabulary has it."""
        return [self._target.piece(int(index)) for index in ids]

    def source_words(self, text: str, ids: Sequence[int]) -> tuple[list[str], list[int]]:
        """The words of a source text (between spaces, U+0020), and the number of the word that each of its tokens belongs to."""
        words, numbers = self._source.words(canonical(normalise(text), self.normalization))
        return (words, numbers) if len(numbers) == len(ids) else self._words_of(self._source, ids)  # a foreign model's span several words

    def target_words(self, ids: Sequence[int]) -> tuple[list[str], list[int]]:
        """The words (between spaces, U+0020) of the text that a translation of these ids is, and the number of each token's word."""
        return self._words_of(self._target, ids)

    def _words_of(self, vocabulary: Vocabulary, ids: Sequence[int]) -> tuple[list[str], list[int]]:
        def words(ids: Sequence[int]) -> list[str]:
            return split(normalise(self._decoded(vocabulary, ids)))

        return words(ids), word_numbers(ids, words)

    def _decoded(self, vocabulary: Vocabulary, ids: Sequence[int]) -> str:
        return canonical(vocabulary.decode(ids), self.normalization)

    def decode_source(self, ids: Iterable[int]) -> str:
        """Detokenised text of the ids of a source side. Split words are joined."""
        return self._decoded(self._source, [int(index) for index in ids])

    def decode_target(self, ids: Iterable[int]) -> str:
        """Detokenised text of the ids up to the first EOS; PAD and BOS are skipped. Split words are joined."""
        kept = []
        for index in ids:
            if index == EOS:
                break
            if index not in (PAD, BOS):
                kept.append(int(index))
        return self._decoded(self._target, kept)

    def readable(self, text: str) -> str:
        """Text of a corpus as a translation has it: split words joined, in the tokenizer's Unicode form."""
        return readable(text, self.joiner, self.normalization)

    def _files(self) -> dict[str, bytes]:
        sides = {"joint": self._source} if self.joint else {"source": self._source, "target": self._target}
        files = {f"{side}.{vocabulary.suffix}": vocabulary.to_bytes() for side, vocabulary in sides.items()}
        description = {"files": list(files), "joiner": self.joiner}
        if self.normalization != "none":  # which older tokenizers did not write
            description["normalization"] = self.normalization
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
            whole_files.write(folder / name, data)


def load_tokenizer(folder: epath.PathLike) -> Tokenizer:
    """Read what `Tokenizer.save` wrote.

    Raises:
        UserError: a file is missing or damaged.
    """
    folder = epath.Path(folder)
    try:
        description = _description(folder)
        joiner = description["joiner"]
        vocabularies = [_load_vocabulary(folder / name, joiner) for name in description["files"]]
        return Tokenizer(vocabularies[0], vocabularies[-1], joiner, description["normalization"])
    except FileNotFoundError as error:
        raise UserError(f"there is no whole tokenizer in {folder}: {error.filename or error} is missing") from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(f"{folder / 'tokenizer.json'} is damaged ({error}): restore it, or remove the folder to train it again") from error


def _description(folder: epath.Path) -> dict[str, Any]:
    return {"normalization": "none"} | json.loads((folder / "tokenizer.json").read_text())


def _load_vocabulary(path: epath.Path, joiner: str) -> Vocabulary:
    data = path.read_bytes()
    return Words.from_bytes(data, joiner, str(path)) if path.suffix == ".vocab" else Subwords(data, str(path))


def joiner_of(options: config.Tokenizer) -> str:
    """How words are split in the text of a run with these settings; "" where they are whole."""
    return options.joiner if options.kind == "words" else ""


def normalization_of(options: config.Tokenizer, folder: epath.PathLike) -> str:
    """The Unicode form of a run's text: its tokenizer's, which older ones do not name; that of its settings while it has no tokenizer."""
    try:
        return _description(epath.Path(folder))["normalization"]
    except FileNotFoundError:
        return options.normalization
    except (ValueError, TypeError):
        return load_tokenizer(folder).normalization  # which tells the damage


def readable(text: str, joiner: str, normalization: str) -> str:
    """Text as people read it: split words joined, in a Unicode form."""
    return canonical(join(text, joiner), normalization)


def train_tokenizer(options: config.Tokenizer, pairs: Iterable[tuple[str, str]]) -> Tokenizer:
    """A tokenizer for `pairs`, all of which are used (`prepare` hands over `max_sentences`, spread over the corpus).

    With `options.model` given, that is loaded and `pairs` stays unread. The same pairs and options give the same
    tokenizer on any machine. The vocabulary may come out smaller than asked for where there is little text.

    Raises:
        UserError: the pairs have no text, the vocabulary size is too small for its characters, or a given model does not fit.
    """
    if options.model:
        return _given(options)
    pairs = list(pairs)
    sources, targets = ([canonical(pair[side], options.normalization) for pair in pairs] for side in (0, 1))
    learn = _learn_words if options.kind == "words" else _learn_subwords
    sides = [learn(options, [*sources, *targets], "both languages")] if options.joint else []
    sides = sides or [learn(options, sources, "the source language"), learn(options, targets, "the target language")]
    return Tokenizer(sides[0], sides[-1], joiner_of(options), options.normalization)


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
    return Tokenizer(vocabularies[0], vocabularies[-1], normalization=options.normalization)


def _learn_words(options: config.Tokenizer, texts: Sequence[str], whose: str) -> Words:
    counts = collections.Counter(token for text in texts for token in split(text) if "\n" not in token)
    if not counts:
        raise UserError(f"no vocabulary can be made for {whose}: there is no text left to make it from")
    if 0 < options.vocab_size <= len(SPECIAL):
        raise UserError(f"tokenizer.vocab_size {options.vocab_size} leaves no room beside {len(SPECIAL)} special tokens (0: all words)")
    check_joiner(counts, options.joiner, f"the training text of {whose}")
    ranked = sorted(counts, key=lambda token: (-counts[token], token))
    return Words(ranked[: options.vocab_size - len(SPECIAL)] if options.vocab_size else ranked, options.joiner)


def _learn_subwords(options: config.Tokenizer, texts: Sequence[str], whose: str) -> Subwords:
    written = io.BytesIO()
    stops: list[BaseException] = []

    def sentences() -> Iterator[str]:
        try:
            yield from (" ".join(text.split()) for text in texts)
        except (KeyboardInterrupt, SystemExit) as stop:  # which SentencePiece would make an error of its own
            stops.append(stop)
            raise

    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=sentences(),
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
        if stops:
            raise stops[0] from None
        if needed := re.search(r"smaller than required_chars\. \d+ vs (\d+)", str(error)):
            raise UserError(
                f"tokenizer.vocab_size {options.vocab_size} is too small for {whose}: characters, bytes and special tokens alone need "
                f"{needed[1]}; raise it, or lower tokenizer.character_coverage"
            ) from error
        if "sentences_.empty()" in str(error) or "all_chars_count" in str(error):
            raise UserError(f"no tokenizer can be trained for {whose}: there is no text left to train it on") from error
        reason = re.sub(r"^\w+: \S+\(\d+\) ", "", errors.first_line(error))  # without the place in SentencePiece's source
        raise UserError(f"SentencePiece could not train a tokenizer for {whose} ({reason}): check the settings tokenizer.*") from error
    return Subwords(written.getvalue())
