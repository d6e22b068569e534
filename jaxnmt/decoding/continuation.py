"""Continue texts with a language model: each line is the beginning of a text."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from jaxnmt import config as cfg
from jaxnmt.decoding.rules import Rules
from jaxnmt.decoding.translation import Translation
from jaxnmt.decoding.translator import Translator
from jaxnmt.errors import UserError


class Continuation(Translator):
    """Continues lines: each line is the forced prefix, and the source is empty."""

    reads_source = False

    def translate(
        self, lines: Sequence[str], decoding: cfg.Decoding, first: int = 1, rules: Sequence[Rules] = ()
    ) -> list[list[Translation]]:
        """Return up to `decoding.n_best` texts that begin with each line; of an empty line, any texts.

        Raises:
            UserError: a line has a prefix of its own, or as `Translator.translate`.
        """
        return super().translate(
            lines, decoding, first, [_begun(*each) for each in zip(rules or [Rules()] * len(lines), lines, strict=True)]
        )

    def stream(self, line: str, decoding: cfg.Decoding, number: int = 1, rules: Rules | None = None) -> Iterator[str]:
        """Return what `Translator.stream` does, of a text that begins with the line."""
        return super().stream(line, decoding, number, _begun(rules or Rules(), line))

    def _parts(self, number: int, line: str) -> list[list[int]]:
        return [[]]

    def _as_source(self, ids: list[int]) -> list[int]:
        return []


def _begun(rules: Rules, line: str) -> Rules:
    """Return a line's rules, with the line as the prefix of what is written."""
    if rules.prefix not in ("", line.strip()):
        raise UserError("a language model continues each line: write the prefix at its end instead")
    return dataclasses.replace(rules, prefix=line.strip())
