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
from jaxnmt.config import NonNegative, Positive
from jaxnmt.errors import UserError


@dataclasses.dataclass(frozen=True)
class Local:
    print: bool = False
    """Print the command instead of running it."""
    processes: Positive[int] = 2
    """Processes on this computer."""


def local(options: Local, command: Sequence[str]) -> int:
    """Start several processes of one command on this computer, which connect to each other and share the work.

    Ctrl-C, SIGTERM and SIGHUP reach all of them: they save the same step. The same command resumes, also with another number of processes.

    Examples:
      jaxnmt launch local --processes 2 -- train quickstart --run runs/two
    """
    environment = {"JAXNMT_PYTHON": sys.executable}  # this Python, whatever PATH contains
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
    """Name of the job."""
    nodes: Positive[int] = 2
    """Number of computers."""
    gpus: NonNegative[int] = 8
    """GPUs on each computer, one process per GPU. 0: one process per computer, without a GPU."""
    cpus: Positive[int] = 8
    """CPU cores of each process, for compiling, reading and saving."""
    hours: float = 24
    """The job's time limit; five minutes before it the run is saved and the job requeued."""
    setup: str = ""
    """Shell commands to run first on the first node, such as "source .venv/bin/activate"; if one fails, the job ends (except one before
    `&&` in the middle: write `;` instead)."""


def slurm(options: Slurm, command: Sequence[str]) -> int:
    """Submit a job of several nodes to SLURM that saves before its time limit and resumes when it is requeued.

    The run's folder (--run) must be on a file system that all nodes share. sbatch reads further options of a site from SBATCH_PARTITION,
    SBATCH_ACCOUNT, SBATCH_QOS, SBATCH_CONSTRAINT, SBATCH_MEM_PER_NODE (such as 64G) and SBATCH_EXCLUSIVE.

    Examples:
      jaxnmt launch slurm --nodes 4 --print -- train wmt14_big --run /shared/runs/big
      SBATCH_PARTITION=a100 jaxnmt launch slurm --nodes 4 --setup "source .venv/bin/activate" -- train wmt14_big --run /shared/runs/big
    """
    _check(options.name, command)
    words, tasks = ["jaxnmt", *command], max(options.gpus, 1)
    job = launchers.slurm(words, options.name, options.nodes, tasks, options.gpus, options.cpus, options.hours, options.setup)
    return hand_over(job, ["sbatch"], options.print)


@dataclasses.dataclass(frozen=True)
class Jobset:
    print: bool = False
    """Print the JobSet instead of applying it."""
    name: str = "jaxnmt"
    """Name of the JobSet."""
    image: str = ""
    """Container image with jaxnmt installed."""
    on: str = "gpu:8"
    """Devices: gpu:N for N GPUs in each host, or the TPU topology of each slice: v5e:4x4, v5p:4x4x8, v6e:16x16."""
    hosts: Positive[int] = 1
    """Number of GPU computers; for TPUs it follows from the topology."""
    slices: Positive[int] = 1
    """TPU slices, connected by the data center's network."""
    restarts: int = 100
    """How often the whole set may restart from its last checkpoint."""


def jobset(options: Jobset, command: Sequence[str]) -> int:
    """Apply a Kubernetes JobSet, one process per host, on GPUs or TPU slices; if a host fails, it restarts from the last checkpoint.

    All hosts must share the run's folder (--run): gs://bucket/runs/big, or a mounted volume.

    Examples:
      jaxnmt launch jobset --on v5p:4x4x8 --image IMAGE --print -- train wmt14_big --run gs://bucket/runs/big
      jaxnmt launch jobset --on gpu:8 --hosts 4 --image IMAGE -- train wmt14_big --run gs://bucket/runs/big
    """
    if not options.image:
        raise UserError("--image is missing: give a container image with jaxnmt installed")
    _check(options.name, command)
    words = ["jaxnmt", *command]
    text = launchers.jobset(words, options.name, options.image, options.on, options.hosts, options.slices, options.restarts)
    return hand_over(text, ["kubectl", "apply", "-f", "-"], options.print)


@dataclasses.dataclass(frozen=True)
class TpuVm:
    print: bool = False
    """Print the script instead of running it."""
    name: str = "jaxnmt"
    """Name of the queued resource."""
    on: str = "v5e:4x4"
    """Topology of a slice: v5e:4x4, v5p:4x4x8, v6e:16x16."""
    slices: Positive[int] = 1
    """Number of slices, connected by the data center's network."""
    zone: str = ""
    """Google Cloud zone, such as us-east5-a."""
    project: str = ""
    """Google Cloud project."""
    setup: str = "pip install 'jaxnmt[gcs]' 'jax[tpu]'"
    """Shell command to run first on every host, in the shell that then runs the command."""


def tpu_vm(options: TpuVm, command: Sequence[str]) -> int:
    """Request Cloud TPU slices, wait for them, and run the command on every host.

    All hosts must share the run's folder (--run): gs://bucket/runs/big. Run again, it uses the slices that already exist.

    Examples:
      jaxnmt launch tpu_vm --on v5p:4x4x8 --zone us-east5-a --project mine --print -- train wmt14_big --run gs://bucket/runs/big
    """
    missing = [flag for flag in ("zone", "project") if not getattr(options, flag)]
    if missing:
        raise UserError(f"--{missing[0]} is missing: give the Google Cloud zone and project")
    _check(options.name, command)
    words = ["jaxnmt", *command]
    script = launchers.tpu_vm(words, options.name, options.on, options.slices, options.zone, options.project, options.setup)
    return hand_over(script, ["bash", "-c"], options.print, as_word=True)


def _check(name: str, command: Sequence[str]) -> None:
    """Check a job's name, and that the command does not read stdin, which is empty on its hosts."""
    if not re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name):
        raise UserError(f"--name {name} is not valid: use lower-case letters, digits and - between them, a letter first")
    if "translate" not in [word for word in command if word != "--trust"][:1]:
        return
    words = [part for word in command for part in word.split("=", 1)]
    inputs = [value for flag, value in itertools.pairwise([*words, ""]) if flag == "--input"]
    if not inputs or inputs[-1] in ("", "-", "/dev/stdin"):
        raise UserError("`translate` without --input reads stdin, which is empty there: add --input FILE, and --output FILE")


def hand_over(text: str, program: list[str], only_print: bool = False, as_word: bool = False) -> int:
    """Pass a text to a program on stdin; with `as_word` as its last argument, if the program's children would read stdin."""
    if only_print:
        print(text, end="")
        return 0
    if shutil.which(program[0]) is None:
        raise UserError(f"the command {program[0]} is not installed here: run this where it is, or print its input with --print")
    words, stdin = ([*program, text], None) if as_word else (program, text)
    return subprocess.run(words, input=stdin, text=True).returncode
