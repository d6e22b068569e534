"""Verbs that measure and show models: bench, laws."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Annotated

from jaxnmt import config_checks, config_files
from jaxnmt.config import Experiment, Model, Transformer, UserError
from jaxnmt.verbs.common import Flat, say, trainable

PHRASES = ("phrases/en-fr:train",)  # what `bench` trains on where no data is named


@dataclasses.dataclass(frozen=True)
class Bench:
    run_time: float = 30.0
    """Seconds of training steps to measure, starting up not counted."""
    json: str = "benchmarks/results.jsonl"
    """File that the record is added to, as one line."""
    experiment: Annotated[Experiment, Flat] = dataclasses.field(default_factory=Experiment)


@dataclasses.dataclass(frozen=True)
class Laws:
    only: tuple[str, ...] = ()
    """Names of the laws to check, as the lines name them; when empty, all."""
    model: Model = dataclasses.field(default_factory=Transformer)


def bench(config: str, options: Bench) -> None:
    """Measure training: tokens a second, utilisation, padding, waiting for input, starting up, memory. Nothing is kept but the record.

    A config without training data is measured on the embedded phrases.

    Examples:
      jaxnmt bench transformer_small
      jaxnmt bench transformer_small --data.train a.en a.de --run-time 60 --json mine.jsonl
    """
    experiment = options.experiment
    if options.run_time <= 0:
        raise UserError(f"--run-time expects a number of seconds above 0, not {options.run_time:g}")
    if not experiment.data.train:
        say(f"{config} has no training data: measuring on {PHRASES[0]}")
        experiment = dataclasses.replace(experiment, data=dataclasses.replace(experiment.data, train=PHRASES))
    experiment = trainable(config, experiment)
    from jaxnmt.analysis import benchmark

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
    config_checks.validate(dataclasses.replace(config_files.load(config), model=options.model))
    import jax

    jax.config.update("jax_platforms", "cpu")  # the same bits again and again, and eight devices wherever there is one
    from jaxnmt.analysis.laws import LAWS, check
    from jaxnmt.training.programs import use_compilation_cache

    for name in set(options.only) - set(LAWS):
        raise UserError(f"--only {name}: there is no such law; the laws are {', '.join(LAWS)}")
    use_compilation_cache()
    failed = 0
    for name, verdict in check(options.model, options.only):
        failed += verdict.holds is False
        told = {True: "holds", False: "FAILS", None: "does not apply"}[verdict.holds]
        print(f"{told:<16}{name:<13}{LAWS[name].says}: {verdict.measured}", flush=True)
    return int(failed > 0)
