"""The verb that runs studies: ablate."""

from __future__ import annotations

import dataclasses
import pathlib
import signal
import sys
from typing import Any, Literal

from jaxnmt.cli import launchers
from jaxnmt.cli.verbs.launching import hand_over
from jaxnmt.errors import UserError
from jaxnmt.parallel import compiler
from jaxnmt.parallel.log import say
from jaxnmt.runs import directory as run_directory


@dataclasses.dataclass(frozen=True)
class Ablate:
    folder: str = ""
    """Folder of the study; when empty, studies/ and its name."""
    report: bool = False
    """Train nothing: report what is finished so far."""
    reproduce: str = ""
    """Do finished runs again and compare: a variant's, or the one of a folder in the study, such as runs/1_head/seed-2."""
    submit: Literal["", "slurm"] = ""
    """slurm: train nothing here, but submit an array job whose tasks share the study."""
    workers: int = 4
    """submit: tasks of the array, which share the study's runs."""
    gpus: int = 0
    """submit: GPUs of each worker."""
    cpus: int = 8
    """submit: CPU cores of each worker."""
    hours: float = 24
    """submit: time limit of each worker; five minutes before it, what it trains is saved and the worker queued again."""
    setup: str = ""
    """submit: shell command that each worker runs first, such as "source .venv/bin/activate"."""


def ablate(name: str, options: Ablate) -> int:
    """Train and score every variant of a study, with every seed, and write the table: report.md, report.csv, report.tex in its folder.

    Killed or interrupted, the same command goes on; nothing that is finished is done again. Started several times, on one computer or on
    several that share the folder, the processes share the work. The exit status is 1 if a training failed, and 85 if the study was stopped
    and has advanced: a run was saved, or finished.

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
        raise UserError(f"{folder} is not a study (it has no study.json): nothing is finished there")
    studies.begin(study, folder)
    if options.submit:
        return _submit(name, folder, options)
    from jaxnmt.lab.ablations import budgets, report, worker

    compiler.check()
    sizes = budgets.measure(study, folder)
    trial = study.tuning or study.budget
    steps = {variant: {"run": size.steps(study.budget), "trial": size.steps(trial)} for variant, size in sizes.items()}
    if options.reproduce:
        same = worker.reproduce(study, folder, steps, options.reproduce, say)
        print("the same to the digit" if same else "not the same")
        return int(not same)
    failed = [] if options.report else worker.work(study, folder, steps, say)
    report.write(study, folder, sizes)
    return int(bool(failed))


def _passed_on() -> list[int]:
    """Return the signals that what is being trained is to hear of. SIGHUP that is ignored (`nohup`) stays ignored."""
    return [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN]


def _leave(number: int, _frame: Any) -> None:
    """Leave, which stops what is being trained, and it saves. Another signal hurries nobody."""
    for other in _passed_on():
        signal.signal(other, signal.SIG_IGN)
    sys.exit(128 + number)


def _submit(name: str, folder: pathlib.Path, options: Ablate) -> int:
    """Hand an array of workers to SLURM; each ends when nothing is left to do."""
    launchers.check_counts(workers=options.workers)
    work = ["jaxnmt", "ablate", name, "--folder", str(folder.absolute())]
    job = launchers.slurm(work, "study", 1, 1, options.gpus, options.cpus, options.hours, options.setup)
    array = [f"--array=1-{options.workers}", f"--job-name={folder.name}", f"--output={folder.absolute()}/slurm-%a.txt"]
    return hand_over(job, ["sbatch", *array])
