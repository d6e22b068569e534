"""How the bytes of a line become text.

Only b"\\n" ends a line, so that no character can shift one side of a corpus against the other. Characters that other tools take for a
line end or cannot show (NUL, carriage return, U+2028, a byte order mark) become a space or are dropped, in training, validation and
translation alike.
"""

from __future__ import annotations

import unicodedata

_CONTROLS = [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029]
_HARMLESS: dict[int, str | None] = {**dict.fromkeys(_CONTROLS, " "), 0xFEFF: None}


def normalise(text: str) -> str:
    """Text as one line: control characters and foreign line ends become spaces, byte order marks go, the ends are stripped."""
    return text.translate(_HARMLESS).strip()


def decode(line: bytes) -> str:
    """A line as text, whatever its bytes: those that are not UTF-8 become U+FFFD. Never more and never less than one line."""
    return normalise(line.decode("utf-8", "replace"))


def canonical(text: str, normalization: str) -> str:
    """Text in the Unicode form of `tokenizer.normalization`: composed ("nfc"), or as it is ("none")."""
    return unicodedata.normalize("NFC", text) if normalization == "nfc" else text
