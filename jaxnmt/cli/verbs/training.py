"""Verbs that make a run and look after it: train, resume, data prepare, data check, runs show, runs average."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Annotated

from jaxnmt.cli.verbs.common import Flat, NoOptions, Settings, run_folder, say, trainable
from jaxnmt.config import Experiment, Positive, replace
from jaxnmt.config import checks as config_checks
from jaxnmt.config.files import changed_fields, load_config, shipped_configs
from jaxnmt.errors import UserError
from jaxnmt.parallel import compiler, distributed
from jaxnmt.runs import directory as run_directory


@dataclasses.dataclass(frozen=True)
class Prepare:
    run: str = ""
    """Folder of the run; when empty, runs/ and the config's name."""
    experiment: Annotated[Experiment, Flat] = dataclasses.field(default_factory=Experiment)


@dataclasses.dataclass(frozen=True)
class Train:
    run: str = ""
    """Folder of the run; when empty, runs/ and the config's name."""
    explain_sharding: bool = False
    """Only print how each parameter lies on the devices, and what they hold of it; nothing is trained."""
    experiment: Annotated[Experiment, Flat] = dataclasses.field(default_factory=Experiment)


@dataclasses.dataclass(frozen=True)
class Average:
    last: Positive[int] = 5
    """Number of latest checkpoints to average."""


def train(config: str, options: Train) -> None:
    """Train a model; the same command on an existing run goes on from its last checkpoint.

    Examples:
      jaxnmt train quickstart
      jaxnmt train transformer_small --data.train a.en a.de --training.steps 5000
      jaxnmt train multi30k --run runs/wide --model.emb-dim 512 --model.num-heads 8
      jaxnmt train wmt14_big --mesh.fsdp 8 --explain-sharding
    """
    if options.explain_sharding:
        return _explain_sharding(config, options)
    _train(run_folder(config, options.run), trainable(config, options.experiment))


def resume(run: str, options: Settings) -> None:
    """Go on with a run from its last checkpoint. Settings that do not change the training may be given.

    Examples:
      jaxnmt resume runs/quickstart
      jaxnmt resume runs/quickstart --training.steps 2000
    """
    _train(run_directory.folder(run), trainable(run, options.experiment))


def data_prepare(config: str, options: Prepare) -> None:
    """Clean, train the tokenizer and tokenise now, so that training starts at once.

    Examples:
      jaxnmt data prepare wmt14_base
      jaxnmt data prepare transformer_small --data.train a.en a.de --run runs/mine
    """
    run, experiment = run_folder(config, options.run), trainable(config, options.experiment)
    distributed.join()
    with _begun(run, experiment):
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
    config_checks.validate(options.experiment)
    words = tuple(filter(None, (first, second))) if second or is_text(first) else options.experiment.data.train
    if not words:
        raise UserError(f"config {first} has no training data; give yours with --data.train a.en a.de")
    from jaxnmt.data.check import check
    from jaxnmt.data.sources import open_sources

    experiment = options.experiment
    print(check(open_sources(words, "data.train"), experiment.data.cleaning, experiment.tokenizer.normalization))


def runs_show(run: str, options: NoOptions) -> None:
    """Show a run's settings, progress and scores; or one line for each run of a folder.

    Examples:
      jaxnmt runs show runs/quickstart
      jaxnmt runs show runs
    """
    from jaxnmt.runs.summary import show

    print(show(run_directory.folder(run)))


def runs_average(run: str, options: Average) -> None:
    """Average the parameters of a run's newest checkpoints; translate and evaluate take the result as `--checkpoint average`.

    A run keeps two checkpoints and the best one, unless it is told to keep more: --checkpoints.keep-latest 5.

    Examples:
      jaxnmt runs average runs/quickstart
      jaxnmt runs average runs/quickstart --last 10
    """
    run_directory.read(run)
    from jaxnmt.training.averaging import average

    compiler.check()
    print(average(run_directory.folder(run), last=options.last))


def _explain_sharding(config: str, options: Train) -> None:
    config_checks.validate(options.experiment)
    distributed.join()
    from jaxnmt.lab import tables
    from jaxnmt.lab.plan.workload import Lengths
    from jaxnmt.lab.sharding_table import explain

    compiler.check()
    table = explain(options.experiment, Lengths(options.experiment, run_folder(config, options.run), say).vocabularies)
    if distributed.is_leader():
        tables.show([table])


@contextlib.contextmanager
def _begun(run: pathlib.Path, experiment: Experiment) -> Iterator[str]:
    """Make or open a run's folder in process 0, which locks it while the block lasts. Yields what was found, in words, there."""
    found = ""
    with contextlib.ExitStack() as stack:
        with distributed.leader_first("begin the run"):
            if distributed.is_leader():
                stack.enter_context(run_directory.held(run, say))
                found = _found(run)
                run_directory.start(run, experiment, _moved(run, experiment))
            elif not (run / run_directory.CONFIG).exists():
                raise UserError(f"{run} is not there, though process 0 has just written it: all processes must see the run's folder")
        yield found


def _found(run: pathlib.Path) -> str:
    """Return where training begins, and which save an earlier session did not finish."""
    complete, unfinished = run_directory.checkpoints(run), run_directory.unfinished_saves(run)
    lost = f"; the save of step {unfinished[-1]:,} was not finished" if unfinished else ""
    if complete:
        return f"resuming the run {run} from checkpoint {complete[-1]:,}{lost}"
    again = " from the beginning: it has no complete checkpoint" if (run / run_directory.CONFIG).exists() else ""
    return f"starting the run {run}{again}{lost}"


def _train(run: pathlib.Path, experiment: Experiment) -> None:
    distributed.join(stops_together=True)
    with _begun(run, experiment) as found:
        say(found)
        try:
            from jaxnmt.evaluation.validation import ValidationTranslator
            from jaxnmt.training.loop import train

            train(experiment, run, translate=ValidationTranslator())
        except KeyboardInterrupt as interrupt:  # the loop says what it saved; before it began there was nothing to save
            raise KeyboardInterrupt(str(interrupt) or f"`jaxnmt resume {run}` goes on from the last checkpoint") from None


def is_text(name: str) -> bool:
    """Whether a word of `data check` names text, a file or a dataset, rather than a config."""
    is_config = name.endswith(".py") or name.replace("-", "_") in shipped_configs()
    return not is_config and (any(mark in name for mark in "./,:") or pathlib.Path(name).is_file())


def _moved(run: pathlib.Path, experiment: Experiment) -> list[str]:
    """Return the fields that may change: they name other files than the run was begun with, which hold the same text, or another language,
    for which BLEU has the same tokenizer."""
    from jaxnmt.data import identity

    if not run_directory.checkpoints(run) or not (trained_on := identity.read(run)):
        return []
    before = run_directory.read(run)
    changed = changed_fields(before, experiment)
    parts = [part for part in ("train", "validation") if f"data.{part}" in changed]
    fields = identity.moved(experiment, trained_on, parts) if parts else []
    if "data.target_language" in changed and run_directory.bleu_decides(before, experiment):
        from jaxnmt.evaluation.test_sets import open_test_set

        relabelled = replace(experiment, **{"data.target_language": before.data.target_language}), experiment
        tokenizers = {open_test_set(each, run, "validation").tokenize for each in relabelled}
        fields += ["data.target_language"] if len(tokenizers) == 1 else []
    return fields


def settings_of(name: str) -> Settings:
    return Settings() if is_text(name) else Settings(load_config(name))
