"""The tokens of one language, or of two: SentencePiece pieces of raw text, or the words of text that is already split.

In every vocabulary the ids 0 to 3 are padding, begin, end and unknown. No text is ever encoded as one of the first three.
"""

from __future__ import annotations

import collections
import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import sentencepiece

from jaxnmt.data.special_tokens import BOS, EOS, PAD, UNK
from jaxnmt.errors import UserError

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
SPACER, JOINER = "▁", "￭"
BYTE = re.compile("<0x[0-9A-F]{2}>")
_NO_DUMMY_PREFIX = b"\x1a\x02\x18\x00"
"""`normalizer_spec { add_dummy_prefix: false }`. Messages of protocol buffers are merged by appending one to the other."""


def without_prefix(model: bytes) -> sentencepiece.SentencePieceProcessor:
    """Return a SentencePiece model for text that does not begin a word unless it says so."""
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(model + _NO_DUMMY_PREFIX)
    return processor


class Subwords:
    """A SentencePiece model.

    Raises:
        UserError: `model` is not a SentencePiece model, or its special ids are not padding 0, begin 1, end 2, unknown 3.

    Attributes:
        suffix: of its file.
    """

    suffix = "model"

    def __init__(self, model: bytes, name: str = "SentencePiece model") -> None:
        self._model = model
        self._processor = processor = sentencepiece.SentencePieceProcessor()
        try:
            processor.LoadFromSerializedProto(model)
        except RuntimeError as error:
            raise UserError(f"{name} is not a SentencePiece model, or is damaged: train or fetch it again") from error
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
        spaced = [" ".join(text.split()) for text in texts]  # all kinds of spaces count as spaces, as in `str.split`
        if len(spaced) == 1:  # for a list, SentencePiece starts a thread: 0.2 ms
            return [self._processor.encode(spaced[0], out_type=int)]
        return self._processor.encode(spaced, out_type=int, num_threads=1)  # one thread, because workers are processes

    def decode(self, ids: Sequence[int], unknown: str = "") -> str:
        """Return the text of tokens; `unknown` takes the place of each unknown one unless it is empty."""
        if not unknown:
            return self._processor.decode(list(ids))
        return self._processor.decode([unknown if index == UNK else self.piece(index) for index in ids])

    def piece(self, index: int) -> str:
        """Return a token as the vocabulary spells it; `▁` begins a word."""
        return self._processor.id_to_piece(index)

    def spelling(self, piece: str) -> list[int]:
        """Return the tokens that spell a token of another vocabulary: itself, if it is one of these; none, if some text is unknown."""
        if (index := self._processor.piece_to_id(piece)) != UNK:
            return [index]
        ids = [] if BYTE.fullmatch(piece) else self._of_pieces.encode(piece)
        return [] if UNK in ids else ids

    @functools.cached_property
    def _of_pieces(self) -> sentencepiece.SentencePieceProcessor:
        return without_prefix(self._model)

    def words(self, text: str) -> tuple[list[str], list[int]]:
        """Return the words of a text, and for each of its tokens the number of its word."""
        words = split(text)
        return words, [number for number, ids in enumerate(self.encode(words)) for _ in ids]

    def to_bytes(self) -> bytes:
        return self._model


class Words:
    """A list of tokens that are separated by spaces; a token that is not in the list is unknown.

    Attributes:
        suffix: of its file.

    The special tokens are the first four, whatever their text, so that a token `</s>` in the text is an ordinary token.

    Args:
        tokens: all but the special ones, in the order of their ids, which start at 4.
        joiner: marks a split inside a word, see `join`; `decode` joins words by it.
    """

    suffix = "vocab"

    def __init__(self, tokens: Sequence[str], joiner: str) -> None:
        self._tokens = [*SPECIAL, *tokens]
        self._joiner = joiner
        self._ids = {token: index for index, token in enumerate(self._tokens) if index >= len(SPECIAL)}

    @classmethod
    def from_bytes(cls, data: bytes, joiner: str) -> Words:
        """Read what `to_bytes` wrote.

        Raises:
            ValueError: it is not a whole vocabulary.
        """
        lines = data.decode().split("\n")
        tokens = lines[len(SPECIAL) : -1]
        if tuple(lines[: len(SPECIAL)]) != SPECIAL or lines[-1] or len(set(tokens)) < len(tokens):
            raise ValueError(f"a vocabulary starts with {', '.join(SPECIAL)}, has each token once, one a line, and ends with a line end")
        return cls(tokens, joiner)

    def __len__(self) -> int:
        return len(self._tokens)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [[self._ids.get(token, UNK) for token in split(text)] for text in texts]

    def decode(self, ids: Sequence[int], unknown: str = "") -> str:
        """Return the text of tokens; `unknown` takes the place of each unknown one unless it is empty."""
        return self._joined([unknown if unknown and index == UNK else self._tokens[index] for index in ids])

    def piece(self, index: int) -> str:
        """Return a token as the vocabulary spells it."""
        return self._tokens[index]

    def spelling(self, piece: str) -> list[int]:
        """Return the id of a token of another vocabulary, in a list; none, if it is unknown here."""
        return [self._ids[piece]] if piece in self._ids else []

    def words(self, text: str) -> tuple[list[str], list[int]]:
        """Return the joined words of a text, and for each of its tokens the number of its word."""
        return words_of(split(text), lambda tokens: split(self._joined(tokens)))

    def _joined(self, tokens: Sequence[str]) -> str:
        return join(" ".join(tokens), self._joiner)

    def to_bytes(self) -> bytes:
        return "".join(f"{token}\n" for token in self._tokens).encode()


class PictureNumbers(Words):
    """Numbers of pictures in digits. A number is its own id; special tokens do not exist."""

    suffix = "pictures"

    def __init__(self) -> None:
        super().__init__((), "")

    @classmethod
    def from_bytes(cls, data: bytes, joiner: str) -> PictureNumbers:
        return cls()

    def __len__(self) -> int:
        return 1 << 31

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [[int(text)] for text in texts]

    def decode(self, ids: Sequence[int], unknown: str = "") -> str:
        return " ".join(f"picture {index}" for index in ids)

    def piece(self, index: int) -> str:
        return str(index)

    def to_bytes(self) -> bytes:
        return b""


Vocabulary = Subwords | Words
"""The tokens of one language, or of both."""


def join(text: str, joiner: str) -> str:
    """Join the words of split text.

    Args:
        joiner: how they are split. "▁" begins a word, as in SentencePiece: "▁ein fach ▁so". "￭" joins on the side where it is attached, or
            on both sides if it is alone, as in OpenNMT: "ein￭ fach ￭, so". Any other joiner is removed literally: "ein@@ fach" with "@@ ".
            "": words are whole.
    """
    if _is(joiner, SPACER):
        return text.replace(" ", "").replace(SPACER, " ").strip(" ")
    if _is(joiner, JOINER):
        return re.sub(f" *{JOINER} *", "", text).strip(" ")
    return (text + " ").replace(joiner, "").strip(" ")  # a joiner at the very end goes too


def link(joiner: str) -> str:
    """Return a regular expression for what separates two pieces of a word."""
    return " " if _is(joiner, SPACER) else f" ?{JOINER} ?" if _is(joiner, JOINER) else re.escape(joiner)


def stays_split(pretokenized: bool, joiner: str) -> bool:
    """Return whether text is split and `join` does not restore it. With "@@ ", punctuation stays separate from the words."""
    return pretokenized and not (_is(joiner, SPACER) or _is(joiner, JOINER))


def _is(joiner: str, mark: str) -> bool:
    return joiner.strip(" ") == mark


_MARKS: dict[str, Callable[[str], bool]] = {  # joiner: whether a token has its mark
    "@@ ": lambda token: token.endswith("@@"),
    SPACER: lambda token: token.startswith(SPACER),
    JOINER: lambda token: token.startswith(JOINER) or token.endswith(JOINER),
}
_MANY = 0.01
"""The share of tokens above which a mark is no accident."""


def joiner_seen(counts: Mapping[str, int]) -> str:
    """Return the joiner whose mark is on many of a text's tokens; "" if there is none. `counts` is the frequency of each token."""
    total = sum(counts.values())
    marked = {joiner: sum(count for token, count in counts.items() if has_mark(token)) for joiner, has_mark in _MARKS.items()}
    most = max(marked, key=marked.__getitem__)
    return most if marked[most] > _MANY * total else ""


def check_joiner(counts: Mapping[str, int], joiner: str, what: str) -> None:
    """Check that the marks on a text's tokens match the joiner by which it will be joined ("": words are whole).

    Args:
        counts: the frequency of each token in the text.
        what: the name of the text, for the message.

    Raises:
        UserError: many tokens have the mark of another joiner and none has the mark of this one; or the joiner is "▁", which begins every
            word, and no token has it.
    """
    mark, seen = joiner.strip(" "), joiner_seen(counts)
    if not mark or not counts or any(mark in token for token in counts):
        return
    if seen:
        raise UserError(
            f"{what} is split into pieces by {seen.strip()!r}, and tokenizer.joiner {joiner!r} does not occur in it: "
            f"set tokenizer.joiner to {seen!r}"
        )
    if mark == SPACER:
        raise UserError(f"tokenizer.joiner is {joiner!r}, which begins every word, but {what} has none: split it, or set another joiner")


def split(text: str) -> list[str]:
    """Return the tokens of text that is already split. Only U+0020 separates tokens, so that a no-break space stays inside its token."""
    return [token for token in text.split(" ") if token]


def count_tokens(lines: Iterable[str]) -> collections.Counter[str]:
    """Return how often each token occurs in split text."""
    return collections.Counter(token for line in lines for token in split(line))


def words_of(tokens: Sequence[Any], formed: Callable[[Sequence[Any]], list[str]]) -> tuple[list[str], list[int]]:
    """Return the words that tokens form, and for each token the number of its word, from 0.

    Words are counted from the end: a token belongs to the first of the words that it and all later tokens form. A token that only marks the
    start of a word therefore belongs to the word that follows.

    Args:
        formed: returns the words that some of the tokens form.
    """
    words = formed(tokens)
    left = [len(formed(tokens[start:])) for start in range(len(tokens))]
    return words, [max(0, min(len(words) - rest, len(words) - 1)) for rest in left]
