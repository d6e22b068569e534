"""Compares systems on one test set: runs, which translate it, or files of translations from any toolkit. The first is the baseline."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from jaxnmt import Experiment, Run, TestSet, UserError
from jaxnmt.data import identity
from jaxnmt.data.sources import language_of, sources_of
from jaxnmt.data.tokenizer import joiner_of, normalization_of, readable
from jaxnmt.data.vocabulary import check_joiner, count_tokens, joiner_seen, stays_split
from jaxnmt.evaluation import labels
from jaxnmt.evaluation.scores import paired
from jaxnmt.io.text import canonical, decode, normalise, read_lines
from jaxnmt.lab import baselines, breakdowns
from jaxnmt.lab.options import Compare, Systems
from jaxnmt.parallel.log import say
from jaxnmt.runs import directory

MOST_PAIRS = 1_000_000  # training pairs whose words are counted


class System(NamedTuple):
    """A system: its name as the user wrote it, the origin of its translations, and one translation per sentence."""

    name: str
    made_by: str
    translations: list[str]


def gather(
    names: Sequence[str], options: Systems, copied: Sequence[str] = (), words: int = 0
) -> tuple[TestSet, list[System], Experiment | None]:
    """Return the test set, every system's translations, and the first run's config. Everything is checked before anything is translated.

    Args:
        names: folders of runs, and files.
        copied: names of `baselines`, which follow them.
        words: length of what these copy.

    Raises:
        UserError: a system is named twice, is neither run nor file, or has another test set or number of lines; or source and reference
            are missing.
    """
    name, count = collections.Counter(name.rstrip("/") for name in (*names, *copied)).most_common(1)[0]
    if count > 1:
        raise UserError(f"{name} is named twice: a system cannot be compared with itself")
    runs = {name: Run(name, options.checkpoint) for name in names if directory.folder(name).is_dir()}
    files = {name: read_lines(name, "compare") for name in names if name not in runs}
    test, sources = _test_set(runs, options)
    for name, lines in files.items():
        if len(lines) != len(test.sources):
            sentences = f"{test.name} has {len(test.sources):,} sentences"
            raise UserError(f"{name} has {len(lines):,} lines, but {sentences}: give one translation per sentence")
        if test.pretokenized:
            _refuse_pieces(name, lines)
    changes = {"beam_size": options.beam_size} if options.beam_size else {}
    systems = []
    for name in names:
        made_by, lines = "file", files.get(name, [])
        if run := runs.get(name):
            beam = options.beam_size or run.config.decoding.beam_size
            made_by = run.checkpoint if run.config.task.is_label else f"{run.checkpoint}, beam {beam}"
            lines = run.translations(sources[name], **changes)
        systems.append(System(name, made_by, [canonical(line, test.normalization) for line in lines]))
    for name in copied:
        systems.append(System(name, "from the source", baselines.made(name, test.sources, test.references[0], words)))
    return _with_form_note(test, systems), systems, next((run.config for run in runs.values()), None)


def compare(test: TestSet, systems: Sequence[System], options: Compare, trained: Experiment | None) -> dict[str, Any]:
    """Compute all numbers of systems on a test set.

    Args:
        trained: a run's config, in whose training text words are counted; None: they are counted in the references.

    Returns:
        A record for JSON; lists with one value per system are in the order of `systems`, the baseline first. identical: systems whose
        translations equal the baseline's; sacreBLEU's tests give them the smallest possible p. metrics: a `MetricResult` each. references:
        number of reference translations per sentence; metrics and the breakdown by length use all, the others the first. counted_in: the
        text in which the words of `by_frequency` were counted. repetition, reference_repetition: shares for breakdowns.ORDERS.
        sentence_chrf: chrF++ of each sentence.
    """
    if test.labels:
        return _compare_labels(test, systems, options)
    from sacrebleu.metrics.chrf import CHRF

    texts, first = [system.translations for system in systems], test.references[0]
    split, split_source = breakdowns.splitter(test.tokenize), breakdowns.splitter(test.source_tokenize)
    words, reference_words = [[split(line) for line in lines] for lines in texts], [split(line) for line in first]
    say("counting words")
    wanted = {word for sentences in (reference_words, *words) for sentence in sentences for word in sentence}
    frequency = collections.Counter(itertools.chain.from_iterable(reference_words))
    counted_in = "the references" if len(test.references) == 1 else "the first reference"
    if trained:
        try:
            frequency, counted_in = _frequency(trained, test.normalization, wanted, split)
        except UserError as error:
            say(f"counting words in the references, since the training text cannot be read: {error}")
    lengths = [len(split_source(line)) for line in test.sources]
    chrf = CHRF(word_order=2)
    say("resampling")
    return {
        "test_set": test.name,
        "note": test.note,
        "sentences": len(test.sources),
        "references": len(test.references),
        "systems": [system.name for system in systems],
        "made_by": [system.made_by for system in systems],
        "identical": [system.name for system in systems[1:] if system.translations == systems[0].translations],
        "test": options.test,
        "metrics": paired(texts, test.known, test.metrics(options.metrics), options.test, test.tokenize, options.samples),
        "by_length": breakdowns.by_length(lengths, texts, test.known, test.tokenize),
        "counted_in": counted_in,
        "by_frequency": breakdowns.by_frequency(words, reference_words, frequency),
        "repetition": [breakdowns.repetition(sentences) for sentences in words],
        "reference_repetition": breakdowns.repetition(reference_words),
        "shapes": [breakdowns.shape(lines, first, split) for lines in texts],
        "sentence_chrf": [
            [chrf.sentence_score(line, theirs).score for line, *theirs in zip(lines, *test.known, strict=True)] for lines in texts
        ],
    }


def _compare_labels(test: TestSet, systems: Sequence[System], options: Compare) -> dict[str, Any]:
    """Return what `compare` does of predicted labels or numbers; by_label: the F1 of each label, for which nothing else is broken down.

    Raises:
        UserError: an option is given that only translations have.
    """
    plain = Compare()
    for flag in (flag for flag in ("metrics", "html", "baselines") if getattr(options, flag) != getattr(plain, flag)):
        raise UserError(f"--{flag} is for translations: leave it out for labels and numbers")
    texts, right = [system.translations for system in systems], test.references[0]
    f1 = [] if test.labels == "number" else [labels.f1_by_label(test.labels, made, right) for made in texts]
    say("resampling")
    return {
        "test_set": test.name,
        "note": test.note,
        "sentences": len(test.sources),
        "references": 1,
        "systems": [system.name for system in systems],
        "made_by": [system.made_by for system in systems],
        "identical": [system.name for system in systems[1:] if system.translations == systems[0].translations],
        "test": options.test,
        "metrics": labels.paired(test.labels, texts, right, options.test, options.samples),
        "by_label": [{"label": name, "texts": n, "f1": [each[name][0] for each in f1]} for name, (_, n) in (f1[0] if f1 else {}).items()],
    }


def _test_set(runs: Mapping[str, Run], options: Systems) -> tuple[TestSet, dict[str, list[str]]]:
    """Return the test set with sources as plain text, and for each run the sources in its model's format."""
    forms = [normalization_of(run.config.tokenizer, run.folder / "tokenizer") for run in runs.values()]
    form = "nfc" if "nfc" in forms else "none"  # one form for all texts, so that they are comparable
    if options.source or options.reference:
        test = _given(next(iter(runs.values()), None), options, form)
        return test, dict.fromkeys(runs, [normalise(line) for line in read_lines(options.source, "--source")])
    if not runs:
        raise UserError("the source and reference of the translations are missing: give --source FILE and --reference FILE")
    words: Any = options.split, (), (), options.target_language, options.tokenize
    opened = {name: run.test_set(*words) for name, run in runs.items()}
    shown = {name: as_read(test, runs[name].config, form) for name, test in opened.items()}
    (first, test), *others = shown.items()
    for name, other in others:
        if (other.sources, other.references, other.labels) != (test.sources, test.references, test.labels):
            sets = f"{test.name}, {len(test.sources):,} sentences; {other.name}, {len(other.sources):,}"
            raise UserError(f"{first} and {name} have different test sets ({sets}): give one with --source FILE and --reference FILE")
    return test, {name: each.sources for name, each in opened.items()}


def _given(run: Run | None, options: Systems, form: str) -> TestSet:
    """Return the test set of --source and --reference. Its words are split if --pretokenized is given or the run's text is split."""
    if not (options.source and options.reference):
        raise UserError("--source and --reference go together: give a file of sentences and a file of their translations")
    sources = read_lines(options.source, "--source")
    split = run is not None and run.config.tokenizer.kind == "words"
    joiner = joiner_of(run.config.tokenizer) if run else ""
    references = []
    for file in options.reference:
        lines = read_lines(file, "--reference")
        if len(sources) != len(lines):
            raise UserError(f"{options.source} has {len(sources):,} lines and {file} {len(lines):,}: give files whose lines correspond")
        if split:
            check_joiner(count_tokens(lines), joiner, file)
        elif options.pretokenized:
            _refuse_pieces(file, lines)
        references.append([readable(line, joiner, form) for line in lines])
    named = language_of(options.source), options.target_language or language_of(options.reference[0])
    known = identity.languages(run.folder, run.config.data) if run else named
    test = TestSet(
        " ".join(options.reference),
        [readable(line, joiner, form) for line in sources],
        references,
        (named[0] or known[0], named[1] or known[1]),
        pretokenized=options.pretokenized or split,
        normalization=form,
        labels=getattr(run.config.task, "labels", "") if run else "",
    )
    if test.labels:
        return test
    return test.with_tokenizers(options.tokenize, words_split=options.pretokenized or stays_split(split, joiner))


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


def _frequency(trained: Experiment, form: str, wanted: Collection[str], split: breakdowns.Splitter) -> tuple[collections.Counter[str], str]:
    """Return the counts of words in the training text, and a description of the text read."""
    counts: collections.Counter[str] = collections.Counter()
    joiner = joiner_of(trained.tokenizer)
    pairs = itertools.chain.from_iterable(source.pairs() for source in sources_of(trained, "train"))
    for _, target in itertools.islice(pairs, MOST_PAIRS):
        counts.update(word for word in split(readable(decode(target), joiner, form)) if word in wanted)
    whole = next(pairs, None) is None
    return counts, "the training text" if whole else f"the first {MOST_PAIRS:,} pairs of the training text"
