"""Works through a study: claims a job, trains and scores it in a subprocess, writes its result, continues with the next.

Any number of workers may share a study's folder. A job is claimed by locking a file; the system releases the lock when all processes that
hold it have ended, whatever ends them. The job's run is then resumed from its last checkpoint. A job with a `result.json` is finished.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import pathlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

from jaxnmt import Diverged, Experiment, Study, UserError
from jaxnmt.config.files import write_json
from jaxnmt.errors import SAVED
from jaxnmt.io import streams
from jaxnmt.lab.ablations.budgets import Size
from jaxnmt.lab.ablations.study import Job, experiment_of, jobs, trials
from jaxnmt.parallel import peers
from jaxnmt.parallel.log import say
from jaxnmt.runs import directory as run_directory

RESULT = "result.json"
POLL_SECONDS = 5.0  # between checks of other workers' results, and of stderr


def work(study: Study, folder: pathlib.Path, sizes: Mapping[str, Size]) -> list[Job]:
    """Do every job that no other worker does, and wait for those that others do.

    Args:
        sizes: of the variants, as `budgets.measure` returns them.

    Returns:
        The jobs that failed; the next call tries them again.

    Raises:
        KeyboardInterrupt: Ctrl-C. SystemExit: a signal, with the status `SAVED` if the study has advanced since the call.
        BrokenPipeError: stderr's pipe is closed, and the study has not advanced.
    """
    before = _advance(study, folder)
    try:
        return _work(study, folder, sizes)
    except (SystemExit, BrokenPipeError):
        if _advance(study, folder) > before:
            raise SystemExit(SAVED) from None
        raise


def _work(study: Study, folder: pathlib.Path, sizes: Mapping[str, Size]) -> list[Job]:
    failed: list[Job] = []
    waiting = False
    while left := [job for job in _unfinished(study, folder) if job not in failed]:
        if any(_attempt(study, folder, sizes, job, failed) for job in left):
            waiting = False
        else:
            if not waiting:
                say("waiting for other workers' jobs")
            waiting = True
            time.sleep(POLL_SECONDS)
    return _unfinished(study, folder)  # other workers may have finished some of those that failed here


def _attempt(study: Study, folder: pathlib.Path, sizes: Mapping[str, Size], job: Job, failed: list[Job]) -> bool:
    """Do a job if it is ready and not claimed. Returns whether anything was done."""
    rate = job.learning_rate
    if rate is None and study.learning_rates:
        rate = chosen_rate(study, folder, job.variant)
        if rate is None:
            lost = any(trial in failed and read_result(folder, trial) is None for trial in trials(study, job.variant))
            if lost:
                failed.append(job)
            return lost
    with _claim(folder / job.folder) as claim:
        if not claim or (folder / job.folder / RESULT).exists():
            return False
        total = len(list(jobs(study)))
        say(f"[{total - len(_unfinished(study, folder)) + 1}/{total}] {job.folder}")
        experiment = experiment_of(study, job, sizes[job.variant], rate)
        result = _train_and_score(experiment, folder / job.folder, job.is_trial, claim, study.metrics)
        if result is None:
            say(f"{job.folder} failed: see the end of {folder / job.folder / 'log.txt'}")
            failed.append(job)
        else:
            write_json(result, folder / job.folder / RESULT)
    return True


def reproduce(study: Study, folder: pathlib.Path, sizes: Mapping[str, Size], name: str) -> bool:
    """Repeat finished runs, in `reproduced/`. Returns whether validations and test scores are the same to the digit.

    Args:
        sizes: of the variants, as `budgets.measure` returns them.
        name: a variant, for all its finished runs; or one run's folder within the study's, as the report names it:
            "runs/1_head/seed-2".

    Raises:
        UserError: there is no such run, it is not finished, its budget is in minutes, or the new one fails.
    """
    if study.budget.unit == "minutes":
        raise UserError("a budget in minutes buys as many steps as the machine then made: its runs cannot be reproduced to the digit")
    finished = [job for job in jobs(study) if not job.is_trial and (folder / job.folder / RESULT).exists()]
    name = name.removeprefix(f"{folder}/").strip("/")
    chosen = [job for job in finished if name in (job.variant, job.name, job.folder)]
    if not chosen:
        names = ", ".join(job.folder for job in finished) or "none"
        raise UserError(f"{name} is not a finished variant or run of {folder}; choose one of: {names}")
    return all([_same_again(study, folder, sizes, job) for job in chosen])


def _same_again(study: Study, folder: pathlib.Path, sizes: Mapping[str, Size], job: Job) -> bool:
    """Train and score a job once more, from scratch; an unfinished copy is resumed."""
    before, again = read_result(folder, job) or {}, folder / "reproduced" / job.folder
    rate = chosen_rate(study, folder, job.variant) if study.learning_rates else None
    with _claim(again) as claim:
        if not claim:
            raise UserError(f"another process is training {again}: wait for it, or end it")
        if (again / RESULT).exists():  # an earlier copy, perhaps by another version of the program, proves nothing now
            shutil.rmtree(again / "run")
            (again / RESULT).unlink()
        say(f"again: {job.folder}")
        now = _train_and_score(experiment_of(study, job, sizes[job.variant], rate), again, False, claim, study.metrics)
        if now is None:
            raise UserError(f"{again} failed: see the end of {again / 'log.txt'}")
        write_json(now, again / RESULT)
    differ = [part for part in ("validations", "test") if before[part] != now[part]]
    for part in differ:
        say(f"{part} differ:\n  then {before[part]}\n  now  {now[part]}")
    return not differ


def chosen_rate(study: Study, folder: pathlib.Path, variant: str) -> float | None:
    """Return the learning rate of a variant's best trial on validation (of equal ones the smaller); None while trials are missing."""
    if len(study.learning_rates) == 1:
        return study.learning_rates[0]
    results = [read_result(folder, trial) for trial in trials(study, variant)]
    scores = [(-result["validation_score"], rate) for result, rate in zip(results, study.learning_rates, strict=True) if result]
    return min(scores)[1] if scores and len(scores) == len(results) else None


def read_result(folder: pathlib.Path, job: Job) -> dict[str, Any] | None:
    """Return a job's `result.json`; None if it is not finished."""
    path = folder / job.folder / RESULT
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


@contextlib.contextmanager
def _claim(folder: pathlib.Path) -> Iterator[IO[str] | None]:
    """Claim a job until the block and all processes that inherit the yielded file have ended; yields None if it is already claimed."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "claim").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        except OSError as error:
            raise UserError(f"{file.name} cannot be locked ({error.strerror}): choose a --folder on a file system with locks") from error
        else:
            yield file


def _train_and_score(
    experiment: Experiment, folder: pathlib.Path, is_trial: bool, claim: IO[str], metrics: Sequence[str] = ()
) -> dict[str, Any] | None:
    """Return a job's result, or None if a subprocess ended with an error.

    A trial is not scored on the test sentences. For a task without test scores, those of the best validation are returned.
    """
    run = folder / "run"
    try:
        run_directory.start(run, experiment)
    except UserError as error:
        (folder / "log.txt").write_text(f"error: {error}\n", encoding="utf-8")
        return None
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        status = _jaxnmt(["resume", str(run), "--trust"], log, log, claim)  # `start` wrote the code that this executes
        if status == Diverged.status and is_trial:
            return {"run": str(run), "validation_score": -math.inf}
        if status != 0:
            return None
        result = {"run": str(run), **_training_record(run)}
        if is_trial or not experiment.task.is_scored:
            return result
        words = ["evaluate", str(run), "--trust", "--json", "True", "--output", str(folder / "test.txt")]
        with (folder / "scores.json").open("w+", encoding="utf-8") as scores:
            status = _jaxnmt([*words, *(["--metrics", *metrics] if metrics else [])], scores, log, claim)
            scores.seek(0)
            return result | {"test": json.load(scores)} if status == 0 else None


def _jaxnmt(words: list[str], out: IO[str], log: IO[str], claim: IO[str]) -> int:
    """Run the command in a subprocess that shares the claim: if this process is killed, no other worker starts the same job meanwhile.

    Ctrl-C, SIGTERM, SIGHUP and a closed pipe on our stderr reach it as SIGTERM: it saves, and we wait for it.

    Raises:
        KeyboardInterrupt, SystemExit, BrokenPipeError: Ctrl-C, a signal, a closed pipe on our stderr; after the subprocess has ended.
    """
    command = [sys.executable, "-P", "-m", "jaxnmt", *words]  # -P: no module of the current folder is imported
    process = subprocess.Popen(command, stdout=out, stderr=log, env=peers.single_process_env(), pass_fds=[claim.fileno()])
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(POLL_SECONDS)
            if streams.is_closed_pipe(sys.stderr):
                raise BrokenPipeError
    except (KeyboardInterrupt, SystemExit, BrokenPipeError):
        process.terminate()
        process.wait()
        raise


def _training_record(run: pathlib.Path) -> dict[str, Any]:
    """Summarize a run's log: validations, the best of them, tokens, time, and the perplexity of the last training record.

    "test" has the scores of the best validation, which those of the test sentences replace if the task has any.
    """
    validations, training = run_directory.read_metrics(run, "validation"), run_directory.read_metrics(run, "train")
    best = next((record for record in reversed(validations) if record["best"]), None)  # None: every score was NaN
    metric = run_directory.settings(run)["validation"]["metric"]
    scales = {"perplexity": 1, "accuracy": 100}  # accuracy in per cent, as `jaxnmt evaluate` has it
    best_scores = [{"name": name, "value": scale * best[name]} for name, scale in scales.items() if best and name in best]
    return {
        "validation_score": (-1 if metric == "loss" else 1) * best[metric] if best else -math.inf,
        "best_step": best and best["step"],
        "steps": training[-1]["step"],
        "target_tokens": training[-1]["target_tokens"],
        "seconds": sum(record["timing"]["seconds"] for record in training),
        "training_perplexity": training[-1]["perplexity"],
        "validations": [{name: record[name] for name in ("step", "loss", "accuracy", "bleu") if name in record} for record in validations],
        "test": {"metrics": best_scores},
    }


def _advance(study: Study, folder: pathlib.Path) -> int:
    """Return a number that grows with each result and each checkpoint of a study."""
    newest = (max(run_directory.checkpoints(folder / job.folder / "run"), default=0) for job in jobs(study))
    return sum(newest) - len(_unfinished(study, folder))


def _unfinished(study: Study, folder: pathlib.Path) -> list[Job]:
    """Return the jobs without a result."""
    return [job for job in jobs(study) if not (folder / job.folder / RESULT).exists()]
