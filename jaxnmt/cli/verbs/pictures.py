"""Verbs that draw runs and what trained models do: runs curves, visualize, and the probes of runs."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import webbrowser
from typing import Annotated, Any, Literal

from jaxnmt.cli.verbs.common import Checkpoint, Flat, writable
from jaxnmt.cli.verbs.drawing import drawable, publish, write
from jaxnmt.config import Decoding, Positive
from jaxnmt.config import checks as config_checks
from jaxnmt.errors import UserError
from jaxnmt.lab.systems import Systems
from jaxnmt.parallel.log import say
from jaxnmt.run import Run
from jaxnmt.runs import directory


@dataclasses.dataclass(frozen=True)
class Visualize:
    output: str = "translation.html"
    """File for the page."""
    open: bool = False
    """Show the page in the browser."""
    json: str = ""
    """File for the page's numbers, as JSON."""
    checkpoint: Checkpoint = "best"
    """A step, or best, latest, or average (made by `jaxnmt runs average`)."""
    decoding: Annotated[Decoding, Flat] = dataclasses.field(default_factory=Decoding)


@dataclasses.dataclass(frozen=True)
class Curves:
    against: Literal["epoch", "step", "tokens", "minutes"] = "epoch"
    """The x axis: epochs, steps, target tokens, or minutes of training (without compiling, validating and saving)."""
    metric: Literal["bleu", "loss"] = "bleu"
    """The validation metric."""
    output: str = "curves.svg"
    """File for the chart; its numbers are written beside it, as .csv."""


@dataclasses.dataclass(frozen=True)
class Length(Systems):
    output: str = "length.svg"
    """File for the chart; its numbers are written beside it, as .csv."""
    bins: Positive[int] = 8
    """Points of a line, each for about the same number of sentences."""
    by: Literal["run", "variant"] = "run"
    """One line per run, or per variant of a study (runs/VARIANT/seed-N), with a band over seeds."""


@dataclasses.dataclass(frozen=True)
class Contrast:
    output: str = "contrast.svg"
    """File for the chart; its numbers are written beside it, as .csv, and pairs made by rules as .tsv."""
    pairs: str = ""
    """TSV file of pairs: source, right translation, wrong translation, distance; when empty, --rules makes them."""
    rules: str = ""
    """TOML file of rules, or a language with shipped rules (de); when empty, the run's target language."""
    only: tuple[str, ...] = ()
    """Names of the rules to use (de: possessive, relative); when empty, all."""
    data: tuple[str, ...] = ()
    """Sentences to make pairs from: sources as in data.test; when empty, the first run's test and validation sentences."""
    checkpoint: Checkpoint = "best"
    """A step, or best, latest, or average (made by `jaxnmt runs average`)."""


@dataclasses.dataclass(frozen=True)
class Embeddings:
    output: str = "embeddings"
    """Folder for the figures and their numbers."""
    words: tuple[str, ...] = ()
    """Words to draw with their neighbours; when empty, the most frequent of the run's test sentences."""
    side: Literal["source", "target"] = "source"
    """Side of the words."""
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
    """File for the chart; its numbers are written beside it, as .csv."""
    checkpoint: Checkpoint = "best"
    """A step, or best, latest, or average (made by `jaxnmt runs average`)."""


def visualize(run: str, sentence: str, options: Visualize) -> None:
    """Translate one sentence and draw how, as one self-contained HTML file.

    The page has a player that goes through encoder and decoder step by step, the alignment, every layer and head, and the beam as a tree.

    Examples:
      jaxnmt visualize runs/quickstart "one hundred and two" --open
      jaxnmt visualize runs/quickstart "one hundred and two" --output numbers.html --json numbers.json --beam-size 3
    """
    config_checks.validate(dataclasses.replace(directory.read(run), decoding=options.decoding))
    if not sentence.strip():
        raise UserError("the sentence has no word: give one to translate, in quotes")
    writable("--output", options.output)
    writable("--json", options.json)
    from jaxnmt.lab.visualize.record import of_run, page

    record = of_run(Run(run, options.checkpoint), sentence, options.decoding)
    write(options.output, page(record))
    if options.json:
        write(options.json, json.dumps(record, ensure_ascii=False), "--json")
    print(record["translation"])
    if options.open:
        webbrowser.open(pathlib.Path(options.output).absolute().as_uri())


def runs_curves(first: str, others: list[str], options: Curves) -> None:
    """Draw the learning curves of runs, finished or training, on one chart.

    Examples:
      jaxnmt runs curves runs/gru_bahdanau runs/lstm_luong
      jaxnmt runs curves runs/* --against minutes --metric loss --output loss.svg
    """
    drawable(options.output)
    runs = [directory.folder(run) for run in (first, *others)]
    for run in runs:
        directory.settings(run)
    from jaxnmt.lab import comparison_report, figures, learning_curves

    drawn = [learning_curves.curve(run, options.against, options.metric) for run in runs]
    lines = dict(zip(comparison_report.labels([str(run) for run in runs]), drawn, strict=True))
    x, y = learning_curves.X[options.against], learning_curves.Y[options.metric]
    publish(options.output, {".svg": figures.chart(lines, "Learning curves", x, y), ".csv": figures.lines_csv(lines)})


def probe_length(first: str, others: list[str], options: Length) -> None:
    """Draw BLEU against the source's length, several systems on one chart, with 95 % intervals.

    A system is a run, which translates its test sentences and keeps the translations, or a file of translations, one a line.

    Examples:
      jaxnmt probe length runs/lstm_fixed runs/gru_bahdanau
      jaxnmt probe length mine.de theirs.de --source test.en --reference test.de --output images/length.svg
      jaxnmt probe length studies/ladder/runs/*/seed-*/run --by variant
    """
    drawable(options.output)
    from jaxnmt.lab import comparison_report
    from jaxnmt.lab.compare import gather
    from jaxnmt.lab.probes import length

    test, systems, _ = gather([first, *others], options)
    made: dict[str, list[list[str]]] = {}
    for system in systems:
        made.setdefault(system.name if options.by == "run" else length.variant_of(system.name), []).append(system.translations)
    made = dict(zip(comparison_report.labels(list(made)), made.values(), strict=True))
    bins = length.bins_of(test, options.bins)
    lines, band = length.curves(test, made, bins), length.band(made)
    files = {".svg": length.drawn(lines, band), ".csv": length.numbers(lines, bins)}
    publish(options.output, files, length.table(lines, bins, band))
    if test.note:
        say(test.note)


def probe_contrast(first: str, others: list[str], options: Contrast) -> None:
    """Measure how often a run prefers the right of two translations that differ in one word, by the distance to the word that decides it.

    For German targets shipped rules make the pairs, from sentences in which a possessive or a relative pronoun agrees with a noun before
    it: "Ein Mann mit Hut, der …" against "…, die …".

    Examples:
      jaxnmt probe contrast runs/multi30k
      jaxnmt probe contrast runs/lstm_fixed runs/gru_bahdanau --only relative
      jaxnmt probe contrast runs/multi30k --rules my_rules.toml --data a.en a.de
      jaxnmt probe contrast runs/multi30k --pairs contrast.tsv
    """
    drawable(options.output)
    names = [first, *others]
    runs = [Run(name, options.checkpoint) for name in names]
    from jaxnmt.lab import comparison_report
    from jaxnmt.lab.probes import contrast, contrast_pairs

    pairs = contrast_pairs.read(options.pairs) if options.pairs else contrast_pairs.of_runs(runs, options.rules, options.only, options.data)
    found = len(pairs)
    for each in runs:
        pairs = contrast_pairs.usable(pairs, each.tokenizer, each.config.data.max_length)
    say(f"{found:,} pairs, {found - len(pairs):,} left out: too long, or with a word unknown to a run")
    if not pairs:
        raise UserError("no pair is left to score: give other sentences with --data, or other pairs with --pairs")
    shares = {}
    for label, each in zip(comparison_report.labels(names), runs, strict=True):
        say(f"{label}: scoring")
        shares[label] = contrast.by_distance(pairs, contrast.preferred(each.model, each.params, each.tokenizer, pairs))
    made = {} if options.pairs else {".tsv": contrast_pairs.as_text(pairs)}
    publish(options.output, {".svg": contrast.drawn(shares), ".csv": contrast.numbers(shares)} | made, contrast.table(shares))


def probe_embeddings(run: str, options: Embeddings) -> None:
    """Draw word vectors: nearest neighbours, principal components, position vectors; and one word in several sentences, layer by layer.

    Examples:
      jaxnmt probe embeddings runs/multi30k
      jaxnmt probe embeddings runs/multi30k --words man woman dog red blue --neighbours 5
      jaxnmt probe embeddings runs/multi30k --word bank --sentences "A man sits on a bank." "A woman works in a bank."
    """
    folder = pathlib.Path(options.output)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output {folder} is a file: give a folder for the figures")
    if bool(options.word) != (len(options.sentences) > 1) or len(options.sentences) == 1:
        raise UserError("--word and --sentences go together: give a word, and at least two sentences that have it")
    from jaxnmt.lab.probes import embeddings_report

    opened = Run(run, options.checkpoint)
    reports = [embeddings_report.vectors(opened, options.words, options.side, options.neighbours)]
    if options.word:
        reports.append(embeddings_report.in_sentences(opened, options.word, options.sentences))
    folder.mkdir(parents=True, exist_ok=True)
    for report in reports:
        publish(options.output, {f"/{name}": text for name, text in report.files.items()}, report.table)


def probe_gates(run: str, sentence: str, options: Gates) -> None:
    """Draw how far the gates of an LSTM or a GRU are open while the encoder reads a sentence, layer by layer, as a heat map.

    Examples:
      jaxnmt probe gates runs/lstm_luong "one hundred and two"
      jaxnmt probe gates runs/gru_bahdanau "one hundred and two" --output images/gates.svg
    """
    drawable(options.output)
    config: Any = directory.read(run).model
    from jaxnmt.lab.probes import gates
    from jaxnmt.lab.visualize.record import readable_piece, source_ids

    gates.check(config)
    opened = Run(run, options.checkpoint)
    source = source_ids(opened.tokenizer, opened.config.data.max_length, sentence)
    layers, shown = gates.read(config, opened.model, opened.params, source), gates.SHOWN[config.cell]
    pieces = [readable_piece(piece, opened.tokenizer.pretokenized) for piece in opened.tokenizer.source_pieces(source)]
    files = {".svg": gates.drawn(layers, pieces, shown), ".csv": gates.numbers(layers, pieces, shown)}
    publish(options.output, files, gates.table(layers, shown))
