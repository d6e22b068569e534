"""Compares systems on one test set: runs, which translate it, or files of translations from any toolkit. The first is the baseline."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from jaxnmt.config import Experiment
from jaxnmt.data import identity
from jaxnmt.data.sources import language_of, sources_of
from jaxnmt.data.tokenizer import joiner_of, normalization_of, readable
from jaxnmt.data.vocabulary import check_joiner, joiner_seen
from jaxnmt.errors import UserError
from jaxnmt.evaluation.scores import References
from jaxnmt.evaluation.significance import MetricName, MetricResult, TestName, paired
from jaxnmt.evaluation.test_sets import TestSet, count_tokens, make
from jaxnmt.evaluation.tokenization import of_split_text
from jaxnmt.io.text import canonical, decode, normalise, read_lines
from jaxnmt.lab import breakdowns
from jaxnmt.lab.systems import Systems
from jaxnmt.run import Run
from jaxnmt.runs import directory

MOST_PAIRS = 1_000_000  # training pairs whose words are counted
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class System:
    """A system: its name as the user wrote it, the origin of its translations, and one translation per sentence."""

    name: str
    made_by: str
    translations: list[str]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """All numbers. Tuples with one value per system are in the order of `systems`, the baseline first.

    Attributes:
        identical: systems whose translations equal the baseline's; sacreBLEU's tests give them the smallest possible p.
        counted_in: the text in which the words of `by_frequency` were counted.
        references: number of reference translations per sentence. Metrics and the breakdown by length use all, the others the first.
        repetition, reference_repetition: shares for breakdowns.ORDERS.
        sentence_chrf: chrF++ of each sentence.
    """

    test_set: str
    note: str
    sentences: int
    references: int
    systems: tuple[str, ...]
    made_by: tuple[str, ...]
    identical: tuple[str, ...]
    test: str
    metrics: tuple[MetricResult, ...]
    by_length: tuple[breakdowns.LengthBucket, ...]
    counted_in: str
    by_frequency: tuple[breakdowns.FrequencyBucket, ...]
    repetition: tuple[tuple[float, ...], ...]
    reference_repetition: tuple[float, ...]
    shapes: tuple[breakdowns.Shape, ...]
    sentence_chrf: tuple[tuple[float, ...], ...]


def gather(names: Sequence[str], options: Systems) -> tuple[TestSet, list[System], Experiment | None]:
    """Return the test set, every system's translations, and the first run's config. Everything is checked before anything is translated.

    Raises:
        UserError: a system is named twice, is neither run nor file, or has another test set or number of lines; or source and reference
            are missing.
    """
    twice = [name for name, count in collections.Counter(name.rstrip("/") for name in names).items() if count > 1]
    if twice:
        raise UserError(f"{twice[0]} is named twice: a system cannot be compared with itself")
    runs = {name: Run(name, options.checkpoint) for name in names if directory.folder(name).is_dir()}
    changes = {"beam_size": options.beam_size} if options.beam_size else {}
    for run in runs.values():
        run.decoding(changes)
    files = {name: read_lines(name, "compare") for name in names if name not in runs}
    test, sources = _test_set(runs, options)
    for name, lines in files.items():
        if len(lines) != len(test.sources):
            raise UserError(
                f"{name} has {len(lines):,} lines, but {test.name} has {len(test.sources):,} sentences: "
                "give a file with one translation per sentence"
            )
        if test.pretokenized:
            _refuse_pieces(name, lines)
    systems = []
    for name in names:
        if name in files:
            made_by, lines = "file", files[name]
        else:
            run, beam = runs[name], runs[name].decoding(changes).beam_size
            made_by, lines = f"{run.checkpoint}, beam {beam}", run.translations(sources[name], **changes)
        systems.append(System(name, made_by, [canonical(line, test.normalization) for line in lines]))
    return _with_form_note(test, systems), systems, next((run.config for run in runs.values()), None)


def compare(
    test: TestSet,
    systems: Sequence[System],
    metrics: Sequence[MetricName],
    kind: TestName,
    samples: int,
    trained: Experiment | None,
    say: Say,
) -> Comparison:
    """Compute all numbers of systems on a test set.

    Args:
        kind, samples: the paired test, and its number of resamples or trials (0: sacreBLEU's default).
        trained: a run's config, in whose training text words are counted; None: they are counted in the references.
    """
    from sacrebleu.metrics.chrf import CHRF

    texts, first = [system.translations for system in systems], test.references[0]
    split, split_source = breakdowns.splitter(test.tokenize), breakdowns.splitter(test.source_tokenize)
    words, reference_words = [[split(line) for line in lines] for lines in texts], [split(line) for line in first]
    say("counting words")
    wanted = {word for sentences in (reference_words, *words) for sentence in sentences for word in sentence}
    frequency, counted_in = _frequency(trained, test.normalization, wanted, split, say) or (
        collections.Counter(itertools.chain.from_iterable(reference_words)),
        "the references" if len(test.references) == 1 else "the first reference",
    )
    lengths = [len(split_source(line)) for line in test.sources]
    say("resampling")
    return Comparison(
        test_set=test.name,
        note=test.note,
        sentences=len(test.sources),
        references=len(test.references),
        systems=tuple(system.name for system in systems),
        made_by=tuple(system.made_by for system in systems),
        identical=tuple(system.name for system in systems[1:] if system.translations == systems[0].translations),
        test=kind,
        metrics=paired(texts, test.references, metrics, kind, test.tokenize, samples),
        by_length=breakdowns.by_length(lengths, texts, test.references, test.tokenize),
        counted_in=counted_in,
        by_frequency=breakdowns.by_frequency(words, reference_words, frequency),
        repetition=tuple(map(breakdowns.repetition, words)),
        reference_repetition=breakdowns.repetition(reference_words),
        shapes=tuple(breakdowns.shape(lines, first, split) for lines in texts),
        sentence_chrf=tuple(_sentence_scores(CHRF(word_order=2), lines, test.references) for lines in texts),
    )


def _test_set(runs: Mapping[str, Run], options: Systems) -> tuple[TestSet, dict[str, list[str]]]:
    """Return the test set with sources as plain text, and for each run the sources in its model's format."""
    forms = [normalization_of(run.config.tokenizer, run.folder / "tokenizer") for run in runs.values()]
    form = "nfc" if "nfc" in forms else "none"  # one form for all texts, so that they are comparable
    if options.source or options.reference:
        test = _given(runs, options, form)
        return test, dict.fromkeys(runs, [normalise(line) for line in read_lines(options.source, "--source")])
    if not runs:
        raise UserError("the source and reference of the translations are missing: give --source FILE and --reference FILE")
    words: Any = options.split, (), (), options.target_language, options.tokenize
    opened = {name: run.test_set(*words) for name, run in runs.items()}
    shown = {name: as_read(test, runs[name].config, form) for name, test in opened.items()}
    (first, test), *others = shown.items()
    for name, other in others:
        if (other.sources, other.references) != (test.sources, test.references):
            raise UserError(
                f"{first} and {name} have different test sets ({test.name}, {len(test.sources):,} sentences; {other.name}, "
                f"{len(other.sources):,}): give one for all with --source FILE and --reference FILE"
            )
    return test, {name: each.sources for name, each in opened.items()}


def _given(runs: Mapping[str, Run], options: Systems, form: str) -> TestSet:
    """Return the test set of --source and --reference. Its words are split if --pretokenized is given or the first run's text is split."""
    if not (options.source and options.reference):
        raise UserError("--source and --reference go together: give a file of sentences and a file of their translations")
    sources = read_lines(options.source, "--source")
    references = [(file, read_lines(file, "--reference")) for file in options.reference]
    for file, lines in references:
        if len(sources) != len(lines):
            raise UserError(f"{options.source} has {len(sources):,} lines and {file} {len(lines):,}: give files whose lines correspond")
    first = next(iter(runs.values()), None)
    split = first is not None and first.config.tokenizer.kind == "words"
    joiner = joiner_of(first.config.tokenizer) if first else ""
    for file, lines in references:
        if split:
            check_joiner(count_tokens(lines), joiner, file)
        elif options.pretokenized:
            _refuse_pieces(file, lines)
    languages = [language_of(options.source), options.target_language or language_of(options.reference[0])]
    if first:
        known = identity.languages(first.folder, first.config.data)
        languages = [named or code for named, code in zip(languages, known, strict=True)]
    return make(
        " ".join(options.reference),
        [readable(line, joiner, form) for line in sources],
        [[readable(line, joiner, form) for line in lines] for _, lines in references],
        (languages[0], languages[1]),
        pretokenized=options.pretokenized or split,
        words_split=options.pretokenized or of_split_text(split, joiner) == "none",
        tokenize=options.tokenize,
        normalization=form,
    )


def _refuse_pieces(name: str, lines: Sequence[str]) -> None:
    """Raise UserError if words are split into pieces, which would be scored as words."""
    if joiner := joiner_seen(count_tokens(lines)):
        raise UserError(f"{name} is split into pieces by {joiner.strip()!r}: join them to words first")


def as_read(test: TestSet, experiment: Experiment, form: str) -> TestSet:
    """Return a run's test set as plain text, in one Unicode form."""
    sources = [readable(line, joiner_of(experiment.tokenizer), form) for line in test.sources]
    references = [[canonical(line, form) for line in lines] for lines in test.references]
    return dataclasses.replace(test, sources=sources, references=references, normalization=form)


def _with_form_note(test: TestSet, systems: Sequence[System]) -> TestSet:
    """Add a note if some texts are in decomposed Unicode and others are not, since their letters do not match."""
    texts = {"the references": itertools.chain.from_iterable(test.references)} | {each.name: each.translations for each in systems}
    decomposed = [name for name, lines in texts.items() if not all(unicodedata.is_normalized("NFC", line) for line in lines)]
    if not decomposed or len(decomposed) == len(texts):
        return test
    note = f"{' and '.join(decomposed)} have letters in decomposed Unicode, which do not match composed ones: convert them to NFC"
    return dataclasses.replace(test, note="\n".join(filter(None, [test.note, note])))


def _frequency(
    trained: Experiment | None, form: str, wanted: Collection[str], split: breakdowns.Splitter, say: Say
) -> tuple[Mapping[str, int], str] | None:
    """Return the counts of words in the training text, and a description of the text read; None if it cannot be read."""
    if trained is None:
        return None
    counts: collections.Counter[str] = collections.Counter()
    joiner = joiner_of(trained.tokenizer)
    try:
        pairs = itertools.chain.from_iterable(source.pairs() for source in sources_of(trained.data, "train"))
        for _, target in itertools.islice(pairs, MOST_PAIRS):
            counts.update(word for word in split(readable(decode(target), joiner, form)) if word in wanted)
        whole = next(pairs, None) is None
        return counts, "the training text" if whole else f"the first {MOST_PAIRS:,} pairs of the training text"
    except UserError as error:
        say(f"counting words in the references, since the training text cannot be read: {error}")
        return None


def _sentence_scores(metric, translations: Sequence[str], references: References) -> tuple[float, ...]:
    return tuple(metric.sentence_score(mine, list(theirs)).score for mine, *theirs in zip(translations, *references, strict=True))
