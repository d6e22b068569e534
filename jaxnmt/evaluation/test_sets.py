"""Test sets: the sentences that `jaxnmt evaluate` and `jaxnmt compare` score on."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import pathlib
import unicodedata
from collections.abc import Sequence

from jaxnmt.config import Experiment
from jaxnmt.data import identity
from jaxnmt.data.sources import languages_of, open_sources, sources_of
from jaxnmt.data.tokenizer import joiner_of, normalization_of, readable
from jaxnmt.data.vocabulary import check_joiner, split
from jaxnmt.errors import UserError
from jaxnmt.evaluation.scores import Scores, score
from jaxnmt.evaluation.tokenization import choose, of_split_text
from jaxnmt.io.text import canonical, decode, normalise, read_lines

_SPLIT_NOTE = {
    True: "the text was already split: pieces are joined, and BLEU counts the words as they are (tokenize=none)",
    False: "the text was split into pieces, which are joined",
}


@dataclasses.dataclass(frozen=True)
class TestSet:
    """Sentences and their reference translations.

    Attributes:
        name: the sources, as the user named them.
        sources: the sentences.
        references: one list of lines for each reference, a line for each sentence; pieces of words are joined.
        pretokenized: the text was already split, into words or pieces.
        languages: codes of source and target, "" if unknown.
        tokenize, source_tokenize: sacreBLEU's names of the tokenizers for BLEU and for the words of the sources.
        note: lines for people about how the text is scored.
        targets: the first reference as a model writes it, pieces of words not joined.
        normalization: the Unicode form of the references, and of translations that are scored against them; see `lines.canonical`.
    """

    __test__ = False  # pytest would collect it

    name: str
    sources: list[str]
    references: list[list[str]]
    pretokenized: bool
    languages: tuple[str, str]
    tokenize: str
    source_tokenize: str
    note: str
    targets: Sequence[str] = ()
    normalization: str = "none"

    def score(self, translations: Sequence[str]) -> Scores:
        """Return BLEU, chrF++ and TER of a translation of each sentence."""
        return score(translations, self.references, self.tokenize, self.note)


def make(
    name: str,
    sources: list[str],
    references: list[list[str]],
    languages: tuple[str, str],
    *,
    pretokenized: bool = False,
    words_split: bool = False,
    tokenize: str = "",
    notes: Sequence[str] = (),
    targets: Sequence[str] = (),
    normalization: str = "none",
) -> TestSet:
    """Return a test set with its tokenizers.

    Args:
        name: the sources, as the user named them.
        sources: the sentences.
        references: one list of lines for each reference.
        languages: codes of source and target, "" if unknown.
        pretokenized: the text was already split, into words or pieces.
        words_split: words are already split from punctuation, so BLEU must not split them again.
        tokenize: sacreBLEU's tokenizer that the user wants; "" to choose one.
        notes: lines for people.
        targets: the first reference as a model writes it.
        normalization: the Unicode form of the references.

    Raises:
        UserError: every reference is empty, or there is no such tokenizer.
    """
    if not any(line.strip() for lines in references for line in lines):
        raise UserError(f"{name}: all references are empty, so there is nothing to score against")
    split_text = "none" if words_split else ""
    chosen = choose(languages[1], list(itertools.chain.from_iterable(references)), tokenize or split_text)
    split_note = [_SPLIT_NOTE[chosen.name == "none"]] if pretokenized else []
    note = "\n".join(filter(None, [*split_note, chosen.note, chosen.other_metrics, *notes]))
    source_tokenize = choose(languages[0], sources, split_text).name
    return TestSet(name, sources, references, pretokenized, languages, chosen.name, source_tokenize, note, targets, normalization)


def open_test_set(
    experiment: Experiment,
    run: pathlib.Path,
    split: str,
    words: tuple[str, ...] = (),
    references: Sequence[str] = (),
    target_language: str = "",
    tokenize: str = "",
) -> TestSet:
    """Return the test or validation sentences of a run, or those of other sources.

    If the run has no test sentences, its validation sentences serve; if it has none of these either, the pairs that were held out from its
    training text. Languages that neither settings nor sources name are those of the text that the run was trained on.

    Args:
        experiment: the run's.
        run: the run's folder.
        split: "test" or "validation".
        words: other sources, written as `data.test`.
        references: files of further reference translations.
        target_language: code of the references' language; "" to choose it.
        tokenize: sacreBLEU's tokenizer; "" to choose it.

    Raises:
        UserError: a source or file cannot be read, has not one line for each sentence, or is split in another way than the run's text; or
            pairs were held out from other text than the training text now.
    """
    name, pairs, own = _pairs(experiment, run, split, words)
    languages = [named or known for named, known in zip(own, identity.languages(run, experiment.data), strict=True)]
    targets = [[target for _, target in pairs], *(_further(file, name, len(pairs)) for file in references)]
    joiner, form = joiner_of(experiment.tokenizer), normalization_of(experiment.tokenizer, run / "tokenizer")
    pretokenized = experiment.tokenizer.kind == "words"
    if pretokenized:
        for text, lines in zip((name, name, *references), ([source for source, _ in pairs], *targets), strict=True):
            check_joiner(count_tokens(lines), joiner, text)
    notes = []
    if form == "nfc" and not all(unicodedata.is_normalized("NFC", line) for lines in targets for line in lines):
        notes.append("the references are scored in Unicode NFC, as the run writes text")
    return make(
        name,
        [source for source, _ in pairs],
        [[readable(line, joiner, form) for line in lines] for lines in targets],
        (languages[0], target_language or languages[1]),
        pretokenized=pretokenized,
        words_split=of_split_text(pretokenized, joiner) == "none",
        tokenize=tokenize,
        notes=notes,
        targets=[canonical(target, form) for target in targets[0]],
        normalization=form,
    )


def _pairs(
    experiment: Experiment, run: pathlib.Path, split: str, words: tuple[str, ...]
) -> tuple[str, list[tuple[str, str]], tuple[str, str]]:
    """Return name, sentence pairs, and the languages that settings or sources name."""
    parts = ("test", "validation") if split == "test" else ("validation",)
    given = [open_sources(words, "--data")] if words else (sources_of(experiment.data, part) for part in parts)
    sources = next(filter(None, given), [])
    languages = languages_of(experiment.data, sources)
    if sources:
        pairs = [(decode(source), decode(target)) for source, target in itertools.chain.from_iterable(s.pairs() for s in sources)]
        return " ".join(source.name for source in sources), pairs, languages
    from jaxnmt.data.prepared import prepare

    trained_on, prepared = identity.read(run), prepare(experiment, run / "tokenizer", say=lambda line: None)
    if trained_on and not identity.same(trained_on, prepared.fingerprints):
        raise UserError(
            f"data.train is not the text that {run} was trained on (its {identity.RECORD} differs), so the pairs that were held out are "
            "unknown: restore the text, or name test sentences with --data"
        )
    return "pairs held out from the training text", prepared.validation, languages


def _further(file: str, name: str, sentences: int) -> list[str]:
    """Return the lines of a file of further references."""
    lines = [normalise(line) for line in read_lines(file, "--references")]
    if len(lines) != sentences:
        raise UserError(
            f"--references: {file} has {len(lines):,} lines, but {name} has {sentences:,} sentences: one line for each is needed"
        )
    return lines


def count_tokens(lines: Sequence[str]) -> collections.Counter[str]:
    """Return how often each token occurs in split text."""
    return collections.Counter(token for line in lines for token in split(line))
