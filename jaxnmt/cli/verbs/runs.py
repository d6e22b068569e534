"""Verbs of one run: train, resume, data prepare, data check, runs show, runs average, translate, evaluate."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from jaxnmt.cli.verbs.common import Flat, NoOptions, Settings, writable
from jaxnmt.config import Decoding, Experiment, Input, NonNegative, Positive, checks
from jaxnmt.config.files import shipped_configs
from jaxnmt.errors import UserError
from jaxnmt.evaluation.tokenization import Tokenize
from jaxnmt.io import streams
from jaxnmt.parallel import compiler, distributed
from jaxnmt.parallel.log import say
from jaxnmt.run import Checkpoint, Run
from jaxnmt.runs import directory
from jaxnmt.training_run import begun, run_folder, train_folder, trainable

if TYPE_CHECKING:
    from jaxnmt.training.hooks import Hook


# ---- train, resume, data, runs


@dataclasses.dataclass(frozen=True)
class Prepare:
    run: str = ""
    """Folder of the run; when empty, runs/ and the config's name."""
    experiment: Annotated[Experiment, Flat] = dataclasses.field(default_factory=Experiment)


@dataclasses.dataclass(frozen=True)
class Train:
    run: str = ""
    """Folder of the run; when empty, runs/ and the config's name."""
    profile: str = ""
    """Trace these steps with JAX's profiler into the run's folder profile, such as 20:25 (the first and the last step)."""
    explain_sharding: bool = False
    """Only print how each parameter is sharded over the devices, and how much of it they hold; nothing is trained."""
    experiment: Annotated[Experiment, Flat] = dataclasses.field(default_factory=Experiment)


@dataclasses.dataclass(frozen=True)
class Resume:
    profile: str = ""
    """Trace these steps with JAX's profiler into the run's folder profile, such as 1020:1025 (the first and the last step)."""
    experiment: Annotated[Experiment, Flat] = dataclasses.field(default_factory=Experiment)


@dataclasses.dataclass(frozen=True)
class Average:
    last: Positive[int] = 5
    """Number of latest checkpoints to average."""


def train(config: str, options: Train) -> None:
    """Train a model; the same command on an existing run resumes from its last checkpoint.

    Examples:
      jaxnmt train quickstart
      jaxnmt train transformer_small --data.train a.en a.de --training.steps 5000
      jaxnmt train multi30k --run runs/wide --model.emb-dim 512 --model.num-heads 8
      jaxnmt train wmt14_big --mesh.fsdp 8 --explain-sharding
      jaxnmt train quickstart --profile 20:25
    """
    if options.explain_sharding:
        return _explain_sharding(config, options)
    run, experiment = run_folder(config, options.run), trainable(config, options.experiment)
    train_folder(run, experiment, _profile(options.profile, run), progress=True, signals=True)


def _profile(steps: str, run: pathlib.Path) -> list[Hook]:
    """Return the hook of `--profile`, if it is given."""
    if not steps:
        return []
    first, _, last = steps.partition(":")
    if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
        raise UserError(f"--profile {steps}: give the first and the last step to trace, such as 20:25")
    from jaxnmt.training.hooks import Profile

    return [Profile(int(first), int(last), run / "profile")]


def resume(run: str, options: Resume) -> None:
    """Resume a run from its last checkpoint. Settings that do not change the training may be changed.

    Examples:
      jaxnmt resume runs/quickstart
      jaxnmt resume runs/quickstart --training.steps 2000
    """
    folder, experiment = directory.folder(run), trainable(run, options.experiment)
    train_folder(folder, experiment, _profile(options.profile, folder), progress=True, signals=True)


def data_prepare(config: str, options: Prepare) -> None:
    """Clean, train the tokenizer and tokenise now, so that training starts at once.

    Examples:
      jaxnmt data prepare wmt14_base
      jaxnmt data prepare transformer_small --data.train a.en a.de --run runs/mine
    """
    run, experiment = run_folder(config, options.run), trainable(config, options.experiment)
    distributed.initialize()
    with begun(run, experiment):
        from jaxnmt.data.prepared import prepare

        with distributed.leader_first("prepare the data"):
            prepare(experiment, run / "tokenizer", say=say)
    say(f"ready: `jaxnmt resume {run}` trains on it")


def data_check(first: str, second: str | None, options: Settings) -> None:
    """Read sentence pairs and report what cleaning would drop: how many for each reason, and where.

    Examples:
      jaxnmt data check a.en a.de
      jaxnmt data check pairs.tsv.gz --data.cleaning.max-ratio 4
      jaxnmt data check quickstart
    """
    checks.validate(options.experiment)
    from jaxnmt.data.cleaning import check
    from jaxnmt.data.sources import open_sources, sources_of

    experiment, words = options.experiment, tuple(filter(None, (first, second)))
    sources = open_sources(words, "data.train") if second or is_text(first) else sources_of(experiment.data, "train")
    if not sources:
        raise UserError(f"config {first} has no training data; give yours with --data.train a.en a.de")
    print(check(sources, experiment.data.cleaning, experiment.tokenizer.normalization))


def runs_show(run: str, options: NoOptions) -> None:
    """Show a run's settings, progress and scores; or one line for each run of a folder.

    Examples:
      jaxnmt runs show runs/quickstart
      jaxnmt runs show runs
    """
    print(directory.show(directory.folder(run)))


def runs_average(run: str, options: Average) -> None:
    """Average the parameters of a run's newest checkpoints; translate and evaluate use the result with `--checkpoint average`.

    A run keeps two checkpoints and the best one; --checkpoints.keep-latest 5 keeps more.

    Examples:
      jaxnmt runs average runs/quickstart
      jaxnmt runs average runs/quickstart --last 10
    """
    opened = Run(run)
    steps = ", ".join(map(str, opened.average(options.last)))
    place = opened.folder / directory.AVERAGE
    print(f"averaged checkpoints {steps} into {place}; `jaxnmt translate {run} --checkpoint average` uses it, and evaluate likewise")


def check_training(name: str, options: Train | Resume | Prepare) -> None:
    """Check the settings of a run before it begins.

    Raises:
        UserError: settings are invalid or contradict each other, or there is no training data.
    """
    if isinstance(options, Train) and options.explain_sharding:  # it needs no training data
        checks.validate(options.experiment)
    else:
        trainable(name, options.experiment)


def _explain_sharding(config: str, options: Train) -> None:
    checks.validate(options.experiment)
    distributed.initialize()
    from jaxnmt.lab import figures
    from jaxnmt.lab.plan.workload import Lengths
    from jaxnmt.lab.sharding_table import explain

    compiler.check()
    table = explain(options.experiment, Lengths(options.experiment, run_folder(config, options.run), say).vocabularies)
    if distributed.is_leader():
        figures.show([table])


def is_text(name: str) -> bool:
    """Return whether a word of `data check` names text, a file or a dataset, and not a config."""
    is_config = name.endswith(".py") or name.replace("-", "_") in shipped_configs()
    return not is_config and (any(mark in name for mark in "./,:") or pathlib.Path(name).is_file())


# ---- translate, evaluate


@dataclasses.dataclass(frozen=True)
class Translate(Input):
    input: str = ""
    """File to translate, one sentence a line, plain or compressed; stdin if empty or -."""
    output: str = ""
    """File to write, whole or not at all; stdout if empty or -."""
    checkpoint: Checkpoint = "best"
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
    references: tuple[str, ...] = ()
    """Files of further reference translations of the same sentences; all are scored together."""
    target_language: str = ""
    """Code of the references' language; when empty, the run's."""
    tokenize: Tokenize = ""
    """BLEU's tokenizer, by sacreBLEU's name; when empty, chosen by the references' script and language."""
    checkpoint: Checkpoint = "best"
    """A step, or best, latest, or average (made by `jaxnmt runs average`)."""
    output: str = ""
    """File to write the translations to."""
    json: bool = False
    """Print the scores as JSON."""
    samples: NonNegative[int] = 0
    """Show this many sentences, the first ones, with reference and translation."""
    decoding: Annotated[Decoding, Flat] = dataclasses.field(default_factory=Decoding)


def translate(run: str, options: Translate) -> None:
    """Translate text, one sentence a line, in its order: from stdin to stdout, or files.

    With --n-best above 1, each translation is a line `sentence number TAB score TAB text`, best first.

    With --alignments hard, `TAB word alignment` follows; with soft, each translation is a JSON object with sentence, score, translation,
    source and target words, and weights: one row per target word, with its attention on each source word.

    Examples:
      echo "one hundred and two" | jaxnmt translate runs/quickstart
      echo "one hundred and two" | jaxnmt translate runs/quickstart --alignments hard
      jaxnmt translate runs/quickstart --input a.en --output a.fr --beam-size 8
      jaxnmt translate runs/quickstart --n-best 3 < a.en
      echo "one <b>hundred</b> and two" | jaxnmt translate runs/quickstart --format html
    """
    decoding = options.decoding
    checked(run, options)
    if options.alignments != "none" and (options.format == "html" or options.protect):
        raise UserError(f"--alignments {options.alignments} is for text without markup: leave out --format html and --protect")
    distributed.initialize()
    with distributed.leader_first("read the input"):
        lines_at_hand = streams.line_batches(options.input, decoding.batch_size * 16) if distributed.is_leader() else iter(())
    windows = distributed.from_leader("lines", lines_at_hand)
    with _writer(options.output) as write:
        opened, done = Run(run, options.checkpoint), 0
        translator, aligner = (
            opened.translator_of(options),
            opened.aligner if options.alignments != "none" else None,
        )  # before a line is waited for
        for lines in windows:
            found = translator.translate(lines, decoding, done + 1)
            alignments: Any = aligner.align(lines, found, decoding.batch_size) if aligner else found
            for number, (candidates, aligned) in enumerate(zip(found, alignments, strict=True), done + 1):
                for candidate, alignment in zip(candidates, aligned, strict=True):
                    write(_translation_line(number, candidate, alignment, options))
            done += len(lines)
            say(f"{done:,} sentences translated")


def checked(run: str, options: Translate | Evaluate) -> None:
    """Check the run and the decoding options of this command.

    Raises:
        UserError: it is not a run, or settings contradict each other.
    """
    checks.validate(dataclasses.replace(directory.read(run), decoding=options.decoding))


def evaluate(run: str, options: Evaluate) -> None:
    """Translate a run's test sentences and score them: BLEU, chrF++ and TER by sacreBLEU, with signatures.

    Examples:
      jaxnmt evaluate runs/quickstart
      jaxnmt evaluate runs/quickstart --split validation --beam-size 1
      jaxnmt evaluate runs/quickstart --data other.en other.fr --json True
      jaxnmt evaluate runs/mine --data test.en first.de --references second.de third.de
    """
    checked(run, options)
    writable("--output", options.output)
    distributed.initialize()
    opened = Run(run, options.checkpoint)
    test = opened.test_set(options.split, options.data, options.references, options.target_language, options.tokenize)
    translator = opened.translator
    with _writer(options.output) if options.output else contextlib.nullcontext(str) as write:
        say(f"translating {len(test.sources):,} sentences of {test.name}")
        hypotheses = [candidates[0].text for candidates in translator.translate(test.sources, options.decoding)]
        for hypothesis in hypotheses:
            write(hypothesis)
    if not distributed.is_leader():
        return
    names = ("source", *["reference"] * len(test.references), "translation")
    for rows in list(zip(test.sources, *test.references, hypotheses, strict=True))[: options.samples]:
        print("\n".join(f"{name:<13}{text}" for name, text in zip(names, rows, strict=True)) + "\n")
    scores = test.score(hypotheses)
    print(json.dumps({"data": test.name, **dataclasses.asdict(scores)}, indent=2, ensure_ascii=False) if options.json else scores)


def _writer(output: str) -> contextlib.AbstractContextManager[Callable[[str], object]]:
    """Return what writes lines in process 0; the other processes write nothing."""
    return streams.line_writer(output) if distributed.is_leader() else contextlib.nullcontext(lambda line: None)


def _translation_line(number: int, translation: Any, alignment: Any, options: Translate) -> str:
    if options.alignments == "soft":
        return alignment.soft(number, translation)
    line = f"{number}\t{translation.score:.4f}\t{translation.text}" if options.decoding.n_best > 1 else translation.text
    return f"{line}\t{alignment.pharaoh()}" if options.alignments == "hard" else line
