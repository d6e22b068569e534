"""Verbs that start a command on several hosts: launch local, launch slurm, launch jobset, launch tpu_vm."""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence

from jaxnmt.cli import launchers
from jaxnmt.errors import UserError


@dataclasses.dataclass(frozen=True)
class Local:
    print: bool = False
    """Print the command instead of running it."""
    processes: int = 2
    """Processes on this computer."""


def local(options: Local, command: Sequence[str]) -> int:
    """Start several processes of one command on this computer, which find each other and share the work.

    Ctrl-C, SIGTERM and SIGHUP reach all of them: they save the same step. The same command resumes, also with another number of processes.

    Examples:
      jaxnmt launch local --processes 2 -- train quickstart --run runs/two
    """
    launchers.check_counts(processes=options.processes)
    environment = {"JAXNMT_PYTHON": sys.executable}  # this one, whatever PATH says
    script = ["bash", str(launchers.launcher("local.sh")), str(options.processes), *command]
    if options.print:
        print(shlex.join(["env", *(f"{name}={value}" for name, value in environment.items()), *script]))
        return 0
    with subprocess.Popen(script, env=os.environ | environment) as processes:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:  # nohup
                signal.signal(number, lambda number, _: processes.send_signal(number))
        return processes.wait()


@dataclasses.dataclass(frozen=True)
class Slurm:
    print: bool = False
    """Print the job script instead of submitting it."""
    name: str = "jaxnmt"
    """Of the job."""
    nodes: int = 2
    """Computers."""
    gpus: int = 8
    """On each; a process for each of them. 0: one process a computer, without a GPU."""
    cpus: int = 8
    """CPU cores of each process, which compiles, reads and saves on them."""
    hours: float = 24
    """The job's time limit; five minutes before it the run is saved and the job queued again."""
    setup: str = ""
    """Shell commands run first on the first node, such as "source .venv/bin/activate"; if one fails, the job ends (but for one before
    `&&` in the middle: write `;` instead)."""


def slurm(options: Slurm, command: Sequence[str]) -> int:
    """Submit a job of several nodes to SLURM, which saves before its time limit and resumes in its next turn.

    The run's folder (--run) must be on a file system that all nodes share. What else a site asks for, sbatch reads from SBATCH_PARTITION,
    SBATCH_ACCOUNT, SBATCH_QOS, SBATCH_CONSTRAINT, SBATCH_MEM_PER_NODE (such as 64G) and SBATCH_EXCLUSIVE.

    Examples:
      jaxnmt launch slurm --nodes 4 --print -- train wmt14_big --run /shared/runs/big
      SBATCH_PARTITION=a100 jaxnmt launch slurm --nodes 4 --setup "source .venv/bin/activate" -- train wmt14_big --run /shared/runs/big
    """
    _check_name(options.name)
    _refuse_stdin(command)
    words, tasks = ["jaxnmt", *command], max(options.gpus, 1)
    job = launchers.slurm(words, options.name, options.nodes, tasks, options.gpus, options.cpus, options.hours, options.setup)
    return hand_over(job, ["sbatch"], options.print)


@dataclasses.dataclass(frozen=True)
class Jobset:
    print: bool = False
    """Print the JobSet instead of applying it."""
    name: str = "jaxnmt"
    """Of the JobSet."""
    image: str = ""
    """Container image that has jaxnmt."""
    on: str = "gpu:8"
    """Of each host, gpu:N; or of each slice, a TPU topology: v5e:4x4, v5p:4x4x8, v6e:16x16."""
    hosts: int = 1
    """Computers with GPUs; a TPU's topology says it itself."""
    slices: int = 1
    """TPU slices, joined by the data centre's network."""
    restarts: int = 100
    """How often the whole set may start again, from its last checkpoint."""


def jobset(options: Jobset, command: Sequence[str]) -> int:
    """Apply a Kubernetes JobSet, one process a host, on GPUs or TPU slices; it starts again from the last checkpoint when a host fails.

    The run's folder (--run) must be one that all hosts share: gs://bucket/runs/big, or a mounted volume.

    Examples:
      jaxnmt launch jobset --on v5p:4x4x8 --image IMAGE --print -- train wmt14_big --run gs://bucket/runs/big
      jaxnmt launch jobset --on gpu:8 --hosts 4 --image IMAGE -- train wmt14_big --run gs://bucket/runs/big
    """
    if not options.image:
        raise UserError("--image is missing: name the container image that has jaxnmt installed")
    _refuse_stdin(command)
    launchers.check_counts(hosts=options.hosts, slices=options.slices)
    _check_name(options.name)
    words = ["jaxnmt", *command]
    text = launchers.jobset(words, options.name, options.image, options.on, options.hosts, options.slices, options.restarts)
    return hand_over(text, ["kubectl", "apply", "-f", "-"], options.print)


@dataclasses.dataclass(frozen=True)
class TpuVm:
    print: bool = False
    """Print the script instead of running it."""
    name: str = "jaxnmt"
    """Of the queued resource."""
    on: str = "v5e:4x4"
    """Topology of a slice: v5e:4x4, v5p:4x4x8, v6e:16x16."""
    slices: int = 1
    """Slices, joined by the data centre's network."""
    zone: str = ""
    """Google Cloud zone, such as us-east5-a."""
    project: str = ""
    """Google Cloud project."""
    setup: str = "pip install 'jaxnmt[gcs]' 'jax[tpu]'"
    """Shell command run first on every host, in the shell that then runs the command."""


def tpu_vm(options: TpuVm, command: Sequence[str]) -> int:
    """Ask Cloud TPU for slices, wait for them, and run the command on every host.

    The run's folder (--run) must be one that all hosts share: gs://bucket/runs/big. Run again, it takes the slices that are there.

    Examples:
      jaxnmt launch tpu_vm --on v5p:4x4x8 --zone us-east5-a --project mine --print -- train wmt14_big --run gs://bucket/runs/big
    """
    missing = [flag for flag in ("zone", "project") if not getattr(options, flag)]
    if missing:
        raise UserError(f"--{missing[0]} is missing: Google Cloud needs to know where")
    _refuse_stdin(command)
    launchers.check_counts(slices=options.slices)
    _check_name(options.name)
    words = ["jaxnmt", *command]
    script = launchers.tpu_vm(words, options.name, options.on, options.slices, options.zone, options.project, options.setup)
    return hand_over(script, ["bash", "-c"], options.print, as_word=True)


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name):
        raise UserError(f"--name {name} will not do for a job: small letters, digits and - between them, a letter first")


def _refuse_stdin(command: Sequence[str]) -> None:
    """Refuse a command that would read an empty stdin on its hosts and succeed."""
    if "translate" not in [word for word in command if word != "--trust"][:1]:
        return
    words = [part for word in command for part in word.split("=", 1)]
    inputs = [value for flag, value in itertools.pairwise([*words, ""]) if flag == "--input"]
    if not inputs or inputs[-1] in ("", "-", "/dev/stdin"):
        raise UserError("`translate` without --input reads stdin, which is empty there: add --input FILE, and --output FILE")


def hand_over(text: str, program: list[str], only_print: bool = False, as_word: bool = False) -> int:
    """Give a text to a program on stdin; or as its last word, where what the program starts would read the rest of it from there."""
    if only_print:
        print(text, end="")
        return 0
    if shutil.which(program[0]) is None:
        raise UserError(f"the command {program[0]} is not installed here: run this where it is, or print the files with --print")
    if as_word:
        return subprocess.run([*program, text]).returncode
    return subprocess.run(program, input=text, text=True).returncode
