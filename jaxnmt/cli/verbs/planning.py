"""The verb that predicts a run on other devices: plan."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Annotated

from jaxnmt.cli.verbs.common import Flat, writable
from jaxnmt.cli.verbs.drawing import write
from jaxnmt.config import Experiment, NonNegative
from jaxnmt.config import checks as config_checks
from jaxnmt.errors import UserError
from jaxnmt.parallel.log import say
from jaxnmt.training_run import run_folder


@dataclasses.dataclass(frozen=True)
class Plan:
    on: str = ""
    """Devices to compile for: a TPU slice (v5e:4x4, v5p:2x2x2, v6e:8x8, …), GPUs (h100:8, h100:2x8 for two hosts of 8; a100, h200, b200),
    cpu:8 (simulated devices), or gpu (those of this machine)."""
    search: bool = False
    """Try meshes, remat policies and batch sizes, and rank those that fit by tokens per second."""
    decoding: bool = False
    """Plan the search for translations instead of the training step."""
    operations: NonNegative[int] = 0
    """Print the N operations that take longest, each summed over layers; 0: print no such table."""
    run: str = ""
    """Folder of the run, whose prepared data determines the batches; when empty, runs/ and the config's name."""
    json: str = ""
    """File for all numbers of the training step."""
    experiment: Annotated[Experiment, Flat] = dataclasses.field(default_factory=Experiment)


def plan(config: str, options: Plan) -> int:
    """Compile the real training step for devices that need not be here; print memory, communication, speed and duration. Nothing is run.

    TPU slices need the TPU compiler, pip install 'jaxnmt[plan]'; GPUs theirs, 'jaxnmt[plan-gpu]'. Neither needs a TPU or a GPU.
    Without prepared data the largest shapes that the config allows are compiled. The exit status is 1 if the step does not fit.

    Examples:
      jaxnmt plan wmt14_big --on v5p:2x2x2
      jaxnmt plan transformer_1b --on v5e:16x16 --mesh.fsdp 16
      jaxnmt plan wmt14_base --on v5e:4x4 --search
      jaxnmt plan wmt14_big --on h100:2x8 --operations 20
      jaxnmt plan quickstart --on cpu:8 --decoding
    """
    if not options.on:
        raise UserError("--on is missing: give the devices to plan for, such as --on v5p:2x2x2, --on h100:8, --on cpu:8, --on gpu")
    writable("--json", options.json)
    config_checks.validate(options.experiment)
    from jaxnmt.lab import figures
    from jaxnmt.lab.plan import compiled, prediction, report, topology, workload

    target = topology.target(options.on)
    lengths = workload.Lengths(options.experiment, run_folder(config, options.run), say)
    if options.decoding:
        program = compiled.decoding(options.experiment, target, lengths.vocabularies)
        figures.show([report.decoding_table(program, target, config)])
        return int(not program.fits)
    if options.search:
        ranked = prediction.search(options.experiment, target, lengths, say)
        if not ranked:
            print(f"none of the settings tried fits {target.name}: raise mesh.fsdp by hand, or choose more devices", file=sys.stderr)
            return 1
        figures.show([report.search_table(ranked, config, target)])
        return 0
    found = prediction.predict(options.experiment, target, lengths, say)
    if options.json:
        write(options.json, json.dumps(report.record(found, config), indent=1), "--json")
    used = found.fits and found.largest.work.kernel_flops > 0
    saved = compiled.kernel_saving(options.experiment, target, found.largest.shape) if used else None
    tables = report.tables(found, config, saved)
    if options.operations and not found.step_seconds:
        print(f"--operations: the speed of {target.name} is not known, or a program does not fit", file=sys.stderr)
    elif options.operations:
        tables.append(report.operations_table(found.largest, options.operations))
    figures.show(tables)
    if not found.fits:
        print(report.refusal(found, config), file=sys.stderr)
    return int(not found.fits)
