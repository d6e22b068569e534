"""Verbs that draw runs and what trained models do: runs curves, visualize, and the probes of runs."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import webbrowser
from typing import Annotated, Any, Literal

from jaxnmt.cli.verbs.common import Checkpoint, Flat, Tokenize, say, writable
from jaxnmt.cli.verbs.drawing import drawable, write
from jaxnmt.config import Decoding, NonNegative, Positive
from jaxnmt.config import checks as config_checks
from jaxnmt.errors import UserError
from jaxnmt.io import text_streams
from jaxnmt.parallel import compiler
from jaxnmt.runs import directory as run_directory


@dataclasses.dataclass(frozen=True)
class Visualize:
    output: str = "translation.html"
    """File to write the page to."""
    open: bool = False
    """Show the page in the browser."""
    json: str = ""
    """File to write the page's numbers to, as JSON."""
    checkpoint: Checkpoint = "best"
    """A step, or best, latest, or average (made by `jaxnmt runs average`)."""
    decoding: Annotated[Decoding, Flat] = dataclasses.field(default_factory=Decoding)


@dataclasses.dataclass(frozen=True)
class Curves:
    against: Literal["epoch", "step", "tokens", "minutes"] = "epoch"
    """What has been trained: epochs, steps, target tokens, or minutes (without compiling, validating and saving)."""
    metric: Literal["bleu", "loss"] = "bleu"
    """Of the validations."""
    output: str = "curves.svg"
    """File to draw to; the numbers go beside it, as .csv."""


@dataclasses.dataclass(frozen=True)
class Length:
    output: str = "length.svg"
    """File to draw to; the numbers lie beside it, as CSV."""
    bins: Positive[int] = 8
    """Points of a line, each of about as many sentences."""
    by: Literal["run", "variant"] = "run"
    """A line for each run, or for each variant of a study (runs/VARIANT/seed-N): then the band is over seeds."""
    source: str = ""
    """File of source sentences; when empty, with --reference empty too, the first run's test sentences."""
    reference: tuple[str, ...] = ()
    """File of their reference translations, or several."""
    target_language: str = ""
    """Code of the references' language; when empty, as the file's name ends (test.de: de), or the run's."""
    tokenize: Tokenize = ""
    """BLEU's tokenizer, by sacreBLEU's name; when empty, chosen by the references' script and language."""
    split: Literal["test", "validation"] = "test"
    """Which of the runs' own sentences."""
    checkpoint: Checkpoint = "best"
    """A step, or best, latest, or average (made by `jaxnmt runs average`)."""
    beam_size: NonNegative[int] = 0
    """0: as each run's settings say."""


@dataclasses.dataclass(frozen=True)
class Contrast:
    output: str = "contrast.svg"
    """File to draw to; the numbers lie beside it as CSV, and pairs that were made as TSV."""
    pairs: str = ""
    """TSV file of pairs: source, right translation, wrong translation, distance; when empty, they are made by --rules."""
    rules: str = ""
    """TOML file of rules, or a language that has shipped ones (de); when empty, the run's target language."""
    only: tuple[str, ...] = ()
    """Names of the rules to use (de: possessive, relative); when empty, all."""
    data: tuple[str, ...] = ()
    """Sentences to make pairs of: sources, written as for data.test; when empty, the first run's test and validation sentences."""
    checkpoint: Checkpoint = "best"
    """A step, or best, latest, or average (made by `jaxnmt runs average`)."""


@dataclasses.dataclass(frozen=True)
class Embeddings:
    output: str = "embeddings"
    """Folder for the figures and their numbers."""
    words: tuple[str, ...] = ()
    """Words to find neighbours of and to draw; when empty, the most frequent of the run's test sentences."""
    side: Literal["source", "target"] = "source"
    """Whose words."""
    neighbours: Positive[int] = 8
    """Neighbours of a word."""
    word: str = ""
    """A word to follow through the encoder's layers in several --sentences."""
    sentences: tuple[str, ...] = ()
    """Two or more source sentences with that word: the first is compared with each of the others."""
    checkpoint: Checkpoint = "best"
    """A step, or best, latest, or average (made by `jaxnmt runs average`)."""


@dataclasses.dataclass(frozen=True)
class Gates:
    output: str = "gates.svg"
    """File to draw to; the numbers lie beside it, as CSV."""
    checkpoint: Checkpoint = "best"
    """A step, or best, latest, or average (made by `jaxnmt runs average`)."""


def visualize(run: str, sentence: str, options: Visualize) -> None:
    """Translate one sentence and draw how: one HTML file that needs nothing else, no network either.

    The page has a player that goes through encoder and decoder step by step, the alignment, every layer and head, and the beam as a tree.

    Examples:
      jaxnmt visualize runs/quickstart "one hundred and two" --open
      jaxnmt visualize runs/quickstart "one hundred and two" --output numbers.html --json numbers.json --beam-size 3
    """
    config_checks.validate(dataclasses.replace(run_directory.read(run), decoding=options.decoding))
    if not sentence.strip():
        raise UserError("there is no word in the sentence: give one to translate, in quotes")
    writable("--output", options.output)
    writable("--json", options.json)
    from jaxnmt.lab.visualize.page import page
    from jaxnmt.lab.visualize.record import of_run

    record = of_run(run_directory.folder(run), sentence, options.decoding, options.checkpoint)
    with text_streams.writer(options.output) as write:
        write(page(record))
    if options.json:
        with text_streams.writer(options.json, "--json") as write:
            write(json.dumps(record, ensure_ascii=False))
    print(record["translation"])
    say(f"drawn in {options.output}")
    if options.open:
        webbrowser.open(pathlib.Path(options.output).absolute().as_uri())


def runs_curves(first: str, others: list[str], options: Curves) -> None:
    """Draw the learning curves of runs, finished or training, on one chart.

    Examples:
      jaxnmt runs curves runs/gru_bahdanau runs/lstm_luong
      jaxnmt runs curves runs/* --against minutes --metric loss --output loss.svg
    """
    drawable(options.output)
    runs = [run_directory.folder(run) for run in (first, *others)]
    for run in runs:
        run_directory.settings(run)
    from jaxnmt.lab import comparison_report, figures, learning_curves

    drawn = [learning_curves.curve(run, options.against, options.metric) for run in runs]
    lines = dict(zip(comparison_report.labels([str(run) for run in runs]), drawn, strict=True))
    x, y = learning_curves.X[options.against], learning_curves.Y[options.metric]
    write(options.output, {".svg": figures.chart(lines, "Learning curves", x, y), ".csv": figures.table(lines)})


def probe_length(first: str, others: list[str], options: Length) -> None:
    """BLEU against the source's length, several systems on one chart, with 95 % intervals.

    A system is a run, which translates its test sentences and keeps the translations, or a file of translations, one a line.

    Examples:
      jaxnmt probe length runs/lstm_fixed runs/gru_bahdanau
      jaxnmt probe length mine.de theirs.de --source test.en --reference test.de --output images/length.svg
      jaxnmt probe length studies/ladder/runs/*/seed-*/run --by variant
    """
    drawable(options.output)
    from jaxnmt.lab import comparison_report, tables
    from jaxnmt.lab.compare import Settings, gather
    from jaxnmt.lab.probes import length

    wanted = {name: value for name, value in dataclasses.asdict(options).items() if name in Settings.__dataclass_fields__}
    test, systems, _ = gather([first, *others], Settings(**wanted), say)
    made: dict[str, list[list[str]]] = {}
    for system in systems:
        made.setdefault(system.name if options.by == "run" else length.variant_of(system.name), []).append(system.translations)
    made = dict(zip(comparison_report.labels(list(made)), made.values(), strict=True))
    bins = length.bins_of(test, options.bins)
    lines, band = length.curves(test, made, bins), length.band(made)
    write(options.output, {".svg": length.drawn(lines, band), ".csv": length.numbers(lines, bins)})
    tables.show([length.table(lines, bins, band)])
    if test.note:
        say(test.note)


def probe_contrast(first: str, others: list[str], options: Contrast) -> None:
    """How often a run prefers the right of two translations that differ in one word, by the distance to the word that decides it.

    For German targets pairs are made by shipped rules, from sentences in which a possessive or a relative pronoun agrees with a noun
    before it: "Ein Mann mit Hut, der …" against "…, die …".

    Examples:
      jaxnmt probe contrast runs/multi30k
      jaxnmt probe contrast runs/lstm_fixed runs/gru_bahdanau --only relative
      jaxnmt probe contrast runs/multi30k --rules my_rules.toml --data a.en a.de
      jaxnmt probe contrast runs/multi30k --pairs contrast.tsv
    """
    drawable(options.output)
    names = [first, *others]
    experiments = [run_directory.read(name) for name in names]
    from jaxnmt.lab import comparison_report, tables
    from jaxnmt.lab.probes import contrast, contrast_pairs
    from jaxnmt.training.trained import load

    runs = dict(zip(names, experiments, strict=True))
    pairs = contrast_pairs.read(options.pairs) if options.pairs else contrast_pairs.of_runs(runs, options.rules, options.only, options.data)
    compiler.check()
    trained = [load(run_directory.folder(name), options.checkpoint) for name in names]
    found = len(pairs)
    for each in trained:
        pairs = contrast_pairs.usable(pairs, each.tokenizer, each.experiment.data.max_length)
    say(f"{found:,} pairs, {found - len(pairs):,} left out: too long, or with a word that a run does not know")
    if not pairs:
        raise UserError("no pair is left to be scored")
    labels = comparison_report.labels(names)
    shares = {}
    for label, each in zip(labels, trained, strict=True):
        say(f"{label}: scoring")
        shares[label] = contrast.by_distance(pairs, contrast.preferred(each.model, each.params, each.tokenizer, pairs))
    made = {} if options.pairs else {".tsv": contrast_pairs.as_text(pairs)}
    write(options.output, {".svg": contrast.drawn(shares), ".csv": contrast.numbers(shares)} | made)
    tables.show([contrast.table(shares)])


def probe_embeddings(run: str, options: Embeddings) -> None:
    """Words as vectors: nearest neighbours, a map, the position vectors; and one word in several sentences, layer by layer.

    Examples:
      jaxnmt probe embeddings runs/multi30k
      jaxnmt probe embeddings runs/multi30k --words man woman dog red blue --neighbours 5
      jaxnmt probe embeddings runs/multi30k --word bank --sentences "A man sits on a bank." "A woman works in a bank."
    """
    run_directory.read(run)
    folder = pathlib.Path(options.output)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output {folder} is a file: several figures need a folder")
    if bool(options.word) != (len(options.sentences) > 1) or len(options.sentences) == 1:
        raise UserError("--word and --sentences go together: a word, and at least two sentences that have it")
    from jaxnmt.lab import tables
    from jaxnmt.lab.probes import embeddings_report
    from jaxnmt.training.trained import load

    compiler.check()
    trained = load(run_directory.folder(run), options.checkpoint)
    reports = [embeddings_report.vectors(trained, run_directory.folder(run), options.words, options.side, options.neighbours)]
    if options.word:
        reports.append(embeddings_report.in_sentences(trained, options.word, options.sentences))
    folder.mkdir(parents=True, exist_ok=True)
    for report in reports:
        for name, text in report.files.items():
            write(str(folder / name), {pathlib.PurePath(name).suffix: text})
        tables.show(report.tables)


def probe_gates(run: str, sentence: str, options: Gates) -> None:
    """How far the gates of an LSTM or a GRU are open while the encoder reads a sentence, layer by layer: a heat map.

    Examples:
      jaxnmt probe gates runs/lstm_luong "one hundred and two"
      jaxnmt probe gates runs/gru_bahdanau "one hundred and two" --output images/gates.svg
    """
    drawable(options.output)
    experiment = run_directory.read(run)
    from jaxnmt.lab import tables
    from jaxnmt.lab.probes import gates
    from jaxnmt.lab.visualize.record import readable_piece, source_ids
    from jaxnmt.training.trained import load

    config: Any = experiment.model
    gates.check(config)
    compiler.check()
    trained = load(run_directory.folder(run), options.checkpoint)
    source = source_ids(trained.tokenizer, experiment.data.max_length, sentence)
    layers, shown = gates.read(config, trained.model, trained.params, source), gates.SHOWN[config.cell]
    pieces = [readable_piece(piece, trained.tokenizer.pretokenized) for piece in trained.tokenizer.source_pieces(source)]
    write(options.output, {".svg": gates.drawn(layers, pieces, shown), ".csv": gates.numbers(layers, pieces, shown)})
    tables.show([gates.table(layers, shown)])
