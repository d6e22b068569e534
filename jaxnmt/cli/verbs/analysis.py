"""Verbs that measure models and what they translate: bench, laws, compare."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Annotated, Literal

from jaxnmt.cli.verbs.common import Checkpoint, Flat, Tokenize, say, trainable, writable
from jaxnmt.config import Experiment, Model, NonNegative, Positive, Transformer
from jaxnmt.config import checks as config_checks
from jaxnmt.config.files import load_config
from jaxnmt.errors import UserError
from jaxnmt.io import text_streams

PHRASES = ("phrases/en-fr:train",)  # what `bench` trains on where no data is named


@dataclasses.dataclass(frozen=True)
class Bench:
    run_time: Positive[float] = 30.0
    """Seconds of training steps to measure, starting up not counted."""
    json: str = "benchmarks/results.jsonl"
    """File that the record is added to, as one line."""
    experiment: Annotated[Experiment, Flat] = dataclasses.field(default_factory=Experiment)


@dataclasses.dataclass(frozen=True)
class Laws:
    only: tuple[str, ...] = ()
    """Names of the laws to check, as the lines name them; when empty, all."""
    model: Model = dataclasses.field(default_factory=Transformer)


@dataclasses.dataclass(frozen=True)
class Compare:
    source: str = ""
    """File of source sentences; when empty, with --reference empty too, the first run's test sentences."""
    reference: tuple[str, ...] = ()
    """File of their reference translations, or several files, one for each reference."""
    test: Literal["paired-bootstrap", "approximate-randomisation"] = "paired-bootstrap"
    """The paired test against the baseline."""
    samples: NonNegative[int] = 0
    """Resamples, or trials; 0: sacreBLEU's 1,000, or 10,000."""
    metrics: tuple[Literal["bleu", "chrf", "chrf++", "ter"], ...] = ("bleu", "chrf++", "ter")
    """Metrics with intervals and tests."""
    html: str = ""
    """File to write a page to: the tables, and the sentences that differ most."""
    json: str = ""
    """File to write all numbers to."""
    other: str = ""
    """The system whose sentences the page shows beside the baseline's; when empty, the first after it."""
    examples: NonNegative[int] = 50
    """Losses, and gains, that the page shows."""
    split: Literal["test", "validation"] = "test"
    """Which of the runs' own sentences."""
    checkpoint: Checkpoint = "best"
    """Of the runs: a step, or best, latest, or average (made by `jaxnmt runs average`)."""
    beam_size: NonNegative[int] = 0
    """Of the runs; 0: as each run's settings say."""
    pretokenized: bool = False
    """The text of --reference and of the files is already split by spaces: BLEU counts the words as they stand (tokenize=none)."""
    target_language: str = ""
    """Code of the references' language; when empty, as the file's name ends (test.de: de), or the run's."""
    tokenize: Tokenize = ""
    """BLEU's tokenizer, by sacreBLEU's name; when empty, chosen by the references' script and language."""


def bench(config: str, options: Bench) -> None:
    """Measure training: tokens a second, utilisation, padding, waiting for input, starting up, memory. Nothing is kept but the record.

    A config without training data is measured on the embedded phrases.

    Examples:
      jaxnmt bench transformer_small
      jaxnmt bench transformer_small --data.train a.en a.de --run-time 60 --json mine.jsonl
    """
    experiment = options.experiment
    if options.json == "-":  # of other names the folder is made, with the record
        writable("--json", options.json)
    if not experiment.data.train:
        say(f"{config} has no training data: measuring on {PHRASES[0]}")
        experiment = dataclasses.replace(experiment, data=dataclasses.replace(experiment.data, train=PHRASES))
    experiment = trainable(config, experiment)
    from jaxnmt.lab import benchmark

    record = benchmark.benchmark(experiment, options.run_time)
    benchmark.append(record, experiment, config, pathlib.Path(options.json))
    print(benchmark.describe(record, config))


def laws(config: str, options: Laws) -> int:
    """Check what must be true of every model of a config's model: a line a law, whether it holds, and what was measured.

    The model is as large as it is configured, its vocabulary small, its sentences random, the computation on this machine's CPU and in
    float32; a smaller one, --model.emb-dim 64 and so on, is quicker. The exit status is 1 if a law fails.

    Examples:
      jaxnmt laws quickstart
      jaxnmt laws my_model.py --model.emb-dim 64
      jaxnmt laws my_model.py --only causal padding cached
    """
    config_checks.validate(dataclasses.replace(load_config(config), model=options.model))
    import jax

    jax.config.update("jax_platforms", "cpu")  # the same bits again and again, and eight devices wherever there is one
    from jaxnmt.lab.laws import LAWS, check

    for name in set(options.only) - set(LAWS):
        raise UserError(f"--only {name}: there is no such law; the laws are {', '.join(LAWS)}")
    failed = 0
    for name, verdict in check(options.model, options.only):
        failed += verdict.holds is False
        told = {True: "holds", False: "FAILS", None: "does not apply"}[verdict.holds]
        print(f"{told:<16}{name:<13}{LAWS[name].says}: {verdict.measured}", flush=True)
    return int(failed > 0)


def compare(first: str, others: list[str], options: Compare) -> None:
    """Compare systems on one test set: scores with 95 % intervals, paired tests against the first (the baseline), and where they differ.

    A system is a run, which translates its test sentences and keeps the translations, or a file of translations, one a line, by any
    toolkit. Scores, intervals and p are sacreBLEU's, to the digit.

    Examples:
      jaxnmt compare runs/gru runs/transformer --html page.html
      jaxnmt compare runs/mine theirs.de --test approximate-randomisation
      jaxnmt compare a.de b.de c.de --source test.en --reference test.de --json numbers.json
      jaxnmt compare a.de b.de --source test.en --reference first.de second.de
    """
    if not options.metrics:
        raise UserError("--metrics expects at least one metric")
    writable("--html", options.html)
    writable("--json", options.json)
    from jaxnmt.lab import comparison_report, tables
    from jaxnmt.lab.compare import Settings, gather
    from jaxnmt.lab.compare import compare as compared

    names = [first, *others]
    comparison_report.other_system(names, options.other)
    wanted = {field.name: getattr(options, field.name) for field in dataclasses.fields(Settings)}
    test, systems, trained = gather(names, Settings(**wanted), say)
    found = compared(test, systems, options.metrics, options.test, options.samples, trained, say)
    if options.json:
        _write("--json", options.json, json.dumps(dataclasses.asdict(found), indent=1, ensure_ascii=False))
    if options.html:
        _write("--html", options.html, comparison_report.page(found, test, systems, options.other, options.examples))
    print(comparison_report.heading(found), end="\n\n")
    tables.show(comparison_report.tables(found))


def _write(flag: str, name: str, text: str) -> None:
    with text_streams.writer(name, flag) as write:
        write(text)
    say(f"written: {name}")
