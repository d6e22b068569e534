"""Replace the unknown words of translations: `decoding.unk replace` (Luong et al. 2015).

A word with an unknown token becomes the source word that has the most attention when the token is predicted, or this word's entry in a
table.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxnmt.data.special_tokens import UNK
from jaxnmt.data.tokenizer import Tokenizer
from jaxnmt.decoding.terminology import LETTER, Terminology
from jaxnmt.io.text import normalise

if TYPE_CHECKING:
    from jaxnmt.decoding.alignments import Aligner
    from jaxnmt.decoding.translation import Translation

_MARK = "\uffff"  # Unicode has no such character, and so a vocabulary has none
_WORD = re.compile(f"(?:{LETTER}|{_MARK})*{_MARK}(?:{LETTER}|{_MARK})*")


def replaced(
    lines: Sequence[str], found: list[list[Translation]], aligner: Aligner, tables: Sequence[Terminology | None], rows: int
) -> list[list[Translation]]:
    """Return the translations with other texts: without unknown words.

    Args:
        lines: the sources.
        found: the translations of each.
        aligner: of their model. Lines without an unknown word are not aligned.
        tables: the words of each line that are not copied as they are; None: all are.
        rows: translations that are aligned together.
    """
    places = [i for i, candidates in enumerate(found) if any(UNK in _target(each) for each in candidates)]
    words = aligner.source_words([lines[i] for i in places], [found[i] for i in places], rows)
    after = list(found)
    for i, of_candidates in zip(places, words, strict=True):
        pairs = zip(found[i], of_candidates, strict=True)
        after[i] = [each._replace(text=_text(each, source_T, tables[i], aligner.tokenizer)) for each, source_T in pairs]
    return after


def _target(translation: Translation) -> list[int]:
    return [token for _, ids in translation.parts for token in ids]


def _text(translation: Translation, source_T: Sequence[str], table: Terminology | None, tokenizer: Tokenizer) -> str:
    """Return the text of a translation, whose word with the k-th unknown token is the translation of that token's source word."""
    words = iter([word for token, word in zip(_target(translation), source_T, strict=True) if token == UNK])

    def word(match: re.Match[str]) -> str:
        source, *_ = [next(words) for mark in match[0] if mark == _MARK]
        core = source if tokenizer.pretokenized else re.sub(r"^\W+|\W+$", "", source) or source  # the target has its own punctuation
        return (table and table.translation(core)) or core

    return _WORD.sub(word, " ".join(normalise(tokenizer.decode_target(ids, _MARK)) for _, ids in translation.parts))
