"""Several systems on one test set: runs, which translate it, or files of translations that any toolkit made. The first is the baseline."""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence

from jaxnmt import config_checks, run_directory
from jaxnmt.config import Experiment, UserError
from jaxnmt.data import identity
from jaxnmt.data.cleaning import decode, normalise
from jaxnmt.data.files import language_of
from jaxnmt.data.sources import open_sources
from jaxnmt.data.text_files import read_lines
from jaxnmt.data.vocabulary import join
from jaxnmt.evaluation import breakdowns
from jaxnmt.evaluation.scores import PRETOKENIZED_NOTE
from jaxnmt.evaluation.significance import MetricName, MetricResult, TestName, paired
from jaxnmt.evaluation.test_sets import TestSet, open_test_set

MOST_PAIRS = 1_000_000  # of the training text whose words are counted
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is compared on what; `jaxnmt compare --help` says what each means."""

    source: str = ""
    reference: str = ""
    split: str = "test"
    checkpoint: int | str = "best"
    beam_size: int = 0
    pretokenized: bool = False
    target_language: str = ""


@dataclasses.dataclass(frozen=True)
class System:
    """A system's name as the user wrote it, what made its translations, and these, one for each sentence."""

    name: str
    made_by: str
    translations: list[str]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """All numbers. What has one value for each system is in their order, the baseline first.

    Attributes:
        identical: systems whose translations are the baseline's; sacreBLEU's tests give these the smallest p there is.
        counted_in: the text in which the words of `by_frequency` were counted.
        repetition, reference_repetition: shares for breakdowns.ORDERS.
        sentence_chrf: chrF++ of each sentence.
    """

    test_set: str
    note: str
    sentences: int
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


def gather(names: Sequence[str], settings: Settings, say: Say) -> tuple[TestSet, list[System], Experiment | None]:
    """The test set, every system's translations of it, and the first run's experiment. All is checked before anything is translated.

    Raises:
        UserError: a system is named twice, is neither run nor file, has another test set or another number of lines; or nothing names
            source and reference.
    """
    twice = [name for name, count in collections.Counter(name.rstrip("/") for name in names).items() if count > 1]
    if twice:
        raise UserError(f"{twice[0]} is named twice: a system cannot be compared with itself")
    runs = {name: _settled(run_directory.read(name), settings) for name in names if run_directory.folder(name).is_dir()}
    files = {name: read_lines(name, "compare") for name in names if name not in runs}
    test, sources = _test_set(runs, settings)
    for name, lines in files.items():
        if len(lines) != len(test.references):
            raise UserError(
                f"{name} has {len(lines):,} lines, but {test.name} has {len(test.references):,} sentences: "
                "a file of translations has a line for each sentence"
            )
    return test, [_system(name, files, runs, sources, settings, say) for name in names], next(iter(runs.values()), None)


def compare(
    test: TestSet,
    systems: Sequence[System],
    metrics: Sequence[MetricName],
    kind: TestName,
    samples: int,
    trained: Experiment | None,
    say: Say,
) -> Comparison:
    """Every number of systems on a test set.

    Args:
        kind, samples: the paired test, and how many resamples or trials (0: sacreBLEU's number).
        trained: a run's experiment, in whose training text words are counted; without one they are counted in the references.
    """
    from sacrebleu.metrics.chrf import CHRF

    language, texts = test.languages[1], [system.translations for system in systems]
    split, split_source = (breakdowns.splitter(code, test.pretokenized) for code in (language, test.languages[0]))
    words, reference_words = [[split(line) for line in lines] for lines in texts], [split(line) for line in test.references]
    say("counting words")
    wanted = {word for sentences in (reference_words, *words) for sentence in sentences for word in sentence}
    frequency, counted_in = _frequency(trained, reference_words, wanted, split, say)
    lengths = [len(split_source(line)) for line in test.sources]
    say("resampling")
    return Comparison(
        test_set=test.name,
        note=PRETOKENIZED_NOTE if test.pretokenized else "",
        sentences=len(test.references),
        systems=tuple(system.name for system in systems),
        made_by=tuple(system.made_by for system in systems),
        identical=tuple(system.name for system in systems[1:] if system.translations == systems[0].translations),
        test=kind,
        metrics=paired(texts, test.references, metrics, kind, test.pretokenized, language, samples),
        by_length=breakdowns.by_length(lengths, texts, test.references, test.pretokenized, language),
        counted_in=counted_in,
        by_frequency=breakdowns.by_frequency(words, reference_words, frequency),
        repetition=tuple(map(breakdowns.repetition, words)),
        reference_repetition=breakdowns.repetition(reference_words),
        shapes=tuple(breakdowns.shape(lines, test.references, split) for lines in texts),
        sentence_chrf=tuple(_sentence_scores(CHRF(word_order=2), lines, test.references) for lines in texts),
    )


def _settled(experiment: Experiment, settings: Settings) -> Experiment:
    """A run's experiment with the decoding that is asked for."""
    changes = {"beam_size": settings.beam_size} if settings.beam_size else {}
    experiment = dataclasses.replace(experiment, decoding=dataclasses.replace(experiment.decoding, **changes))
    config_checks.validate(experiment)
    return experiment


def _test_set(runs: Mapping[str, Experiment], settings: Settings) -> tuple[TestSet, dict[str, list[str]]]:
    """The test set, sources as people read them, and for each run the sources as its model reads them."""
    if settings.source or settings.reference:
        test = _given(runs, settings)
        return test, dict.fromkeys(runs, [normalise(line) for line in read_lines(settings.source, "--source")])
    if not runs:
        raise UserError("files of translations do not say what they translate: give --source FILE and --reference FILE")
    opened = {name: open_test_set(experiment, run_directory.folder(name), settings.split) for name, experiment in runs.items()}
    shown = {name: readable(test, runs[name]) for name, test in opened.items()}
    (first, test), *others = shown.items()
    for name, other in others:
        if (other.sources, other.references) != (test.sources, test.references):
            raise UserError(
                f"{first} and {name} have different test sets ({test.name}, {len(test.references):,} sentences; {other.name}, "
                f"{len(other.references):,}): name one for all with --source FILE and --reference FILE"
            )
    return test, {name: each.sources for name, each in opened.items()}


def _given(runs: Mapping[str, Experiment], settings: Settings) -> TestSet:
    """The test set of --source and --reference; its words are split where that is said or where the first run's are."""
    if not (settings.source and settings.reference):
        raise UserError("--source and --reference go together: a file of sentences and a file of their translations")
    sources, references = read_lines(settings.source, "--source"), read_lines(settings.reference, "--reference")
    if len(sources) != len(references):
        raise UserError(
            f"{settings.source} has {len(sources):,} lines and {settings.reference} {len(references):,}: line by line they belong together"
        )
    name, trained = next(iter(runs.items()), ("", None))
    split = trained is not None and trained.tokenizer.kind == "words"
    languages = [language_of(settings.source), settings.target_language or language_of(settings.reference)]
    if trained is not None:
        configured = trained.data.source_language, trained.data.target_language
        recorded = identity.read(run_directory.folder(name)).get("languages", ("", ""))
        languages = [code or asked or found for code, asked, found in zip(languages, configured, recorded, strict=True)]
    test = TestSet(settings.reference, sources, references, settings.pretokenized or split, (languages[0], languages[1]))
    return readable(dataclasses.replace(test, references=_joined(references, trained)), trained) if trained and split else test


def readable(test: TestSet, experiment: Experiment) -> TestSet:
    """A test set whose sources are put together as its references are."""
    return dataclasses.replace(test, sources=_joined(test.sources, experiment)) if test.pretokenized else test


def _joined(lines: Sequence[str], experiment: Experiment) -> list[str]:
    return [join(line, experiment.tokenizer.joiner) for line in lines]


def _system(
    name: str,
    files: Mapping[str, list[str]],
    runs: Mapping[str, Experiment],
    sources: Mapping[str, list[str]],
    settings: Settings,
    say: Say,
) -> System:
    if name in files:
        return System(name, "file", files[name])
    from jaxnmt.evaluation.translations import translations  # JAX, only where a run is compared

    decoding = runs[name].decoding
    made_by, found = translations(run_directory.folder(name), sources[name], decoding, settings.checkpoint, say)
    return System(name, f"{made_by}, beam {decoding.beam_size}", found)


def _frequency(
    trained: Experiment | None, references: Sequence[Sequence[str]], wanted: Collection[str], split: breakdowns.Splitter, say: Say
) -> tuple[Mapping[str, int], str]:
    """How often words stand in the training text, or in the references; and a name of the one it was."""
    counts: collections.Counter[str] = collections.Counter()
    if trained is not None:
        try:
            pairs = itertools.chain.from_iterable(source.pairs() for source in open_sources(trained.data.train, "data.train"))
            for _, target in itertools.islice(pairs, MOST_PAIRS):
                counts.update(word for word in split(_target(target, trained)) if word in wanted)
            whole = next(pairs, None) is None
            return counts, "the training text" if whole else f"the first {MOST_PAIRS:,} pairs of the training text"
        except UserError as error:
            say(f"words are counted in the references, for the training text cannot be read: {error}")
    counts.update(itertools.chain.from_iterable(references))
    return counts, "the references"


def _target(line: bytes, experiment: Experiment) -> str:
    text = decode(line)
    return join(text, experiment.tokenizer.joiner) if experiment.tokenizer.kind == "words" else text


def _sentence_scores(metric, translations: Sequence[str], references: Sequence[str]) -> tuple[float, ...]:
    return tuple(metric.sentence_score(mine, [theirs]).score for mine, theirs in zip(translations, references, strict=True))
