"""The vocabulary of a model that was trained by other software: a SentencePiece model, and a list that numbers its pieces otherwise."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import sentencepiece

from jaxnmt.config.fields import did_you_mean
from jaxnmt.data.special_tokens import BOS, EOS, FIRST_TOKEN, PAD, UNK
from jaxnmt.data.vocabulary import BYTE, SPACER, SPECIAL, split, without_prefix
from jaxnmt.errors import UserError


class Numbering(NamedTuple):
    """The tokens of other software by their ids there.

    Attributes:
        tokens: every token, in the order of the ids.
        pad, eos, unk: ids of padding, of the end of a sentence, and of the unknown token.
        bos: id of fairseq's begin token, which never occurs in a text; None if the model has no begin token.
        languages: tokens that name a language. One of them is the first word of a text or of a translation.
    """

    tokens: tuple[str, ...]
    pad: int
    eos: int
    unk: int
    bos: int | None = None
    languages: tuple[str, ...] = ()

    @staticmethod
    def of_pieces(pieces: Sequence[str]) -> Numbering:
        """Return the numbering that Marian gives our tokens (all, in the order of our ids): its end is 0, unknown 1, and padding the last.

        It has no begin token.
        """
        return Numbering((SPECIAL[EOS], SPECIAL[UNK], *pieces[FIRST_TOKEN:], SPECIAL[PAD]), len(pieces) - 2, 0, 1)

    @staticmethod
    def from_bytes(data: bytes) -> Numbering:
        """Read what `to_bytes` wrote.

        Raises:
            ValueError: it is not a whole numbering.
            KeyError, TypeError: it has other fields.
        """
        fields = {"bos": None, "languages": []} | json.loads(data)
        pad, eos, unk, bos = (fields[name] for name in ("pad", "eos", "unk", "bos"))
        return Numbering(tuple(fields["tokens"]), pad, eos, unk, bos, tuple(fields["languages"]))

    def to_bytes(self) -> bytes:
        """Return the numbering as JSON. Empty fields are left out, so that vocabularies of earlier versions keep their fingerprints."""
        fields = self._asdict()
        return json.dumps({name: x for name, x in fields.items() if x not in (None, ())}, ensure_ascii=False).encode()

    @property
    def begin(self) -> int:
        """Id of the token that the decoder reads first: the end token in fairseq's models, padding in the others."""
        return self.pad if self.bos is None else self.eos

    @property
    def ours(self) -> np.ndarray:
        """Our id of each of its ids, int32 (tokens,). Without a begin token, padding becomes BOS, because the decoder reads it first."""
        special = {self.pad: BOS if self.bos is None else PAD, self.bos: BOS, self.eos: EOS, self.unk: UNK}
        others = iter(range(FIRST_TOKEN, len(self.tokens) + FIRST_TOKEN))
        return np.array([special[index] if index in special else next(others) for index in range(len(self.tokens))], np.int32)


class Pieces:
    """A SentencePiece model whose pieces have the ids of a `Numbering`, in our order: special tokens first.

    A piece that the numbering lacks is unknown. A text may begin with a token such as `>>fra<<`, which tells a model of several target
    languages which language to write, or with one of the numbering's `languages`, which `decode` removes.

    Args:
        model: a SentencePiece model.
        numbering: of its pieces.
        name: of the file, for messages.

    Raises:
        UserError: `model` is not a SentencePiece model.

    Attributes:
        suffix, model_suffix: of its two files.
    """

    suffix, model_suffix = "pieces", "spm"

    def __init__(self, model: bytes, numbering: Numbering, name: str = "SentencePiece model") -> None:
        self.model, self.numbering = model, numbering
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model)
        except RuntimeError as error:
            raise UserError(f"{name} is not a SentencePiece model, or is damaged: fetch it again") from error
        ours = numbering.ours.tolist()
        self._tokens = list(SPECIAL) + [token for token, index in zip(numbering.tokens, ours, strict=True) if index >= FIRST_TOKEN]
        self._ids = {token: index for index, token in enumerate(self._tokens) if index >= FIRST_TOKEN}
        self._languages = frozenset(numbering.languages)

    def __reduce__(self):
        return Pieces, (self.model, self.numbering)

    def __len__(self) -> int:
        return len(self._tokens)

    def numbers_like(self, other: Pieces) -> bool:
        """Return whether each id means the same token in both."""
        return self.numbering == other.numbering

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        found = []
        for text in texts:
            language, rest = self._language(" ".join(text.split()))
            pieces = self._processor.encode(rest, out_type=str)
            found.append([self._ids.get(piece, UNK) for piece in language + pieces])
        return found

    def _language(self, text: str) -> tuple[list[str], str]:
        """Return the language token that a text begins with, if it does, and the rest.

        Raises:
            UserError: the first word is a misspelt language token.
        """
        first, _, rest = text.partition(" ")
        if first in self._languages:
            return [first], rest
        if "_" in first and (near := did_you_mean(first, [each for each in self._languages if len(each) == len(first)])):
            raise UserError(f"a text begins with {first}, which is not one of the model's {len(self._languages)} languages{near}")
        code, end, rest = text.partition("<<")
        return ([code + end], rest) if text.startswith(">>") and code + end in self._ids else ([], text)

    def decode(self, ids: Sequence[int], unknown: str = "") -> str:
        """Return the text of tokens; `unknown` takes the place of each unknown one unless it is empty."""
        pieces = [unknown if unknown and index == UNK else self._tokens[index] for index in ids]
        if self._languages:
            pieces = [piece for piece in pieces if piece not in self._languages]
        return self._processor.decode(pieces).replace(SPACER, " ").strip()  # which pieces of the other side's model still have

    def piece(self, index: int) -> str:
        """Return a token as the vocabulary spells it; `▁` begins a word."""
        return self._tokens[index]

    def spelling(self, piece: str) -> list[int]:
        """Return the tokens that spell a token of another vocabulary: itself, if it is one of these; none, if some text is unknown."""
        if piece in self._ids:
            return [self._ids[piece]]
        ids = [] if BYTE.fullmatch(piece) else [self._ids.get(each, UNK) for each in self._of_pieces.encode(piece, out_type=str)]
        return [] if UNK in ids else ids

    @functools.cached_property
    def _of_pieces(self) -> sentencepiece.SentencePieceProcessor:
        return without_prefix(self.model)

    def words(self, text: str) -> tuple[list[str], list[int]]:
        """Return the words of a text, and for each of its tokens the number of its word."""
        words = split(text)
        return words, [number for number, ids in enumerate(self.encode(words)) for _ in ids]

    def to_bytes(self) -> bytes:
        return self.numbering.to_bytes()
