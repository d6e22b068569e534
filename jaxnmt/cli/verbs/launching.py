"""Verbs that start a command on several hosts: launch local, launch slurm, launch jobset, launch tpu_vm.

They fill in the files of launch/, and pass them to the program that queues them.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from jaxnmt.config import NonNegative, Positive
from jaxnmt.errors import SAVED, Diverged, UserError
from jaxnmt.lab.plan.tpus import CHIPS_PER_HOST, slice_of

_SAVE_MINUTES = 5  # before a SLURM job's time limit


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
    python = f"JAXNMT_PYTHON={sys.executable}"  # this Python, whatever PATH contains
    script = ["env", python, "bash", str(launcher("local.sh")), str(options.processes), *command]
    if options.print:
        print(shlex.join(script))
        return 0
    with subprocess.Popen(script) as processes:
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
    return hand_over(job_script(options, command, tasks=max(options.gpus, 1)), ["sbatch"], options.print)


def job_script(options: Slurm, command: Sequence[str], tasks: int) -> str:
    """Return a job script for `sbatch` that runs a command of `jaxnmt`; `tasks`: processes on each node.

    Raises:
        UserError: the time limit leaves too little time to save.
    """
    minutes, least = math.ceil(options.hours * 60) if math.isfinite(options.hours) else 0, 2 * _SAVE_MINUTES
    if minutes < least:
        raise UserError(
            f"--hours {options.hours:g} is too short: the job saves the run {_SAVE_MINUTES} minutes before the limit; give at least "
            f"{least / 60:.2g} hours ({least} minutes)"
        )
    setup = options.setup or "# (commands that make jaxnmt available)"
    times = {"minutes": minutes, "save_seconds": 60 * _SAVE_MINUTES}
    return _filled("slurm.sbatch", options, **times, setup=setup, tasks=tasks, saved=SAVED, command=shlex.join(["jaxnmt", *command]))


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
    hosts, selector, annotations, env = options.hosts, {}, {}, []
    if gpus := re.fullmatch(r"gpu:([1-9]\d*)", options.on):
        if options.slices != 1:
            raise UserError(f"--slices {options.slices}: only TPUs come in slices; give the number of GPU machines with --hosts")
        limits = {"nvidia.com/gpu": int(gpus[1])}
        # JAX cannot ask Kubernetes for the other processes, but the first pod's name and each pod's index are known.
        index = {"fieldRef": {"fieldPath": "metadata.annotations['batch.kubernetes.io/job-completion-index']"}}
        env = [
            {"name": "JAX_COORDINATOR_ADDRESS", "value": f"{options.name}-workers-0-0.{options.name}:8476"},
            {"name": "JAX_NUM_PROCESSES", "value": str(hosts)},
            {"name": "JAX_PROCESS_ID", "valueFrom": index},
        ]
    else:
        wanted = slice_of(options.on, "; gpu:N (N in each host)")
        hosts = -(-wanted.chips // CHIPS_PER_HOST)
        if options.hosts not in (1, hosts):
            raise UserError(f"--hosts {options.hosts}: a slice {options.on} has {hosts} hosts; leave --hosts out")
        limits, topology = {"google.com/tpu": wanted.chips // hosts}, options.on.partition(":")[2]
        annotations = {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"}  # one job per slice
        selector = {"cloud.google.com/gke-tpu-accelerator": wanted.tpu.label, "cloud.google.com/gke-tpu-topology": topology}
    lists = {"command": ["jaxnmt", *command], "lasting_failures": [UserError.status, Diverged.status], "env": env}
    lists |= {"limits": limits, "node_selector": selector, "annotations": annotations}
    as_yaml = {name: json.dumps(value) for name, value in lists.items()}  # JSON is YAML
    return hand_over(_filled("jobset.yaml", options, hosts=hosts, **as_yaml), ["kubectl", "apply", "-f", "-"], options.print)


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
    for flag in ("zone", "project"):
        if not getattr(options, flag):
            raise UserError(f"--{flag} is missing: give the Google Cloud zone and project")
    _check(options.name, command)
    wanted = slice_of(options.on)
    path = 'export PATH="$HOME/.local/bin:$PATH" JAXNMT_DISTRIBUTED=auto'
    lines = ["set -e", path, options.setup, "(exit $?)", shlex.join(["jaxnmt", *command])]
    words = {"name": options.name, "zone": options.zone, "project": options.project, "on_each_host": "\n".join(lines)}
    quoted = {name: shlex.quote(word) for name, word in words.items()}
    nodes = f"--node-id={options.name}" if options.slices == 1 else f"--node-count={options.slices} --node-prefix={options.name}"
    machine = {"accelerator_type": f"{wanted.tpu.type}-{wanted.chips * wanted.tpu.units}", "runtime": wanted.tpu.runtime}
    return hand_over(_filled("tpu_vm.sh", options, **quoted, **machine, nodes=nodes), ["bash", "-c"], options.print, as_word=True)


def launcher(name: str) -> pathlib.Path:
    """Return a file of launch/, in the installed package or in the source tree."""
    package = pathlib.Path(__file__).parents[2]
    return next(path for path in (package / "_launch" / name, package.parent / "launch" / name) if path.is_file())


def _filled(file: str, options: Any, **values: object) -> str:
    """Return a file of launch/ with its placeholders `@{name}` replaced: by `values`, or by the options."""
    return re.sub(r"@\{(\w+)\}", lambda place: str((vars(options) | values)[place[1]]), launcher(file).read_text(encoding="utf-8"))


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
