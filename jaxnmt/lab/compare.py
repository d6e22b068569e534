"""Several systems on one test set: runs, which translate it, or files of translations that any toolkit made. The first is the baseline."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from jaxnmt.config import Experiment
from jaxnmt.data import identity
from jaxnmt.data.sources import open_sources
from jaxnmt.data.text_files import language_of
from jaxnmt.data.tokenizer import joiner_of, normalization_of, readable
from jaxnmt.data.vocabulary import check_joiner, joiner_seen
from jaxnmt.errors import UserError
from jaxnmt.evaluation import breakdowns
from jaxnmt.evaluation.scores import References
from jaxnmt.evaluation.significance import MetricName, MetricResult, TestName, paired
from jaxnmt.evaluation.test_sets import TestSet, count_tokens, make
from jaxnmt.evaluation.tokenization import of_split_text
from jaxnmt.io.text import canonical, decode, normalise, read_lines
from jaxnmt.run import Run
from jaxnmt.runs import directory

MOST_PAIRS = 1_000_000  # of the training text whose words are counted
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is compared on what; `jaxnmt compare --help` says what each means."""

    source: str = ""
    reference: tuple[str, ...] = ()
    split: str = "test"
    checkpoint: int | str = "best"
    beam_size: int = 0
    pretokenized: bool = False
    target_language: str = ""
    tokenize: str = ""


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
        references: how many reference translations a sentence has. Metrics and the breakdown by length use all, other breakdowns the first.
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


def gather(names: Sequence[str], settings: Settings) -> tuple[TestSet, list[System], Experiment | None]:
    """Return the test set, every system's translations of it, and the first run's experiment. All is checked before a run translates.

    Raises:
        UserError: a system is named twice, is neither run nor file, has another test set or another number of lines; or nothing names
            source and reference.
    """
    twice = [name for name, count in collections.Counter(name.rstrip("/") for name in names).items() if count > 1]
    if twice:
        raise UserError(f"{twice[0]} is named twice: a system cannot be compared with itself")
    runs = {name: Run(name, settings.checkpoint) for name in names if directory.folder(name).is_dir()}
    changes = {"beam_size": settings.beam_size} if settings.beam_size else {}
    for run in runs.values():
        run.decoding(changes)
    files = {name: read_lines(name, "compare") for name in names if name not in runs}
    test, sources = _test_set(runs, settings)
    for name, lines in files.items():
        if len(lines) != len(test.sources):
            raise UserError(
                f"{name} has {len(lines):,} lines, but {test.name} has {len(test.sources):,} sentences: "
                "a file of translations has a line for each sentence"
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
    return _forms_told(test, systems), systems, next((run.config for run in runs.values()), None)


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


def _test_set(runs: Mapping[str, Run], settings: Settings) -> tuple[TestSet, dict[str, list[str]]]:
    """Return the test set, sources as people read them, and for each run the sources as its model reads them."""
    forms = [normalization_of(run.config.tokenizer, run.folder / "tokenizer") for run in runs.values()]
    form = "nfc" if "nfc" in forms else "none"  # of all texts, so that they can be compared
    if settings.source or settings.reference:
        test = _given(runs, settings, form)
        return test, dict.fromkeys(runs, [normalise(line) for line in read_lines(settings.source, "--source")])
    if not runs:
        raise UserError("files of translations do not say what they translate: give --source FILE and --reference FILE")
    asked: Any = settings.split, (), (), settings.target_language, settings.tokenize
    opened = {name: run.test_set(*asked) for name, run in runs.items()}
    shown = {name: as_read(test, runs[name].config, form) for name, test in opened.items()}
    (first, test), *others = shown.items()
    for name, other in others:
        if (other.sources, other.references) != (test.sources, test.references):
            raise UserError(
                f"{first} and {name} have different test sets ({test.name}, {len(test.sources):,} sentences; {other.name}, "
                f"{len(other.sources):,}): name one for all with --source FILE and --reference FILE"
            )
    return test, {name: each.sources for name, each in opened.items()}


def _given(runs: Mapping[str, Run], settings: Settings, form: str) -> TestSet:
    """Return the test set of --source and --reference. Its words are split if the user says so or if the first run's are."""
    if not (settings.source and settings.reference):
        raise UserError("--source and --reference go together: a file of sentences and a file of their translations")
    sources = read_lines(settings.source, "--source")
    references = [(file, read_lines(file, "--reference")) for file in settings.reference]
    for file, lines in references:
        if len(sources) != len(lines):
            raise UserError(f"{settings.source} has {len(sources):,} lines and {file} {len(lines):,}: line by line they belong together")
    first = next(iter(runs.values()), None)
    split = first is not None and first.config.tokenizer.kind == "words"
    joiner = joiner_of(first.config.tokenizer) if first else ""
    for file, lines in references:
        if split:
            check_joiner(count_tokens(lines), joiner, file)
        elif settings.pretokenized:
            _refuse_pieces(file, lines)
    languages = [language_of(settings.source), settings.target_language or language_of(settings.reference[0])]
    if first:
        known = identity.languages(first.folder, first.config.data)
        languages = [named or code for named, code in zip(languages, known, strict=True)]
    return make(
        " ".join(settings.reference),
        [readable(line, joiner, form) for line in sources],
        [[readable(line, joiner, form) for line in lines] for _, lines in references],
        (languages[0], languages[1]),
        pretokenized=settings.pretokenized or split,
        words_split=settings.pretokenized or of_split_text(split, joiner) == "none",
        tokenize=settings.tokenize,
        normalization=form,
    )


def _refuse_pieces(name: str, lines: Sequence[str]) -> None:
    """Raise UserError where words are split into pieces: those would be scored."""
    if joiner := joiner_seen(count_tokens(lines)):
        raise UserError(f"{name} is split into pieces by {joiner.strip()!r}: put its words together first, for pieces are not compared")


def as_read(test: TestSet, experiment: Experiment, form: str) -> TestSet:
    """A run's test set whose sources are put together as its references are, all in one Unicode form."""
    sources = [readable(line, joiner_of(experiment.tokenizer), form) for line in test.sources]
    references = [[canonical(line, form) for line in lines] for lines in test.references]
    return dataclasses.replace(test, sources=sources, references=references, normalization=form)


def _forms_told(test: TestSet, systems: Sequence[System]) -> TestSet:
    """Add to a test set's note which texts are decomposed, where others are not: as letters and words they differ."""
    texts = {"the references": itertools.chain.from_iterable(test.references)} | {each.name: each.translations for each in systems}
    decomposed = [name for name, lines in texts.items() if not all(unicodedata.is_normalized("NFC", line) for line in lines)]
    if not decomposed or len(decomposed) == len(texts):
        return test
    told = f"{' and '.join(decomposed)} have letters in decomposed Unicode, which do not match composed ones: convert them to NFC"
    return dataclasses.replace(test, note="\n".join(filter(None, [test.note, told])))


def _frequency(
    trained: Experiment | None, form: str, wanted: Collection[str], split: breakdowns.Splitter, say: Say
) -> tuple[Mapping[str, int], str] | None:
    """How often words stand in the training text, and a name of what was read of it; None where it cannot be read."""
    if trained is None:
        return None
    counts: collections.Counter[str] = collections.Counter()
    joiner = joiner_of(trained.tokenizer)
    try:
        pairs = itertools.chain.from_iterable(source.pairs() for source in open_sources(trained.data.train, "data.train"))
        for _, target in itertools.islice(pairs, MOST_PAIRS):
            counts.update(word for word in split(readable(decode(target), joiner, form)) if word in wanted)
        whole = next(pairs, None) is None
        return counts, "the training text" if whole else f"the first {MOST_PAIRS:,} pairs of the training text"
    except UserError as error:
        say(f"words are counted in the references, for the training text cannot be read: {error}")
        return None


def _sentence_scores(metric, translations: Sequence[str], references: References) -> tuple[float, ...]:
    return tuple(metric.sentence_score(mine, list(theirs)).score for mine, *theirs in zip(translations, *references, strict=True))
