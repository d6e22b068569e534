"""Train a run: check its experiment, make or open its folder, and call the training loop. JAX is imported only then."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jaxnmt.config import Experiment, checks, replace
from jaxnmt.config.files import changed_fields, load_config, with_absolute_paths
from jaxnmt.errors import UserError
from jaxnmt.parallel import compiler, distributed, log
from jaxnmt.run import Run
from jaxnmt.runs import directory

if TYPE_CHECKING:
    from jaxnmt.training.hooks import Hook


def train(
    config: str | Experiment,
    data: str | Sequence[str] = (),
    folder: str | pathlib.Path = "",
    settings: Mapping[str, Any] | None = None,
    progress: bool = False,
    hooks: Sequence[Hook] = (),
) -> Run:
    """Train a model, or resume training if the folder is a run that is not finished.

    Args:
        config: a shipped name, the path of a Python file, or an experiment.
        data: training source or sources, as `data.train` has them: "pairs.tsv" or ("a.en", "a.de"); empty: those of the config.
        folder: the run's folder; empty: runs/ and the config's name. An experiment needs one.
        settings: values of other fields by their dotted names, such as {"training.steps": 5000}.
        progress: print to stderr what the command line prints there.
        hooks: what else to do after training steps.

    Returns:
        The run, with its best checkpoint.

    Raises:
        UserError: a setting, the data or the folder is wrong. Nothing was trained.
        Diverged: gradients were NaN or infinite for too many steps in a row.
        Stopped: training was stopped, and has saved.
    """
    if isinstance(config, Experiment) and not folder:
        raise UserError('an experiment has no name to call its folder by: give one, folder="runs/mine"')
    experiment, name = (config, "the experiment") if isinstance(config, Experiment) else (load_config(config), config)
    words = (data,) if isinstance(data, str) else data
    experiment = checks.with_settings(experiment, {**(settings or {}), **({"data.train": words} if data else {})})
    run = run_folder(name, folder)
    with log.printed(progress):
        train_folder(run, trainable(name, experiment), hooks, progress)
    return Run(run)


def trainable(name: str, experiment: Experiment) -> Experiment:
    """Check an experiment, and return it with absolute paths of its files, so that the run does not depend on the current folder.

    Args:
        name: what the experiment is called in messages.
        experiment: a config's, or the user's.

    Raises:
        UserError: a value is invalid, or there is no training data.
    """
    checks.validate(experiment)
    if not experiment.data.train and not hasattr(experiment.data, "pairs"):
        raise UserError(f'{name} has no training data; give yours with --data.train a.en a.de, in Python with data=("a.en", "a.de")')
    return with_absolute_paths(experiment)


def run_folder(config: str, run: str | pathlib.Path) -> pathlib.Path:
    """Return a run's folder: as it is given, or runs/ and the config's name."""
    name = pathlib.Path(config).stem if config.endswith(".py") else config.replace("-", "_")
    return directory.folder(run or pathlib.Path("runs") / name)


def train_folder(
    run: pathlib.Path, experiment: Experiment, hooks: Sequence[Hook] = (), progress: bool = False, signals: bool = False
) -> None:
    """Train or resume the run in a folder.

    Args:
        run: the run's folder.
        experiment: as `trainable` returns it.
        hooks: what else to do after training steps.
        progress: show lines and a progress bar on stderr.
        signals: save and stop at Ctrl-C, SIGTERM and SIGHUP; find the other processes of the command.
    """
    if signals:
        distributed.initialize(share_preemption=True)
    with begun(run, experiment):
        try:
            from jaxnmt.evaluation.validation import ValidationTranslator
            from jaxnmt.training import loop

            loop.train(experiment, run, ValidationTranslator(), hooks, progress, signals)
        except KeyboardInterrupt as interrupt:  # the loop says what it saved; before it began there was nothing to save
            raise KeyboardInterrupt(str(interrupt) or f"`jaxnmt resume {run}` resumes from the last checkpoint") from None


@contextlib.contextmanager
def begun(run: pathlib.Path, experiment: Experiment) -> Iterator[None]:
    """Make or open a run's folder in process 0, which locks it while the block lasts.

    Raises:
        UserError: a pattern of paths does not fit the model, or the folder holds something else or cannot be written.
    """
    _check_patterns(experiment)  # before anything is written
    with contextlib.ExitStack() as stack:
        with distributed.leader_first("begin the run"):
            if distributed.is_leader():
                try:
                    stack.enter_context(directory.locked(run, log.say))
                    said = directory.where_training_begins(run)
                    directory.start(run, experiment, _moved(run, experiment))
                except OSError as error:
                    raise UserError(f"{run} cannot be written ({error.strerror}): repair that, or choose another with --run") from error
                log.say(said)
            elif not (run / directory.CONFIG).exists():
                raise UserError(f"{run} is missing, though process 0 has just written it: all processes must see the run's folder")
        yield


def _check_patterns(experiment: Experiment) -> None:
    """Check the patterns of paths against the model, if there are any: others need no JAX.

    Raises:
        UserError: one does not fit.
    """
    training = experiment.training
    if training.freeze or training.rates or training.lora.rank:
        compiler.check()
        from jaxnmt.training import tuning

        tuning.check(experiment)


def _moved(run: pathlib.Path, experiment: Experiment) -> list[str]:
    """Return the changed fields that do not change the training.

    They name other files with the same text, or another language for which BLEU has the same tokenizer.
    """
    from jaxnmt.data import identity

    if not directory.checkpoints(run) or not (known := identity.read(run)):
        return []
    before = directory.read(run)
    changed = changed_fields(before, experiment)
    parts = [part for part in ("train", "validation") if f"data.{part}" in changed]
    fields = identity.moved(experiment, known, parts)
    if "data.target_language" in changed and directory.bleu_decides(before, experiment):
        from jaxnmt.evaluation.test_sets import open_test_set

        relabelled = replace(experiment, **{"data.target_language": before.data.target_language}), experiment
        tokenizers = {open_test_set(each, run, "validation").tokenize for each in relabelled}
        fields += ["data.target_language"] if len(tokenizers) == 1 else []
    return fields
