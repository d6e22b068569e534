"""Translate lines that are not text alone: inline HTML, and placeholders that must come out as they are."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence

import numpy as np

from jaxnmt import config as cfg
from jaxnmt.decoding import markup
from jaxnmt.decoding.alignments import Aligner
from jaxnmt.decoding.markup import Marked
from jaxnmt.decoding.markup_transfer import transfer, words
from jaxnmt.decoding.placeholders import counts, taken_out, without
from jaxnmt.decoding.rules import Rules
from jaxnmt.decoding.translation import Translation
from jaxnmt.decoding.translator import Translator
from jaxnmt.errors import UserError
from jaxnmt.io.text import normalise


class MarkedTranslator:
    """Translates as `Translator` does. A translation's text has the markup of the line; its tokens and parts are of the text without it."""

    def __init__(self, translator: Translator, aligner: Aligner | None, format: str, protect: bool) -> None:  # noqa: A002
        """Use a translator.

        Args:
            translator: translates text.
            aligner: aligns the words of its translations; None: they are aligned by their place in the line.
            format: "html" if lines have markup, or "text".
            protect: keep placeholders.
        """
        self.translator, self.aligner, self.format, self.protect = translator, aligner, format, protect
        self._escape: Callable[[str], str] = _escape if format == "html" else str

    def translate(
        self, lines: Sequence[str], decoding: cfg.Decoding, first: int = 1, rules: Sequence[Rules] = ()
    ) -> list[list[Translation]]:
        """Return up to `decoding.n_best` translations of each line, best first; see `Translator.translate`.

        Raises:
            UserError: as there; or unknown words are to be replaced.
        """
        if decoding.unk == "replace":
            raise UserError("decoding.unk replace is for text without markup: leave out format html and protect")
        originals = [self._read(line) for line in lines]
        found = self.translator.translate([original.text for original in originals], decoding, first, rules)
        sources, lost = originals, set[int]()
        if self.protect:
            lost = {i for i, best in enumerate(found) if any(counts(originals[i].text) != counts(each.text) for each in best)}
            sources = [taken_out(each, self._escape) if i in lost else each for i, each in enumerate(originals)]
            for i in sorted(lost):
                self._warn(first + i, originals[i].text, found[i][0].text)
            texts = [each.text if i in lost else "" for i, each in enumerate(sources)]
            again = self.translator.translate(texts, decoding, first, rules)
            found = [again[i] if i in lost else best for i, best in enumerate(found)]
        aligned = self._aligned(sources, found, decoding.batch_size)
        return [
            [each._replace(text=self._text(line, original, source, each, aligned.get((i, k)))) for k, each in enumerate(candidates)]
            for i, (line, original, source, candidates) in enumerate(zip(lines, originals, sources, found, strict=True))
        ]

    def _read(self, line: str) -> Marked:
        return markup.parse(line) if self.format == "html" else Marked(normalise(line))

    def _warn(self, number: int, source: str, translation: str) -> None:
        kept, wanted = counts(translation), counts(source)
        names = ", ".join([*((wanted - kept) | (kept - wanted))][:3])
        self.translator.warn(
            f"line {number}: the model does not copy {names}: translated without placeholders, which are put back afterwards"
        )

    def _aligned(
        self, sources: Sequence[Marked], found: Sequence[Sequence[Translation]], rows: int
    ) -> dict[tuple[int, int], tuple[list[str], np.ndarray]]:
        """Return the target words of each translation whose source has markup, and their attention on the words of `Marked.text`."""
        marked = [i for i, source in enumerate(sources) if words(source.text) and not source.is_plain()]
        if not self.aligner or not marked:
            return {}
        alignments = self.aligner.align([sources[i].text for i in marked], [found[i] for i in marked], rows)
        return {
            (i, k): (alignment.target, alignment.weights_TS[:, self._columns(sources[i].text, found[i][k], len(alignment.source))])
            for i, own in zip(marked, alignments, strict=True)
            for k, alignment in enumerate(own)
        }

    def _columns(self, text: str, translation: Translation, count: int) -> list[int]:
        """Return which of the aligner's `count` words each word of a text is: of split text, it joins the pieces."""
        size = len(words(text))
        if self.translator.tokenizer.pretokenized:
            _, numbers = self.translator.tokenizer.source_words(text, [token for ids, _ in translation.parts for token in ids])
            if len(numbers) == size:
                return numbers
        return [s * count // size for s in range(size)]

    def _text(
        self, line: str, original: Marked, source: Marked, translation: Translation, aligned: tuple[Sequence[str], np.ndarray] | None
    ) -> str:
        """Return a translation with the markup of its source.

        Args:
            line: the line as it was given.
            original: its text and markup.
            source: what was translated: the original, or the original without placeholders if the model has lost one.
            translation: of the source's text.
            aligned: the words of the translation, and their attention on the source's words; None: they are aligned by their place.
        """
        if not original.text.strip():
            return normalise(line) if self.format == "html" else ""
        if source is original and source.is_plain():
            return self._escape(translation.text)
        target, weights_TS = aligned or _in_order(source, translation)
        if source is original:
            return transfer(source, target, weights_TS, self._escape)
        text = ""
        for last_resort in (False, True):  # the last resort is right whatever the model has written
            clean = [without(word, everywhere=last_resort) for word in target]
            text = transfer(source, clean, weights_TS, self._escape, spaced=last_resort)
            if counts(self._read(text).text) == counts(original.text):
                break
        return text


def _in_order(source: Marked, translation: Translation) -> tuple[list[str], np.ndarray]:
    """Return the words of a translation, and weights that align them with the source's by their place in the line."""
    target, sources = words(translation.text), len(words(source.text))
    weights_TS: np.ndarray = np.zeros((len(target), sources), np.float32)
    for t in range(len(target) if sources else 0):
        weights_TS[t, t * sources // len(target)] = 1
    return target, weights_TS


def _escape(text: str) -> str:
    return html.escape(text, quote=False)
