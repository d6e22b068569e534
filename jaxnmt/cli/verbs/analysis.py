"""Verbs that measure models and their translations: bench, laws, compare."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Annotated, Literal

from jaxnmt.cli.verbs.common import Flat, writable
from jaxnmt.cli.verbs.drawing import write
from jaxnmt.config import Experiment, Model, NonNegative, Positive, Transformer
from jaxnmt.config import checks as config_checks
from jaxnmt.config.files import load_config
from jaxnmt.errors import UserError
from jaxnmt.lab.systems import Systems
from jaxnmt.parallel.log import say
from jaxnmt.run import trainable

PHRASES = ("phrases/en-fr:train",)  # training data of `bench` if none is given


@dataclasses.dataclass(frozen=True)
class Bench:
    run_time: Positive[float] = 30.0
    """Seconds of training steps to measure, without start-up."""
    json: str = "benchmarks/results.jsonl"
    """File to append the record to, as one line."""
    experiment: Annotated[Experiment, Flat] = dataclasses.field(default_factory=Experiment)


@dataclasses.dataclass(frozen=True)
class Laws:
    only: tuple[str, ...] = ()
    """Names of the laws to check, as printed; when empty, all."""
    model: Model = dataclasses.field(default_factory=Transformer)


@dataclasses.dataclass(frozen=True)
class Compare(Systems):
    test: Literal["paired-bootstrap", "approximate-randomisation"] = "paired-bootstrap"
    """Paired test against the baseline."""
    samples: NonNegative[int] = 0
    """Resamples or trials; 0: sacreBLEU's 1,000 resamples or 10,000 trials."""
    metrics: tuple[Literal["bleu", "chrf", "chrf++", "ter"], ...] = ("bleu", "chrf++", "ter")
    """Metrics with intervals and tests."""
    html: str = ""
    """File for a page with the tables and the sentences that differ most."""
    json: str = ""
    """File for all numbers."""
    other: str = ""
    """System whose sentences the page shows beside the baseline's; when empty, the first after the baseline."""
    examples: NonNegative[int] = 50
    """Maximum number of losses, and of gains, on the page."""


def bench(config: str, options: Bench) -> None:
    """Measure training: tokens per second, utilisation, padding, waiting for input, start-up, memory. Only the record is kept.

    A config without training data is measured on the embedded phrases.

    Examples:
      jaxnmt bench transformer_small
      jaxnmt bench transformer_small --data.train a.en a.de --run-time 60 --json mine.jsonl
    """
    experiment = options.experiment
    if options.json == "-":  # for other names the folder is created with the record
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
    """Check a config's model against the laws, the properties that every model must have. Print a line per law with the measurement.

    The model has its configured size, a small vocabulary and random sentences; it is computed on this machine's CPU in float32. A smaller
    one, with --model.emb-dim 64 and so on, is quicker. The exit status is 1 if a law fails.

    Examples:
      jaxnmt laws quickstart
      jaxnmt laws my_model.py --model.emb-dim 64
      jaxnmt laws my_model.py --only causal padding cached
    """
    config_checks.validate(dataclasses.replace(load_config(config), model=options.model))
    import jax

    jax.config.update("jax_platforms", "cpu")  # reproducible bits, and eight simulated devices
    from jaxnmt.lab.laws import LAWS, check

    for name in set(options.only) - set(LAWS):
        raise UserError(f"--only {name}: there is no such law; choose from {', '.join(LAWS)}")
    failed = 0
    for name, verdict in check(options.model, options.only):
        failed += verdict.holds is False
        result = {True: "holds", False: "FAILS", None: "does not apply"}[verdict.holds]
        print(f"{result:<16}{name:<13}{LAWS[name].says}: {verdict.measured}", flush=True)
    return int(failed > 0)


def compare(first: str, others: list[str], options: Compare) -> None:
    """Compare systems on one test set: scores with 95 % intervals, paired tests against the first (the baseline), breakdowns, examples.

    A system is a run, which translates its test sentences and keeps the translations, or a file of translations, one per line, from any
    toolkit. Scores, intervals and p-values equal sacreBLEU's.

    Examples:
      jaxnmt compare runs/gru runs/transformer --html page.html
      jaxnmt compare runs/mine theirs.de --test approximate-randomisation
      jaxnmt compare a.de b.de c.de --source test.en --reference test.de --json numbers.json
      jaxnmt compare a.de b.de --source test.en --reference first.de second.de
    """
    if not options.metrics:
        raise UserError("--metrics expects at least one of bleu, chrf, chrf++, ter")
    writable("--html", options.html)
    writable("--json", options.json)
    from jaxnmt.lab import comparison_report, tables
    from jaxnmt.lab.compare import compare as compared
    from jaxnmt.lab.compare import gather

    names = [first, *others]
    comparison_report.other_system(names, options.other)
    test, systems, trained = gather(names, options)
    found = compared(test, systems, options.metrics, options.test, options.samples, trained, say)
    if options.json:
        write(options.json, json.dumps(dataclasses.asdict(found), indent=1, ensure_ascii=False), "--json")
    if options.html:
        write(options.html, comparison_report.page(found, test, systems, options.other, options.examples), "--html")
    print(comparison_report.heading(found), end="\n\n")
    tables.show(comparison_report.tables(found))
