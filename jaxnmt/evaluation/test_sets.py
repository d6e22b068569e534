"""Test sets: the sentences that `jaxnmt evaluate` and `jaxnmt compare` score on."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import unicodedata
from collections.abc import Sequence
from typing import Any

from jaxnmt.config import Classification, Experiment
from jaxnmt.data import identity
from jaxnmt.data.labels import check_numbers
from jaxnmt.data.sources import languages_of, open_sources, sources_of
from jaxnmt.data.tokenizer import joiner_of, load_tokenizer, normalization_of, readable
from jaxnmt.data.vocabulary import check_joiner, count_tokens, stays_split
from jaxnmt.errors import UserError
from jaxnmt.evaluation import scores
from jaxnmt.evaluation.scores import Scores
from jaxnmt.evaluation.tokenization import METRICS, MetricName, choose
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
        languages: codes of source and target, "" if unknown.
        pretokenized: the text was already split, into words or pieces.
        tokenize, source_tokenize: sacreBLEU's names of the tokenizers for BLEU and for the words of the sources.
        note: lines for people about how the text is scored.
        targets: the first reference as a model writes it, pieces of words not joined.
        normalization: the Unicode form of the references, and of translations that are scored against them; see `text.canonical`.
        labels: if the references are labels or numbers, their kind, as `config.Classification.labels`; "" for text.
        captions: the sentences are names of pictures, each once; a picture that has fewer captions than others has empty references.
    """

    __test__ = False  # pytest would collect it

    name: str
    sources: list[str]
    references: list[list[str]]
    languages: tuple[str, str]
    pretokenized: bool = False
    tokenize: str = ""
    source_tokenize: str = ""
    note: str = ""
    targets: Sequence[str] = ()
    normalization: str = "none"
    labels: str = ""
    captions: bool = False

    def with_tokenizers(self, wanted: str = "", words_split: bool = False) -> TestSet:
        """Return the test set with its tokenizers, and with notes about them before its own.

        Args:
            wanted: sacreBLEU's tokenizer that the user wants; "" to choose one.
            words_split: words are already split from punctuation, so BLEU must not split them again.

        Raises:
            UserError: every reference is empty, or there is no such tokenizer.
        """
        lines = list(itertools.chain.from_iterable(self.references))
        if not any(line.strip() for line in lines):
            raise UserError(f"{self.name}: all references are empty, so there is nothing to score against")
        split_text = "none" if words_split else ""
        chosen = choose(self.languages[1], lines, wanted or split_text)
        split_note = _SPLIT_NOTE[chosen.name == "none"] if self.pretokenized else ""
        note = "\n".join(filter(None, [split_note, chosen.note, chosen.other_metrics, self.note]))
        source_tokenize = choose(self.languages[0], self.sources, split_text).name
        return dataclasses.replace(self, tokenize=chosen.name, source_tokenize=source_tokenize, note=note)

    def score(self, translations: Sequence[str], metrics: Sequence[MetricName] = METRICS, confidences: Sequence[float] = ()) -> Scores:
        """Return the scores of a translation of each sentence, or of its label.

        Args:
            translations: a translation of each sentence, or its label.
            metrics: of translations; labels and numbers have their own.
            confidences: the probability of each label, for the calibration error.
        """
        if self.labels:
            from jaxnmt.evaluation import labels

            return labels.score(self.labels, translations, self.references[0], confidences, self.note)
        return scores.score(translations, self.known, self.tokenize, self.note, self.metrics(metrics))

    def first_metric(self, named: Sequence[MetricName] = ()) -> Any:
        """Return the metric that decides between systems, with these references: the first named one, or that of labels or numbers."""
        if self.labels:
            from jaxnmt.evaluation import labels

            return labels.first_metric(self.labels, self.references[0])
        return scores.metric((*named, *METRICS)[0], self.tokenize, self.known)

    @property
    def known(self) -> list[list[Any]]:
        """The references as metrics take them: with None for those that a picture lacks."""
        return without_gaps(self.references) if self.captions else self.references

    def metrics(self, named: Sequence[MetricName]) -> Sequence[MetricName]:
        """Return the metrics that are named; for captions, CIDEr and exact match too if these are the default ones."""
        return (*named, "cider", "exact") if self.captions and tuple(named) == METRICS else named


def without_gaps(references: list[list[str]]) -> list[list[Any]]:
    """Return references with None for the empty lines after the first list."""
    return [references[0], *([line or None for line in lines] for lines in references[1:])]


def by_picture(pairs: Sequence[tuple[str, str]]) -> tuple[list[str], list[list[str]]]:
    """Return each picture once, and its captions as references: as many lists as the picture with the most has, "" if one has fewer."""
    captions: dict[str, list[str]] = {}
    for name, caption in pairs:
        captions.setdefault(name, []).append(caption)
    return list(captions), list(map(list, itertools.zip_longest(*captions.values(), fillvalue="")))


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
    if not experiment.task.is_scored:
        kind = type(experiment.task).__name__
        raise UserError(f"{run} was trained for the task {kind}, whose scores are those of its validations: see `jaxnmt runs show {run}`")
    name, pairs, own = _pairs(experiment, run, split, words)
    languages = [named or known for named, known in zip(own, identity.languages(run, experiment.data), strict=True)]
    sources, targets = [source for source, _ in pairs], [[target for _, target in pairs]]
    if isinstance(experiment.task, Classification):
        form, note = normalization_of(experiment.tokenizer, run / "tokenizer"), load_tokenizer(run / "tokenizer").unseen(targets[0])
        lines = [canonical(target, form) for target in targets[0]]
        return TestSet(name, sources, [lines], ("", ""), note=note, normalization=form, labels=experiment.task.labels)
    if experiment.task.vectors:
        sources, targets = by_picture(pairs)
    named = [name] * (1 + len(targets)) + list(references)
    targets += [_further(file, name, len(sources)) for file in references]
    joiner, form = joiner_of(experiment.tokenizer), normalization_of(experiment.tokenizer, run / "tokenizer")
    pretokenized = experiment.tokenizer.kind == "words"
    if pretokenized:
        for text, lines in zip(named, (sources, *targets), strict=True):
            check_joiner(count_tokens(lines), joiner, text)
    composed = form == "nfc" and not all(unicodedata.is_normalized("NFC", line) for lines in targets for line in lines)
    test = TestSet(
        name,
        sources,
        [[readable(line, joiner, form) for line in lines] for lines in targets],
        (languages[0], target_language or languages[1]),
        pretokenized,
        note="the references are scored in Unicode NFC, as the run writes text" if composed else "",
        targets=[canonical(target, form) for target in targets[0]],
        normalization=form,
        captions=experiment.task.vectors,
    )
    return test.with_tokenizers(tokenize, stays_split(pretokenized, joiner))


def _pairs(
    experiment: Experiment, run: pathlib.Path, split: str, words: tuple[str, ...]
) -> tuple[str, list[tuple[str, str]], tuple[str, str]]:
    """Return name, sentence pairs, and the languages that settings or sources name."""
    parts = ("test", "validation") if split == "test" else ("validation",)
    given = (
        [open_sources(words, "--data", None, experiment.task.pairs, experiment.task.vectors, identity.languages(run, experiment.data))]
        if words
        else (sources_of(experiment, part) for part in parts)
    )
    sources = next(filter(None, given), [])
    languages = languages_of(experiment.data, sources)
    if sources:
        if isinstance(experiment.task, Classification) and experiment.task.labels == "number":
            check_numbers(sources)
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
