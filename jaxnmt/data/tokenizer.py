"""Convert text to token ids and back: a source and a target vocabulary, saved in a folder, and loaded from it."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxnmt import config
from jaxnmt.data import labels
from jaxnmt.data.pieces import Numbering, Pieces
from jaxnmt.data.special_tokens import BOS, EOS, FIRST_TOKEN, PAD
from jaxnmt.data.vocabulary import (
    SPACER,
    PictureNumbers,
    Subwords,
    Vocabulary,
    Words,
    join,
    split,
    words_of,
)
from jaxnmt.errors import UserError
from jaxnmt.io import files
from jaxnmt.io.text import canonical, normalise

AnyVocabulary = Vocabulary | Pieces | labels.Numbers


class Tokenizer:
    """Source and target vocabulary. Encoding adds neither begin nor end tokens.

    Args:
        joiner: how words are split in text that is already split; "" for other text.
        normalization: the Unicode form of text before it is encoded and after it is decoded, see `text.canonical`.

    Attributes:
        joint: both languages share one vocabulary.
        imported: a vocabulary is of a model that other software trained, and numbers SentencePiece's pieces otherwise.
        reads_pictures: source ids are numbers of pictures.
        has_labels: targets are labels or numbers.
        pretokenized: the tokenizer works on text that is already split.
        source_vocab_size, target_vocab_size: number of tokens in each vocabulary.
    """

    def __init__(self, source: Vocabulary | Pieces, target: AnyVocabulary, joiner: str = "", normalization: str = "none") -> None:
        self._source, self._target, self.joiner, self.normalization = source, target, joiner, normalization
        self.joint = source is target or (isinstance(source, Pieces) and isinstance(target, Pieces) and source.numbers_like(target))
        self.imported = isinstance(source, Pieces) or isinstance(target, Pieces)
        self.reads_pictures = isinstance(source, PictureNumbers)
        self.has_labels = isinstance(target, labels.Labels | labels.Numbers)
        self.pretokenized = isinstance(target if self.reads_pictures else source, Words)
        self.source_vocab_size, self.target_vocab_size = len(source), len(target)

    def encode_source(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, without begin and end."""
        return self._encode(self._source, texts)

    def encode_target(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, without begin and end."""
        return self._encode(self._target, texts)

    def _encode(self, vocabulary: AnyVocabulary, texts: Sequence[str]) -> list[list[int]]:
        return vocabulary.encode([canonical(text, self.normalization) for text in texts])

    def source_pieces(self, ids: Sequence[int]) -> list[str]:
        """Return each token as the source vocabulary spells it."""
        return [self._source.piece(int(index)) for index in ids]

    def target_pieces(self, ids: Sequence[int]) -> list[str]:
        """Return each token as the target vocabulary spells it."""
        return [self._target.piece(int(index)) for index in ids]

    def source_difference(self, other: Tokenizer) -> tuple[int, str, str] | None:
        """Return what `target_difference` does, of the source vocabularies; pictures are alike, and like no text."""
        if self.reads_pictures or other.reads_pictures:
            return None if self.reads_pictures and other.reads_pictures else (0, self._source.piece(0), other._source.piece(0))
        return Tokenizer(self._source, self._source).target_difference(Tokenizer(other._source, other._source))

    def target_difference(self, other: Tokenizer) -> tuple[int, str, str] | None:
        """Return the first id that means another token in another target vocabulary, and both tokens ("": none); None if all are equal."""
        own, others = (each.target_pieces(range(each.target_vocab_size)) for each in (self, other))
        pairs = enumerate(itertools.zip_longest(own, others, fillvalue=""))
        return next(((index, one, another) for index, (one, another) in pairs if one != another), None)

    def spellings(self, new: Tokenizer, side: str) -> list[list[int]]:
        """Return, for each token of another tokenizer, the tokens of this one that spell it; none if they cannot.

        Args:
            new: the other tokenizer.
            side: "source" or "target", of both.
        """
        known, wanted = (each._source if side == "source" else each._target for each in (self, new))
        assert isinstance(known, Vocabulary | Pieces) and isinstance(wanted, Vocabulary | Pieces)
        special = [[index] for index in range(FIRST_TOKEN)]
        return special + [known.spelling(wanted.piece(index)) for index in range(FIRST_TOKEN, len(wanted))]

    def target_begins(self) -> np.ndarray:
        """Return whether each target id begins a word, bool (ids,); of text that is already split, every token does."""
        pieces = self.target_pieces(range(self.target_vocab_size))
        return np.array([self.pretokenized or piece.startswith(SPACER) for piece in pieces])

    def with_target(self, other: Tokenizer) -> Tokenizer:
        """Return a tokenizer with this one's source vocabulary and another's target vocabulary."""
        return Tokenizer(self._source, other._target, self.joiner, self.normalization)

    def with_pictures(self) -> Tokenizer:
        """Return a tokenizer whose sources are numbers of pictures, with this one's target vocabulary."""
        return Tokenizer(PictureNumbers(), self._target, self.joiner, self.normalization)

    def with_labels(self, texts: Iterable[str], kind: str = "one") -> Tokenizer:
        """Return a tokenizer with the same source vocabulary, whose targets are labels or numbers.

        Args:
            texts: the training targets.
            kind: as `config.Classification.labels`.
        """
        found = labels.KINDS[kind].learnt(canonical(text, self.normalization) for text in texts)
        return Tokenizer(self._source, found, self.joiner, self.normalization)

    @property
    def subwords(self) -> dict[str, tuple[bytes, Numbering]]:
        """The SentencePiece model of each side ("source", "target"), and how other software numbers its pieces; {} if one side has none."""
        found = {}
        for side, each in (("source", self._source), ("target", self._target)):
            if isinstance(each, Pieces):
                found[side] = each.model, each.numbering
            elif isinstance(each, Subwords):
                found[side] = each.to_bytes(), Numbering.of_pieces([each.piece(index) for index in range(len(each))])
        return found if len(found) == 2 else {}

    @property
    def label_names(self) -> list[str]:
        """The labels, in the order of a classifier's outputs."""
        return self.target_pieces(range(FIRST_TOKEN, self.target_vocab_size))

    def number(self, standardised: float) -> str:
        """Return a number that is given in standard deviations from the mean of those that were trained on."""
        assert isinstance(self._target, labels.Numbers)
        return self._target.text(standardised)

    def rare(self, counts: np.ndarray) -> str:
        """Return a sentence about the labels that training examples have once or never, or ""; `counts` has a number for each target id."""
        assert isinstance(self._target, labels.Labels | labels.Numbers)
        return self._target.rare(counts)

    def unseen(self, texts: Sequence[str]) -> str:
        """Return a sentence about the labels in validation or test targets that the training data have not, or ""."""
        assert isinstance(self._target, labels.Labels | labels.Numbers)
        return self._target.unseen([canonical(text, self.normalization) for text in texts])

    def cut(self, text: str, ids: Sequence[int], limit: int) -> list[tuple[str, Sequence[int]]]:
        """Return a source text and its ids in parts of at most `limit` tokens, each with its text."""
        if len(ids) <= limit:
            return [(text, ids)]
        parts = [ids[start : start + limit] for start in range(0, len(ids), limit)]
        return [(" ".join(self.source_pieces(part)) if self.pretokenized else self.decode_source(part), part) for part in parts]

    def source_words(self, text: str, ids: Sequence[int]) -> tuple[list[str], list[int]]:
        """Return the words of a source text (between spaces, U+0020), and for each token the number of its word."""
        return self._words_of(self._source, text, ids)

    def target_words(self, ids: Sequence[int], text: str | None = None) -> tuple[list[str], list[int]]:
        """Return the words (between spaces, U+0020) of the translation with these ids, and for each token the number of its word.

        Args:
            text: from which the ids were made; None: the words are those of the decoded ids.
        """
        return self._words(self._target, ids) if text is None else self._words_of(self._target, text, ids)

    def _words_of(self, vocabulary: AnyVocabulary, text: str, ids: Sequence[int]) -> tuple[list[str], list[int]]:
        words, numbers = vocabulary.words(canonical(normalise(text), self.normalization))
        # The pieces of a model trained elsewhere may span several words.
        return (words, numbers) if len(numbers) == len(ids) else self._words(vocabulary, ids)

    def _words(self, vocabulary: AnyVocabulary, ids: Sequence[int]) -> tuple[list[str], list[int]]:
        return words_of(ids, lambda some: split(normalise(self._decode(vocabulary, some))))

    def _decode(self, vocabulary: AnyVocabulary, ids: Sequence[int], unknown: str = "") -> str:
        return canonical(vocabulary.decode(ids, unknown), self.normalization)

    def decode_source(self, ids: Iterable[int]) -> str:
        """Return the detokenised text of source ids. Split words are joined."""
        return self._decode(self._source, [int(index) for index in ids])

    def decode_target(self, ids: Iterable[int], unknown: str = "") -> str:
        """Return the detokenised text of target ids up to the first EOS; PAD and BOS are skipped. Split words are joined.

        Args:
            ids: the tokens.
            unknown: what an unknown token is written as; empty: as the vocabulary spells it.
        """
        before_end = itertools.takewhile(lambda index: index != EOS, ids)
        return self._decode(self._target, [int(index) for index in before_end if index not in (PAD, BOS)], unknown)

    def readable(self, text: str) -> str:
        """Return text of a corpus in the form of a translation: split words joined, in the tokenizer's Unicode form."""
        return readable(text, self.joiner, self.normalization)

    def _files(self) -> dict[str, bytes]:
        sides = {"joint": self._source} if self._source is self._target else {"source": self._source, "target": self._target}
        contents = {f"{side}.{vocabulary.suffix}": vocabulary.to_bytes() for side, vocabulary in sides.items()}
        description = {"files": list(contents), "joiner": self.joiner}
        contents |= {f"{side}.{Pieces.model_suffix}": each.model for side, each in sides.items() if isinstance(each, Pieces)}
        if self.normalization != "none":  # older tokenizers did not write it, and keep their fingerprint
            description["normalization"] = self.normalization
        return {**contents, "tokenizer.json": (json.dumps(description, indent=2) + "\n").encode()}

    def fingerprint(self) -> str:
        """Return the SHA-256 of everything that determines how text is encoded and decoded."""
        digest = hashlib.sha256()
        for name, data in self._files().items():
            digest.update(f"{name} {len(data)}\n".encode() + data)
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        """Write `joint.model` or `source.model` and `target.model` (words: `.vocab`), and finally `tokenizer.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in self._files().items():
            files.write(folder / name, data)


def load_tokenizer(folder: Path) -> Tokenizer:
    """Load what `Tokenizer.save` wrote.

    Raises:
        UserError: a file is missing or damaged.
    """
    try:
        description = _description(folder)
        vocabularies = [_load_vocabulary(folder / name, description["joiner"]) for name in description["files"]]
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"the tokenizer in {folder} is incomplete or damaged ({error}): restore the folder, or remove it to train the tokenizer again"
        ) from error
    return Tokenizer(vocabularies[0], vocabularies[-1], description["joiner"], description["normalization"])


def _description(folder: Path) -> dict[str, Any]:
    return {"normalization": "none"} | json.loads((folder / "tokenizer.json").read_text())


def _load_vocabulary(path: Path, joiner: str) -> Any:
    if path.suffix == f".{Pieces.suffix}":
        return Pieces(path.with_suffix(f".{Pieces.model_suffix}").read_bytes(), Numbering.from_bytes(path.read_bytes()), str(path))
    data, kinds = path.read_bytes(), {f".{kind.suffix}": kind for kind in (Words, PictureNumbers, *labels.KINDS.values())}
    return kinds[path.suffix].from_bytes(data, joiner) if path.suffix in kinds else Subwords(data, str(path))


def joiner_of(options: config.Tokenizer) -> str:
    """Return how words are split in the text of a run with these settings; "" if they are whole."""
    return options.joiner if options.kind == "words" else ""


def normalization_of(options: config.Tokenizer, folder: Path) -> str:
    """Return the Unicode form of a run's text: the one its tokenizer names, or the one in the settings if it has no tokenizer yet."""
    try:
        return _description(folder)["normalization"]
    except FileNotFoundError:
        return options.normalization
    except (ValueError, TypeError):
        return load_tokenizer(folder).normalization  # which reports the damage


def readable(text: str, joiner: str, normalization: str) -> str:
    """Return text as people read it: split words joined, in a Unicode form."""
    return canonical(join(text, joiner), normalization)
