"""The verb translate: lines, documents and streams of text."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from jaxnmt.cli.verbs import documents, workers
from jaxnmt.cli.verbs.common import Flat, leader_writer
from jaxnmt.cli.verbs.members import Members, check, opened
from jaxnmt.config import Decoding, Input, NonNegative
from jaxnmt.config.fields import between
from jaxnmt.config.tasks import require
from jaxnmt.decoding.terminology import read_terminology
from jaxnmt.errors import UserError
from jaxnmt.io import streams, text
from jaxnmt.parallel import distributed
from jaxnmt.parallel.log import say
from jaxnmt.run import Checkpoint
from jaxnmt.runs import directory

if TYPE_CHECKING:
    from jaxnmt.decoding.rules import Rules

WINDOW = 16
"""Batches of lines that are read at a time: the more, the more similar are the lengths within a batch."""
REPORT_EVERY = 2.0
"""Seconds between reports of progress."""


@dataclasses.dataclass(frozen=True)
class Translate(Input, Members):
    input: str = ""
    """File to translate, one sentence a line, plain or compressed; stdin if empty or -."""
    output: str = ""
    """File to write, whole or not at all; stdout if empty or -."""
    document: str = ""
    """A .po, .xlf, .xliff, .html or .txt file to translate as a whole, instead of lines: its structure, tags and placeholders are kept."""
    overwrite: bool = False
    """With --document: also translate entries of a .po or .xliff file that have a translation."""
    checkpoint: Checkpoint = "best"
    """A step, or best, latest, or average (made by `jaxnmt runs average`)."""
    alignments: Literal["none", "hard", "soft"] = "none"
    """hard: after each translation a tab and its word alignment, `0-0 2-1` (source-target, from 0); soft: a JSON object a line instead."""
    stream: bool = False
    """Write each word as soon as it is chosen: with --beam-size 1, or a temperature."""
    warm: bool = False
    """Translate nothing: compile the programs for any number of sentences of any length. The cache on disk keeps them for later calls."""
    json_lines: bool = False
    """A line of input is a JSON object with text, and optionally prefix, constraints and forbidden for this sentence."""
    prefix: str = ""
    """Text that every translation begins with."""
    prefix_column: bool = False
    """A line of input is `source TAB prefix`: text that this sentence's translation begins with, or nothing."""
    alternatives: Annotated[int, between(0, 1000)] = 0
    """Write the translations that begin with the prefix and, after it, with each of this many tokens, the likeliest ones there."""
    constraints: tuple[str, ...] = ()
    """Phrases that must occur in every translation; of "a|b", one must."""
    forbidden: tuple[str, ...] = ()
    """Phrases that must not occur in a translation."""
    terminology: str = ""
    """File of lines `source phrase TAB target phrase`: the second must occur if the sentence has the first."""
    unk_table: str = ""
    """File of lines `source word TAB target word`, with which --unk replace replaces unknown words; words that it lacks are copied."""
    workers: NonNegative[int] = 1
    """Processes that translate, each on its share of this computer's cores; 0: one per core."""
    decoding: Annotated[Decoding, Flat] = dataclasses.field(default_factory=Decoding)


def translate(run: str, options: Translate) -> None:
    """Translate text, one sentence a line, in its order: from stdin to stdout, or files.

    With --n-best above 1, or --alternatives, each translation is a line `sentence number TAB score TAB text`, best first, or samples as
    they are numbered.

    With --alignments hard, `TAB word alignment` follows; with soft, each translation is a JSON object with sentence, score, translation,
    source and target words, and weights: one row per target word, with its attention on each source word.

    Examples:
      echo "one hundred and two" | jaxnmt translate runs/quickstart
      jaxnmt translate runs/quickstart --warm
      echo "one hundred and two" | jaxnmt translate runs/quickstart --alignments hard
      jaxnmt translate runs/quickstart --input a.en --output a.fr --beam-size 8
      jaxnmt translate runs/quickstart --n-best 3 < a.en
      jaxnmt translate runs/quickstart --workers 2 < a.en
      jaxnmt translate runs/quickstart --engine ctranslate2 --weights int8 < a.en
      jaxnmt translate runs/quickstart --temperature 1 --epsilon 0.02 --n-best 5 < a.en
      jaxnmt translate runs/quickstart --terminology terms.tsv --forbidden "peut-être" < a.en
      echo '{"text": "one hundred and two", "constraints": ["cent"]}' | jaxnmt translate runs/quickstart --json-lines
      jaxnmt translate runs/quickstart --prefix "Il est" --alternatives 5 < a.en
      paste a.en prefixes.fr | jaxnmt translate runs/quickstart --prefix-column
      echo "one hundred and two" | jaxnmt translate runs/quickstart --stream --beam-size 1
      jaxnmt translate runs/one --ensemble runs/two runs/three --ensemble-weights 2 1 1 < a.en
      echo "one <b>hundred</b> and two" | jaxnmt translate runs/quickstart --format html
      jaxnmt translate runs/quickstart --document fr.po --output fr.translated.po
    """
    _check_together(options)
    check(run, options)
    require(directory.read(run).task, "translate", run)
    distributed.initialize()
    if options.warm:
        shapes = opened(run, options).translator.warm(options.decoding)
        say(f"compiled for {shapes} batch shapes")
        return
    if options.stream:
        _stream(run, options)
        return
    processes = workers.number(options.workers)
    if options.document:
        documents.translate(run, options, lambda given, windows: translate_windows(run, given, windows, processes))
        return
    size = options.decoding.batch_size * (WINDOW if processes == 1 else workers.WINDOW)
    with distributed.leader_first("read the input"):
        lines_at_hand = _line_batches(options, size, processes > 1) if distributed.is_leader() else iter(())
    windows = workers.numbered(distributed.from_leader("lines", lines_at_hand))
    done = said = 0
    with leader_writer(options.output) as write, contextlib.closing(translate_windows(run, options, windows, processes)) as translated:
        next_report = time.monotonic() + REPORT_EVERY
        for lines, done in translated:
            for line in lines:
                write(line)
            if time.monotonic() >= next_report:
                next_report, said = time.monotonic() + REPORT_EVERY, done
                _report(done)
    if done != said:
        _report(done)


def _report(done: int) -> None:
    say(f"{done:,} sentence{'s' * (done != 1)} translated")


def _check_together(options: Translate) -> None:
    """Check that the options of lines go together.

    Raises:
        UserError: they do not.
    """
    from jaxnmt.decoding.rules import check_together
    from jaxnmt.decoding.streaming import check_stream

    documents.check_together(options)
    if options.warm:
        others = ("document", "stream", "json_lines", "prefix", "prefix_column", "alternatives", "constraints", "forbidden", "terminology")
        for flag in (name.replace("_", "-") for name in others if getattr(options, name)):
            raise UserError(f"--warm translates nothing, and compiles the search for lines without rules: leave out --{flag}")
    if options.alignments != "none" and (options.format == "html" or options.protect):
        raise UserError(f"--alignments {options.alignments} is for text without markup: leave out --format html and --protect")
    if options.alignments != "none" and options.decoding.unk == "replace":
        raise UserError("--alignments shows the model's own words, and --unk replace writes others: leave one of them out")
    if options.prefix_column and (options.prefix or options.json_lines):
        other = "--json-lines, whose lines may have a prefix" if options.json_lines else "--prefix, which is for all lines"
        raise UserError(f"--prefix-column gives each line a prefix of its own: leave out {other}")
    check_together(options.decoding, bool(options.constraints or options.terminology), options.alternatives)
    if options.engine != "jaxnmt":
        lacks = ("stream", "prefix", "prefix_column", "alternatives", "constraints", "forbidden", "terminology")
        for flag in (name.replace("_", "-") for name in lacks if getattr(options, name)):
            raise UserError(f"--engine {options.engine} has no --{flag}: leave out one of them")
    if options.max_input and options.ensemble:
        raise UserError("--max-input is for one run: leave out --ensemble, whose runs read data.max_length tokens each")
    if options.stream:
        check_stream(options.decoding)
        whole = {"--format html": options.format == "html", "--alignments": options.alignments != "none"}
        whole |= {f"--{name}": getattr(options, name) for name in ("protect", "alternatives", "forbidden", "output")}
        for flag in (flag for flag, is_given in whole.items() if is_given):
            raise UserError(f"--stream writes each word to stdout as soon as it is chosen, and {flag} needs whole translations: drop one")


def _stream(run: str, options: Translate) -> None:
    """Write the translation of each line of input while it is made.

    Raises:
        UserError: there are several processes.
    """
    if options.workers != 1 or distributed.is_distributed():
        raise UserError("--stream is for one process: leave out --workers, and start one process")
    read = _reader(options)
    translator: Any = opened(run, options).translator_of(options)
    for number, (line,) in enumerate(_line_batches(options, 1), 1):
        sentence, own = read(line, number)
        for piece in itertools.chain(translator.stream(sentence, options.decoding, number, own), "\n"):
            streams.write_stdout(piece)


def _line_batches(options: Translate, size: int, pauses: bool = False) -> Iterator[list[str]]:
    return streams.line_batches(options.input, size, pauses, text.decode_columns if options.prefix_column else text.decode)


def _reader(options: Translate) -> Callable[[str, int], tuple[str, Rules]]:
    """Return a function of a line of input and its number, which returns a text and the rules of its translation."""
    from jaxnmt.decoding.rules import Rules, from_columns, from_json

    files = {"terminology": options.terminology, "unk_table": options.unk_table}
    tables = {name: read_terminology(file, f"--{name.replace('_', '-')}") for name, file in files.items() if file}
    for_all = Rules(options.prefix, options.constraints, options.forbidden, alternatives=options.alternatives, **tables)
    parse = from_json if options.json_lines else from_columns if options.prefix_column else lambda line, number: (line, Rules())

    def read(line: str, number: int) -> tuple[str, Rules]:
        sentence, own = parse(line, number)
        return sentence, for_all.with_own(own)

    return read


def translate_windows(run: str, options: Translate, windows: Iterator[Any], processes: int) -> Generator[tuple[list[str], int]]:
    """Yield the lines of output of each window, and the number of its last sentence. The run is opened before a window is waited for."""
    if processes == 1:
        yield from itertools.starmap(line_translator(run, options), windows)
    else:
        folders = (run, *options.ensemble)
        yield from workers.translated(line_translator, folders, options, windows, processes)


def line_translator(
    run: str, options: Translate, checkpoints: Sequence[Checkpoint] = ()
) -> Callable[[Sequence[str], int], tuple[list[str], int]]:
    """Open a run, and return a function of lines of input and the number of the first one.

    It returns the lines of output and the number of the last line of input.

    Args:
        checkpoints: of the run and of those of --ensemble; empty: as the options say.
    """
    read = _reader(options)
    used = opened(run, options, checkpoints)
    translator = used.translator_of(options)
    searching: Any = getattr(translator, "translator", translator)  # without the markup
    aligner = used.aligner if options.alignments != "none" else None

    def translated(lines: Sequence[str], first: int) -> tuple[list[str], int]:
        given = list(itertools.starmap(read, zip(lines, itertools.count(first))))
        texts = [sentence for sentence, _ in given]
        if len(lines) >= options.decoding.batch_size:  # a long file, not a user at a terminal
            searching.least_sentences = options.decoding.batch_size
        found = translator.translate(texts, options.decoding, first, [own for _, own in given])
        alignments: Any = aligner.align(texts, found, options.decoding.batch_size) if aligner else found
        made = [
            _translation_line(number, candidate, alignment, options)
            for number, (candidates, aligned) in enumerate(zip(found, alignments, strict=True), first)
            for candidate, alignment in zip(candidates, aligned, strict=True)
        ]
        return made, first + len(lines) - 1

    return translated


def _translation_line(number: int, translation: Any, alignment: Any, options: Translate) -> str:
    if options.alignments == "soft":
        return alignment.soft(number, translation)
    several = options.decoding.n_best > 1 or options.alternatives
    line = f"{number}\t{translation.score:.4f}\t{translation.text}" if several else translation.text
    return f"{line}\t{alignment.pharaoh()}" if options.alignments == "hard" else line
