"""The text of a translation while its tokens are still being chosen."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from jaxnmt.config import Decoding
from jaxnmt.data.tokenizer import Tokenizer
from jaxnmt.errors import UserError
from jaxnmt.io.text import normalise


def check_stream(decoding: Decoding) -> None:
    """Check that a token that is chosen with these settings is final.

    Raises:
        UserError: it may be replaced, or there are several translations.
    """
    if decoding.beam_size > 1 and not decoding.temperature:
        raise UserError(
            f"a stream has each word as soon as it is chosen, and a beam of {decoding.beam_size} may still replace it: "
            "set decoding.beam_size to 1, or decoding.temperature above 0"
        )
    if decoding.unk == "replace":
        raise UserError("decoding.unk replace needs the whole translation, which a stream does not wait for: set it to write or forbid")
    for name, default in (("n_best", 1), ("mbr", "none")):
        if (value := getattr(decoding, name)) != default:
            raise UserError(f"a stream has one translation, and decoding.{name} {value} needs several: set it to {default}")


def growing_text(tokenizer: Tokenizer, hypotheses: Iterable[tuple[Sequence[int], bool]]) -> Iterator[str]:
    """Yield what each hypothesis adds to the text of those before it. What further tokens may change is kept back.

    Args:
        hypotheses: the tokens, each time with further ones, and whether they are all.
    """
    written = 0
    for ids, is_whole in hypotheses:
        text = normalise(tokenizer.decode_target(ids))
        text = text if is_whole else _settled(text, tokenizer.normalization)
        if len(text) > written:
            yield text[written:]
            written = len(text)


def _settled(text: str, normalization: str) -> str:
    """Return the beginning of a text that further tokens cannot change."""
    text = text.rstrip("\N{REPLACEMENT CHARACTER}").rstrip()  # a character may lack bytes, and spaces at the end are not written
    if normalization == "nfc" and text:  # the last character may be composed with those that follow
        last = len(text) - 1
        while last and unicodedata.combining(text[last]):
            last -= 1
        text = text[:last].rstrip()
    return text
