"""The verb of studies: ablate."""

from __future__ import annotations

import dataclasses
import pathlib
import signal
import sys
from typing import Any, Literal

from jaxnmt import UserError
from jaxnmt.cli.verbs.launching import Slurm, hand_over, job_script
from jaxnmt.config import NonNegative, Positive
from jaxnmt.parallel import compiler
from jaxnmt.runs import directory as run_directory


@dataclasses.dataclass(frozen=True)
class Ablate:
    folder: str = ""
    """Folder of the study; when empty, studies/ and its name."""
    report: bool = False
    """Train nothing: write the report of the finished runs."""
    reproduce: str = ""
    """Repeat finished runs and compare: those of a variant, or one run's folder in the study, such as runs/1_head/seed-2."""
    submit: Literal["", "slurm"] = ""
    """slurm: do not train here, but submit an array job whose tasks share the study."""
    workers: Positive[int] = 4
    """submit: tasks of the array."""
    gpus: NonNegative[int] = 0
    """submit: GPUs of each worker."""
    cpus: Positive[int] = 8
    """submit: CPU cores of each worker."""
    hours: float = 24
    """submit: time limit of each worker; five minutes before it, the worker saves its run and is requeued."""
    setup: str = ""
    """submit: shell command to run first in each worker, such as "source .venv/bin/activate"."""


def ablate(name: str, options: Ablate) -> int:
    """Train and score every variant of a study with every seed, and write report.html, report.md, report.csv and report.tex.

    If the study is interrupted or killed, the same command resumes it; finished runs are not repeated. Several processes, on one computer
    or on several that share the folder, share the work. The exit status is 1 if a training failed, and 85 if the study was stopped after
    a run was saved or finished.

    Examples:
      jaxnmt ablate heads
      jaxnmt ablate heads --report
      jaxnmt ablate heads --reproduce "1 head"
      jaxnmt ablate heads --reproduce runs/1_head/seed-2
      jaxnmt ablate heads --submit slurm --workers 8 --gpus 1 --hours 12 --setup "source .venv/bin/activate"
      jaxnmt ablate my_study.py --folder studies/mine
    """
    from jaxnmt.lab.ablations import study as studies

    for number in _passed_on():
        signal.signal(number, _leave)
    study = studies.load(name)
    folder = run_directory.folder(pathlib.Path(options.folder or f"studies/{pathlib.Path(name).stem.replace('-', '_')}"))
    if (options.report or options.reproduce) and not (folder / "study.json").exists():
        raise UserError(f"{folder} is not a study (it has no study.json): check --folder, or start the study first")
    studies.begin(study, folder)
    if options.submit:
        return _submit(name, folder, options)
    from jaxnmt.lab.ablations import budgets, report, worker

    compiler.check()
    sizes = budgets.measure(study, folder)
    if options.reproduce:
        same = worker.reproduce(study, folder, sizes, options.reproduce)
        print("the same to the digit" if same else "not the same")
        return int(not same)
    failed = [] if options.report else worker.work(study, folder, sizes)
    report.write(study, folder, sizes)
    return int(bool(failed))


def _passed_on() -> list[int]:
    """Return the signals to pass on to a running training. SIGHUP stays ignored under `nohup`."""
    return [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN]


def _leave(number: int, _frame: Any) -> None:
    """Exit, which stops the running training after it has saved. Further signals are ignored."""
    for other in _passed_on():
        signal.signal(other, signal.SIG_IGN)
    sys.exit(128 + number)


def _submit(name: str, folder: pathlib.Path, options: Ablate) -> int:
    """Submit an array of workers to SLURM; each ends when no job is left."""
    worker = Slurm(name="study", nodes=1, gpus=options.gpus, cpus=options.cpus, hours=options.hours, setup=options.setup)
    job = job_script(worker, ["ablate", name, "--folder", str(folder.absolute())], tasks=1)
    array = [f"--array=1-{options.workers}", f"--job-name={folder.name}", f"--output={folder.absolute()}/slurm-%a.txt"]
    return hand_over(job, ["sbatch", *array])
