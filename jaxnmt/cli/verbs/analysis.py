"""Verbs that look at models and their translations: bench, laws, compare, visualize."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import webbrowser
from typing import Annotated

from jaxnmt import Decoding, Experiment, Run, Transformer, UserError, load_config, replace
from jaxnmt.cli.verbs.common import NO_METRICS, Flat, writable
from jaxnmt.cli.verbs.drawing import write
from jaxnmt.config import Model, Positive
from jaxnmt.config import checks as config_checks
from jaxnmt.config.fields import PositiveIntegers
from jaxnmt.lab.options import Compare
from jaxnmt.parallel.log import say
from jaxnmt.run import Checkpoint, Weights
from jaxnmt.runs import directory
from jaxnmt.training_run import trainable

PHRASES = ("phrases/en-fr:train",)  # training data of `bench` if none is given


@dataclasses.dataclass(frozen=True)
class Bench:
    run_time: Positive[float] = 30.0
    """Seconds to measure: training steps without start-up, or of a run each batch size and the latency."""
    json: str = "benchmarks/results.jsonl"
    """File to append the record to, as one line."""
    batch_sizes: PositiveIntegers = (1, 8, 64)
    """Of a run: sentences translated together, one measurement for each."""
    checkpoint: Checkpoint = "best"
    """Of a run: a step, or best, latest, or average (made by `jaxnmt runs average`)."""
    weights: Weights = "trained"
    """Of a run: the type of its weights, as for `jaxnmt translate`."""
    experiment: Annotated[Experiment, Flat] = dataclasses.field(default_factory=Experiment)


@dataclasses.dataclass(frozen=True)
class Laws:
    only: tuple[str, ...] = ()
    """Names of the laws to check, as printed; when empty, all."""
    model: Model = dataclasses.field(default_factory=Transformer)


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


def bench(config: str, options: Bench) -> None:
    """Measure training or decoding on this computer. Only the record is kept.

    Of a config: tokens per second, utilisation, padding, waiting for input, start-up, memory. A config without training data is measured on
    the embedded phrases.

    Of a run, which translates its test sentences: sentences and tokens per second at some batch sizes, latency, the first translation,
    memory.

    Examples:
      jaxnmt bench transformer_small
      jaxnmt bench transformer_small --data.train a.en a.de --run-time 60 --json mine.jsonl
      jaxnmt bench runs/quickstart
      jaxnmt bench runs/quickstart --decoding.beam-size 1 --batch-sizes 1 64
    """
    experiment = options.experiment
    if options.json == "-":  # for other names the folder is created with the record
        writable("--json", options.json)
    if directory.is_run(config):
        return _bench_run(config, options)
    if not experiment.data.train:
        say(f"{config} has no training data: measuring on {PHRASES[0]}")
        experiment = replace(experiment, **{"data.train": PHRASES})
    experiment = trainable(config, experiment)
    from jaxnmt.lab import benchmark

    record = benchmark.benchmark(experiment, options.run_time)
    benchmark.append(record, experiment, config, pathlib.Path(options.json))
    print(benchmark.describe(record, config))


def _bench_run(name: str, options: Bench) -> None:
    config_checks.validate(options.experiment)
    run = Run(name, options.checkpoint, weights=options.weights)
    if dataclasses.replace(options.experiment, decoding=run.config.decoding) != run.config:
        raise UserError(f"jaxnmt bench {name} measures decoding: of the run's settings, only those of --decoding can be changed")
    from jaxnmt.lab import benchmark, decoding_benchmark

    record = decoding_benchmark.benchmark(run, options.experiment.decoding, options.batch_sizes, options.run_time)
    benchmark.append(record, options.experiment, name, pathlib.Path(options.json))
    print(decoding_benchmark.describe(record, name))


def laws(config: str, options: Laws) -> int:
    """Check a config's model against the laws, the properties that every model must have. Print a line per law with the measurement.

    The model has its configured size, a small vocabulary and random sentences; it is computed on this machine's CPU in float32. A smaller
    one, with --model.emb-dim 64 and so on, is quicker. The exit status is 1 if a law fails.

    Examples:
      jaxnmt laws quickstart
      jaxnmt laws my_model.py --model.emb-dim 64
      jaxnmt laws my_model.py --only causal padding cached
    """
    experiment = dataclasses.replace(load_config(config), model=options.model)
    config_checks.validate(experiment)
    import jax

    jax.config.update("jax_platforms", "cpu")  # reproducible bits, and eight simulated devices
    from jaxnmt.lab.laws import LAWS, check

    for name in set(options.only) - set(LAWS):
        raise UserError(f"--only {name}: there is no such law; choose from {', '.join(LAWS)}")
    failed = 0
    for name, verdict in check(experiment, options.only):
        failed += verdict.holds is False
        result = {True: "holds", False: "FAILS", None: "does not apply"}[verdict.holds]
        print(f"{result:<16}{name:<13}{LAWS[name].says}: {verdict.measured}", flush=True)
    return int(failed > 0)


def compare(first: str, others: list[str], options: Compare) -> None:
    """Compare systems on one test set: scores with 95 % intervals, paired tests against the first (the baseline), breakdowns, examples.

    A system is a run, which translates its test sentences and keeps the translations, or a file of translations, one per line, from any
    toolkit. Scores, intervals and p-values equal sacreBLEU's, except ROUGE, which it has not.

    Examples:
      jaxnmt compare runs/gru runs/transformer --html page.html
      jaxnmt compare runs/mine theirs.de --test approximate-randomisation
      jaxnmt compare a.de b.de c.de --source test.en --reference test.de --json numbers.json
      jaxnmt compare a.de b.de --source test.en --reference first.de second.de
      jaxnmt compare runs/summary --baselines lead extractive --metrics rouge1 rouge2 rougeL bleu
    """
    if not options.metrics:
        raise UserError(NO_METRICS)
    writable("--html", options.html)
    writable("--json", options.json)
    from jaxnmt.lab import compare as comparison
    from jaxnmt.lab import comparison_report, figures

    names = [first, *others]
    comparison_report.other_system([*names, *options.baselines], options.other)
    test, systems, trained = comparison.gather(names, options, options.baselines, options.baseline_words)
    found = comparison.compare(test, systems, options, trained)
    if options.json:
        write(options.json, json.dumps(found, indent=1, ensure_ascii=False, default=dataclasses.asdict), "--json")
    if options.html:
        write(options.html, comparison_report.page(found, test, systems, options), "--html")
    print(comparison_report.heading(found), end="\n\n")
    figures.show(comparison_report.tables(found))


def visualize(run: str, sentence: str, options: Visualize) -> None:
    """Translate one sentence, or caption one picture, and draw how, as one self-contained HTML file.

    The page has a player that goes through encoder and decoder step by step, the alignment, every layer and head, and the beam as a tree.
    Of a run that predicts labels it shows what each word adds to the label, gradient × input, beside the attention that it gets.
    Of a picture it has the attention over the picture for every word.

    Examples:
      jaxnmt visualize runs/quickstart "one hundred and two" --open
      jaxnmt visualize runs/quickstart "one hundred and two" --output numbers.html --json numbers.json --beam-size 3
      jaxnmt visualize runs/scenes "scenes/en:test#17" --output caption.html
    """
    experiment = directory.read(run)
    config_checks.validate(dataclasses.replace(experiment, decoding=options.decoding))
    if not sentence.strip():
        raise UserError("the sentence has no word: give one to translate, in quotes")
    writable("--output", options.output)
    writable("--json", options.json)
    from jaxnmt.lab.visualize import caption, labels
    from jaxnmt.lab.visualize import record as translations

    drawn = labels if experiment.task.is_label else caption if experiment.task.vectors else translations
    record = drawn.of_run(Run(run, options.checkpoint), sentence, options.decoding)
    write(options.output, drawn.page(record))
    if options.json:
        write(options.json, json.dumps(record, ensure_ascii=False), "--json")
    print(record["prediction" if experiment.task.is_label else "translation"])
    if options.open:
        webbrowser.open(pathlib.Path(options.output).absolute().as_uri())
