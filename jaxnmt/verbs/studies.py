"""The verb that runs studies: ablate."""

from __future__ import annotations

import dataclasses
import pathlib

from jaxnmt.config import UserError
from jaxnmt.verbs.common import say


@dataclasses.dataclass(frozen=True)
class Ablate:
    folder: str = ""
    """Folder of the study; when empty, studies/ and its name."""
    report: bool = False
    """Train nothing: report what is finished so far."""


def ablate(name: str, options: Ablate) -> int:
    """Train and score every variant of a study, with every seed, and write the table: report.md, report.csv, report.tex in its folder.

    Killed or interrupted, the same command goes on; nothing that is finished is done again. Started several times, on one computer or on
    several that share the folder, the processes share the work. The exit status is 1 if a training failed.

    Examples:
      jaxnmt ablate heads
      jaxnmt ablate heads --report True
      jaxnmt ablate my_study.py --folder studies/mine
    """
    from jaxnmt.analysis.ablations import study as studies

    study = studies.load(name)
    folder = pathlib.Path(options.folder or f"studies/{pathlib.Path(name).stem.replace('-', '_')}")
    if options.report and not (folder / "study.json").exists():
        raise UserError(f"{folder} is not a study (it has no study.json): nothing to report")
    studies.begin(study, folder)
    from jaxnmt.analysis.ablations import budgets, report, worker

    sizes = budgets.measure(study, folder)
    failed = []
    if not options.report:
        steps = {
            variant: {"run": size.steps(study.budget), "trial": size.steps(study.tuning or study.budget)} for variant, size in sizes.items()
        }
        failed = worker.work(study, folder, steps, say)
    report.write(study, folder, sizes)
    return int(bool(failed))
