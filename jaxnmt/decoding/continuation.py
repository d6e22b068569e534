"""What a language model writes: a line is the beginning of a text, which the model continues."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from jaxnmt import config as cfg
from jaxnmt.decoding.rules import Rules
from jaxnmt.decoding.translator import Translation, Translator
from jaxnmt.errors import UserError


class Continuation(Translator):
    """Continues lines: each is the prefix of what is written, and there is no source."""

    reads_source = False

    def translate(
        self, lines: Sequence[str], decoding: cfg.Decoding, first: int = 1, rules: Sequence[Rules] = ()
    ) -> list[list[Translation]]:
        """Return up to `decoding.n_best` texts that begin with each line; of an empty line, any texts.

        Raises:
            UserError: a line has a prefix of its own, or as `Translator.translate`.
        """
        if any(rule.prefix for rule in rules):
            raise UserError("a language model continues each line: write the prefix at its end instead")
        rules = [dataclasses.replace(rule, prefix=line.strip()) for rule, line in zip(rules or [Rules()] * len(lines), lines, strict=True)]
        return super().translate(lines, decoding, first, rules)

    def _parts(self, number: int, line: str) -> list[list[int]]:
        return [[]]
