"""Verbs that draw, each a figure with its numbers: runs curves, and the probes."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from jaxnmt import Run, UserError
from jaxnmt.cli.verbs.common import writable
from jaxnmt.io import streams
from jaxnmt.lab import figures
from jaxnmt.lab.options import Cloze, Contrast, Curves, Embeddings, Gates, Gradients, Length, Recall, Steptime, Text, labels, subjects
from jaxnmt.parallel import compiler
from jaxnmt.parallel.log import say
from jaxnmt.runs import directory


def drawable(output: str) -> None:
    """Check, before anything is computed, that a figure can be written.

    Raises:
        UserError: its name does not end in .svg, or as `writable`.
    """
    if pathlib.Path(output).suffix != ".svg":
        raise UserError(f"--output {output}: the chart is an SVG; give a name that ends in .svg")
    writable("--output", output)


def write(name: str, text: str, flag: str = "--output") -> None:
    """Write a file, and report it on stderr."""
    with streams.line_writer(name, flag) as line:
        line(text.removesuffix("\n"))
    say(f"written: {name}")


def publish(output: str, files: Mapping[str, str], *shown: figures.Table) -> None:
    """Write files and print tables; a file's key is appended to `output` without its .svg."""
    for suffix, text in files.items():
        write(output.removesuffix(".svg") + suffix, text)
    figures.show(shown)


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
    from jaxnmt.lab import learning_curves

    named = dict(zip(labels([str(run) for run in runs]), runs, strict=True))
    publish(options.output, learning_curves.report(named, options))


def probe_length(first: str, others: list[str], options: Length) -> None:
    """Draw BLEU against the source's length, several systems on one chart, with 95 % intervals.

    A system is a run, which translates its test sentences and keeps the translations, or a file of translations, one a line.

    Examples:
      jaxnmt probe length runs/lstm_fixed runs/gru_bahdanau
      jaxnmt probe length mine.de theirs.de --source test.en --reference test.de --output images/length.svg
      jaxnmt probe length studies/ladder/runs/*/seed-*/run --by variant
    """
    drawable(options.output)
    from jaxnmt.lab.compare import gather
    from jaxnmt.lab.probes import length

    test, systems, _ = gather([first, *others], options)
    made: dict[str, list[list[str]]] = {}
    for system in systems:
        made.setdefault(system.name if options.by == "run" else length.variant_of(system.name), []).append(system.translations)
    made = dict(zip(labels(list(made)), made.values(), strict=True))
    publish(options.output, *length.report(test, made, options.bins))
    if test.note:
        say(test.note)


def probe_contrast(first: str, others: list[str], options: Contrast) -> None:
    """Measure how often a run prefers the right of two translations that differ in one word, by the distance to the word that decides it.

    For runs on the embedded corpus, pairs are drawn from its grammar: 1,100 for each distance up to 30 words. For other German targets,
    shipped rules make them from sentences in which a possessive or a relative pronoun agrees with a noun before it: "Ein Mann mit Hut,
    der …" against "…, die …".

    Examples:
      jaxnmt probe contrast runs/multi30k
      jaxnmt probe contrast runs/rnn_fixed runs/quickstart --rules grammar
      jaxnmt probe contrast runs/lstm_fixed runs/gru_bahdanau --only relative
      jaxnmt probe contrast runs/multi30k --rules my_rules.toml --data a.en a.de
      jaxnmt probe contrast runs/multi30k --pairs contrast.tsv
    """
    drawable(options.output)
    names = [first, *others]
    runs = [Run(name, options.checkpoint) for name in names]
    from jaxnmt.lab.probes import contrast

    pairs = contrast.read(options.pairs) if options.pairs else contrast.of_runs(runs, options)
    found = len(pairs)
    for each in runs:
        pairs = contrast.usable(pairs, each.tokenizer, each.config.data.max_length)
    say(f"{found:,} pairs, {found - len(pairs):,} left out: too long, or with a word unknown to a run")
    if not pairs:
        raise UserError("no pair is left to score: give other sentences with --data, or other pairs with --pairs")
    shares = {}
    for label, each in zip(labels(names), runs, strict=True):
        say(f"{label}: scoring")
        shares[label] = contrast.by_distance(pairs, contrast.preferred(each.model, each.params, each.tokenizer, pairs))
    files, table = contrast.report(shares)
    publish(options.output, files if options.pairs else files | {".tsv": contrast.as_text(pairs)}, table)


def probe_cloze(first: str, others: list[str], options: Cloze) -> None:
    """Measure how often language models fill a gap with the right word, by the distance to the word that decides it.

    "... my sister grew up in Germany, sold thirteen red lamps in Rome and speaks ___": one of nine languages, with 2 to 30 words between.
    The models must have been trained on such text (`jaxnmt probe text`).

    Examples:
      jaxnmt probe text cloze en --output cloze.en
      jaxnmt train lm_small --run runs/lm_en --data.train cloze.en
      jaxnmt probe cloze runs/lm_en
      jaxnmt probe cloze runs/rnn_tr runs/lstm_tr runs/lm_tr --language tr --output images/cloze_tr.svg
    """
    drawable(options.output)
    names = [first, *others]
    runs = [Run(name, options.checkpoint) for name in names]
    from jaxnmt.lab.probes import cloze, distant

    language, found = cloze.language_of(runs, options.language), {}
    tests = list(distant.draw(distant.cloze, [language], "test", sorted(set(options.distances)), options.count))
    drawn = len(tests)
    for run in runs:
        tests = cloze.usable(tests, run.tokenizer, run.config.data.max_length)
    say(f"{drawn:,} sentences, {drawn - len(tests):,} left out: too long, or with a word unknown to a run")
    if not tests:
        raise UserError("no sentence is left to score: train the runs on `jaxnmt probe text cloze`, or give other --distances")
    for label, run in zip(labels(names), runs, strict=True):
        say(f"{label}: scoring")
        found[label] = cloze.points(tests, cloze.log_probs(run, tests))
    files, table = cloze.report(found, language)
    publish(options.output, files | {".tsv": cloze.as_text(tests)}, table)


def probe_text(kind: str, language: str, target: str | None, options: Text) -> None:
    """Write sentences to train on for `probe cloze` (kind cloze, one language) or `probe contrast` (kind contrast, two), to stdout.

    They are drawn from the grammar of the embedded corpus, over all distances up to 30 words. The test has other combinations of words.

    Examples:
      jaxnmt probe text cloze tr --output cloze.tr
      jaxnmt probe text contrast tr en --output contrast.tr-en.tsv
      jaxnmt probe text contrast tr en --split validation --lines 1000 --output validation.tr-en.tsv
    """
    from jaxnmt.lab.probes import distant

    lines = distant.text(kind, [language, target] if target else [language], options.split, options.lines)
    with streams.line_writer(options.output) as write:
        for line in lines:
            write(line)


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
    from jaxnmt.lab.probes import embeddings

    opened = Run(run, options.checkpoint)
    reports = [embeddings.vectors(opened, options.words, options.side, options.neighbours)]
    if options.word:
        reports.append(embeddings.in_sentences(opened, options.word, options.sentences))
    folder.mkdir(parents=True, exist_ok=True)
    for files, table in reports:
        publish(f"{options.output}/", files, table)


def probe_gates(run: str, sentence: str, options: Gates) -> None:
    """Draw how far the gates of an LSTM or a GRU are open while the encoder reads a sentence, layer by layer, as a heat map.

    Examples:
      jaxnmt probe gates runs/lstm_luong "one hundred and two"
      jaxnmt probe gates runs/gru_bahdanau "one hundred and two" --output images/gates.svg
    """
    drawable(options.output)
    opened = Run(run, options.checkpoint)
    from jaxnmt.lab.probes import gates
    from jaxnmt.lab.visualize.record import readable_piece, source_ids

    config: Any = opened.config.model
    gates.check(config)
    source = source_ids(opened.tokenizer, opened.config.data.max_length, sentence)
    pieces = [readable_piece(piece, opened.tokenizer.pretokenized) for piece in opened.tokenizer.source_pieces(source)]
    layers = gates.read(config, opened.model, opened.params, source)
    publish(options.output, *gates.report(layers, pieces, gates.SHOWN[config.cell]))


def gradients(first: str, others: list[str], options: Gradients) -> None:
    """Draw how far gradients reach: the norm of the first target word's loss, differentiated by the encoder's state n steps before the end.

    A config's model is measured as initialized, a run's as trained. For a model that is not recurrent, the word's vector takes the place of
    the state.

    Examples:
      jaxnmt probe gradients quickstart
      jaxnmt probe gradients phrases/rnn_fixed phrases/lstm_fixed phrases/gru_bahdanau quickstart --width 128
      jaxnmt probe gradients runs/rnn runs/lstm --distance 100 --output trained.svg
    """
    drawable(options.output)
    chosen = subjects([first, *others], options.width, runs=True)
    from jaxnmt.lab.probes import gradients as probe

    compiler.check()
    at, lines = probe.distances(options.distance), {}
    for label, subject in chosen.items():
        lines[label] = probe.line(at, probe.measure(label, subject, at, options.samples))
        say(f"{label}: measured")
    publish(options.output, *probe.report(lines))


def recall(first: str, others: list[str], options: Recall) -> None:
    """Train models to repeat a word read n steps ago, all with one budget, and draw their accuracy on other sentences against n.

    If it is interrupted or killed, the same command resumes. Later commands with the same budget and file add their models to the chart.

    Examples:
      jaxnmt probe recall phrases/rnn_fixed phrases/lstm_fixed phrases/gru_bahdanau quickstart
      jaxnmt probe recall phrases/rnn_fixed --distances 1 2 5 10 20 --steps 300 --output rnn.svg
      jaxnmt probe recall phrases/rnn_fixed phrases/lstm_fixed --apart --steps 300 --output apart.svg
    """
    drawable(options.output)
    chosen = subjects([first, *others], options.width)
    from jaxnmt.lab.probes import recall as probe

    compiler.check()
    publish(options.output, *probe.report(probe.measure(chosen, options)))


def steptime(first: str, others: list[str], options: Steptime) -> None:
    """Measure a training step against length: seconds, target tokens per second, and the share of the device's peak rate.

    Batches have no padding, and the same number of tokens for every length. Measure on an idle computer.

    Examples:
      jaxnmt probe steptime phrases/lstm_luong quickstart
      jaxnmt probe steptime rnn_fixed gru_bahdanau transformer_small --lengths 16 64 256 --tokens 4096 --output speed.svg
    """
    if options.tokens < max(options.lengths):
        raise UserError(f"--tokens is {options.tokens}; it must be the largest of --lengths or more ({max(options.lengths)})")
    drawable(options.output)
    chosen = subjects([first, *others], options.width)
    from jaxnmt.lab.probes import steptime as probe

    compiler.check()
    publish(options.output, *probe.report(probe.measure(chosen, options)))
