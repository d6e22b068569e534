"""The verbs of the `jaxnmt` command: a function each, which wires rooms together, and its options. JAX is imported by those that compute,
after the user's words are checked."""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import sys
from collections.abc import Callable
from typing import Annotated, Any, Literal

import tyro

from jaxnmt import config_checks, config_files, run_directory, text_streams
from jaxnmt.config import Decoding, Experiment, Model, Transformer, UserError

PHRASES = ("phrases/en-fr:train",)  # what `bench` trains on where no data is named
Flat = tyro.conf.arg(name="")  # the nested fields' flags go without a prefix


@dataclasses.dataclass(frozen=True)
class Train:
    run: str = ""
    """Folder of the run; when empty, runs/ and the config's name."""
    experiment: Annotated[Experiment, Flat] = dataclasses.field(default_factory=Experiment)


@dataclasses.dataclass(frozen=True)
class Settings:
    experiment: Annotated[Experiment, Flat] = dataclasses.field(default_factory=Experiment)


@dataclasses.dataclass(frozen=True)
class Translate:
    input: str = ""
    """File to translate, one sentence a line, plain or .gz; when empty, stdin."""
    output: str = ""
    """File to write, whole or not at all; when empty, stdout."""
    checkpoint: int | Literal["best", "latest", "average"] = "best"
    """A step, or best, latest, or average (made by `jaxnmt runs average`)."""
    alignments: Literal["none", "hard", "soft"] = "none"
    """hard: after each translation a tab and its word alignment, `0-0 2-1` (source-target, from 0); soft: a JSON object a line instead."""
    decoding: Annotated[Decoding, Flat] = dataclasses.field(default_factory=Decoding)


@dataclasses.dataclass(frozen=True)
class Evaluate:
    split: Literal["test", "validation"] = "test"
    """Which of the run's own sentences."""
    data: tuple[str, ...] = ()
    """Other sentences to score on: sources, written as for data.test."""
    checkpoint: int | Literal["best", "latest", "average"] = "best"
    """A step, or best, latest, or average (made by `jaxnmt runs average`)."""
    output: str = ""
    """File to write the translations to."""
    json: bool = False
    """Print the scores as JSON."""
    samples: int = 0
    """Show the first so many sentences with reference and translation."""
    decoding: Annotated[Decoding, Flat] = dataclasses.field(default_factory=Decoding)


@dataclasses.dataclass(frozen=True)
class Average:
    last: int = 5
    """How many of the newest checkpoints."""


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


@dataclasses.dataclass(frozen=True)
class NoOptions:
    pass


def train(config: str, options: Train) -> None:
    """Train a model; the same command on an existing run takes it up again.

    Examples:
      jaxnmt train quickstart
      jaxnmt train transformer_small --data.train a.en a.de --training.steps 5000
      jaxnmt train multi30k --run runs/wide --model.emb-dim 512 --model.num-heads 8
    """
    _train(_run_folder(config, options), _trainable(config, options.experiment))


def resume(run: str, options: Settings) -> None:
    """Take a run up again where its last checkpoint left it. Settings that do not change the training may be given.

    Examples:
      jaxnmt resume runs/quickstart
      jaxnmt resume runs/quickstart --training.steps 2000
    """
    _train(pathlib.Path(run), _trainable(run, options.experiment))


def translate(run: str, options: Translate) -> None:
    """Translate text, one sentence a line, in its order: from stdin to stdout, or files.

    With --n-best above 1, each translation is a line `sentence number TAB score TAB text`, best first.

    With --alignments hard, `TAB word alignment` follows; with soft, each translation is a JSON object with sentence, score, translation,
    source and target words, and weights: for each target word how much it looks at each source word.

    Examples:
      echo "one hundred and two" | jaxnmt translate runs/quickstart
      echo "one hundred and two" | jaxnmt translate runs/quickstart --alignments hard
      jaxnmt translate runs/quickstart --input a.en --output a.fr --beam-size 8
      jaxnmt translate runs/quickstart --n-best 3 < a.en
    """
    decoding = options.decoding
    config_checks.validate(dataclasses.replace(run_directory.read(run), decoding=decoding))
    windows = text_streams.windows(options.input, decoding.batch_size * 16)
    with text_streams.writer(options.output) as write:
        translator = _translator(run, options.checkpoint)
        align = _aligner(translator, options)
        done = 0
        for lines in windows:
            found = translator.translate(lines, decoding, done + 1)
            for number, (candidates, aligned) in enumerate(zip(found, align(lines, found), strict=True), done + 1):
                for candidate, alignment in zip(candidates, aligned, strict=True):
                    write(_translation_line(number, candidate, alignment, options))
            done += len(lines)
            _say(f"{done:,} sentences translated")


def evaluate(run: str, options: Evaluate) -> None:
    """Translate a run's test sentences and score them: BLEU, chrF++ and TER by sacreBLEU, with signatures.

    Examples:
      jaxnmt evaluate runs/quickstart
      jaxnmt evaluate runs/quickstart --split validation --beam-size 1
      jaxnmt evaluate runs/quickstart --data other.en other.fr --json True
    """
    experiment = dataclasses.replace(run_directory.read(run), decoding=options.decoding)
    config_checks.validate(experiment)
    from jaxnmt.evaluation.scores import score
    from jaxnmt.evaluation.test_sets import open_test_set

    test = open_test_set(experiment, pathlib.Path(run), options.split, options.data)
    translator = _translator(run, options.checkpoint)
    _say(f"translating {len(test.sources):,} sentences of {test.name}")
    hypotheses = [candidates[0].text for candidates in translator.translate(test.sources, options.decoding)]
    if options.output:
        with text_streams.writer(options.output) as write:
            for hypothesis in hypotheses:
                write(hypothesis)
    for rows in list(zip(test.sources, test.references, hypotheses, strict=True))[: options.samples]:
        print("\n".join(f"{name:<13}{text}" for name, text in zip(("source", "reference", "translation"), rows, strict=True)) + "\n")
    scores = score(hypotheses, test.references, test.pretokenized, test.languages)
    print(json.dumps({"data": test.name, **dataclasses.asdict(scores)}, indent=2, ensure_ascii=False) if options.json else scores)


def data_prepare(config: str, options: Train) -> None:
    """Clean, train the tokenizer and tokenise now, so that training starts at once.

    Examples:
      jaxnmt data prepare wmt14_base
      jaxnmt data prepare transformer_small --data.train a.en a.de --run runs/mine
    """
    run, experiment = _run_folder(config, options), _trainable(config, options.experiment)
    run_directory.start(run, experiment)
    from jaxnmt.data.prepared import prepare

    prepare(experiment, run / "tokenizer", say=_say)
    _say(f"ready: `jaxnmt resume {run}` trains on it")


def data_check(first: str, second: str | None, options: Settings) -> None:
    """Read sentence pairs and report what cleaning would drop: how many for each reason, and where.

    Examples:
      jaxnmt data check a.en a.de
      jaxnmt data check pairs.tsv.gz --data.cleaning.max-ratio 4
      jaxnmt data check quickstart
    """
    words = tuple(filter(None, (first, second))) if second or _is_text(first) else options.experiment.data.train
    if not words:
        raise UserError(f"config {first} has no training data; give yours with --data.train a.en a.de")
    from jaxnmt.data.check import check
    from jaxnmt.data.sources import open_sources

    print(check(open_sources(words, "data.train"), options.experiment.data.cleaning))


def runs_show(run: str, options: NoOptions) -> None:
    """Show a run's settings, progress and scores; or one line for each run of a folder.

    Examples:
      jaxnmt runs show runs/quickstart
      jaxnmt runs show runs
    """
    from jaxnmt.run_summary import show

    print(show(pathlib.Path(run)))


def runs_average(run: str, options: Average) -> None:
    """Average the parameters of a run's newest checkpoints; translate and evaluate take the result as `--checkpoint average`.

    A run keeps two checkpoints and the best one, unless it is told to keep more: --checkpoints.keep-latest 5.

    Examples:
      jaxnmt runs average runs/quickstart
      jaxnmt runs average runs/quickstart --last 10
    """
    run_directory.read(run)
    if options.last < 1:
        raise UserError(f"--last expects a number above 0, not {options.last}")
    from jaxnmt.training.averaging import average

    print(average(pathlib.Path(run), last=options.last))


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
        _say(f"{config} has no training data: measuring on {PHRASES[0]}")
        experiment = dataclasses.replace(experiment, data=dataclasses.replace(experiment.data, train=PHRASES))
    experiment = _trainable(config, experiment)
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


def _run_folder(config: str, options: Train) -> pathlib.Path:
    name = pathlib.Path(config).stem if config.endswith(".py") else config.replace("-", "_")
    return pathlib.Path(options.run or pathlib.Path("runs") / name)


def _trainable(name: str, experiment: Experiment) -> Experiment:
    """The experiment, checked, its files named so that a run can be taken up from any folder."""
    config_checks.validate(experiment)
    if not experiment.data.train:
        raise UserError(f"{name} has no training data; give yours with --data.train a.en a.de")
    return config_files.with_absolute_paths(experiment)


def _train(run: pathlib.Path, experiment: Experiment) -> None:
    existed = run_directory.start(run, experiment)
    _say(f"{'taking up' if existed else 'starting'} the run {run}")
    try:
        from jaxnmt.evaluation.validation import ValidationTranslator
        from jaxnmt.training.loop import train

        train(experiment, run, translate=ValidationTranslator())
    except KeyboardInterrupt as interrupt:  # the loop says what it saved; before it began there was nothing to save
        raise KeyboardInterrupt(str(interrupt) or f"`jaxnmt resume {run}` goes on from the last checkpoint") from None


def _translator(run: str, checkpoint: int | str) -> Any:
    from jaxnmt.decoding.translator import Translator

    return Translator.from_run(pathlib.Path(run), checkpoint=checkpoint)


def _aligner(translator: Any, options: Translate) -> Callable[[list[str], Any], Any]:
    """(lines, their translations) -> an alignment for each translation; without --alignments anything of that shape."""
    if options.alignments == "none":
        return lambda lines, found: found
    from jaxnmt.decoding.alignments import Aligner

    return functools.partial(Aligner(translator).align, rows=options.decoding.batch_size)


def _translation_line(number: int, translation: Any, alignment: Any, options: Translate) -> str:
    if options.alignments == "soft":
        return alignment.soft(number, translation)
    line = f"{number}\t{translation.score:.4f}\t{translation.text}" if options.decoding.n_best > 1 else translation.text
    return f"{line}\t{alignment.pharaoh()}" if options.alignments == "hard" else line


def _is_text(name: str) -> bool:
    """Whether a word of `data check` names text, a file or a dataset, rather than a config."""
    is_config = name.endswith(".py") or name.replace("-", "_") in config_files.shipped()
    return not is_config and (any(mark in name for mark in "./,:") or pathlib.Path(name).is_file())


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # stdout is for results


@dataclasses.dataclass(frozen=True)
class Verb:
    """A verb's function, the names it takes first, and its options: their defaults, and where these come from once a name is given."""

    function: Callable[..., int | None]
    takes: tuple[str, ...]
    blank: Any
    given: Callable[[str], Any] | None = None


def _settings_of(name: str) -> Settings:
    return Settings() if _is_text(name) else Settings(config_files.load(name))


VERBS = {
    "train": Verb(train, ("CONFIG",), Train(), lambda config: Train(experiment=config_files.load(config))),
    "resume": Verb(resume, ("RUN",), Settings(), lambda run: Settings(run_directory.read(run))),
    "translate": Verb(translate, ("RUN",), Translate(), lambda run: Translate(decoding=run_directory.read(run).decoding)),
    "evaluate": Verb(evaluate, ("RUN",), Evaluate(), lambda run: Evaluate(decoding=run_directory.read(run).decoding)),
    "data prepare": Verb(data_prepare, ("CONFIG",), Train(), lambda config: Train(experiment=config_files.load(config))),
    "data check": Verb(data_check, ("SOURCE|CONFIG", "[TARGET]"), Settings(), _settings_of),
    "runs show": Verb(runs_show, ("RUN|FOLDER",), NoOptions()),
    "runs average": Verb(runs_average, ("RUN",), Average()),
    "bench": Verb(bench, ("CONFIG",), Bench(), lambda config: Bench(experiment=config_files.load(config))),
    "laws": Verb(laws, ("CONFIG",), Laws(), lambda config: Laws(model=config_files.load(config).model)),
}
