"""Fills in the files of launch/, which start one command on many hosts. Does not import JAX."""

from __future__ import annotations

import json
import math
import pathlib
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jaxnmt.errors import SAVED, Diverged, UserError
from jaxnmt.lab.plan.tpu_slices import slice_of

_PORT = 8476
_SAVE_MINUTES = 5  # before a SLURM job's time limit


class Tpu(NamedTuple):
    """Google's names of a TPU generation: Kubernetes' node label, Cloud TPU's accelerator type and its units per chip, and the machine
    image (https://cloud.google.com/tpu/docs/runtimes)."""

    label: str
    type: str
    units: int
    runtime: str


TPUS = {
    "v5e": Tpu("tpu-v5-lite-podslice", "v5litepod", 1, "v2-alpha-tpuv5-lite"),
    "v5p": Tpu("tpu-v5p-slice", "v5p", 2, "v2-alpha-tpuv5"),
    "v6e": Tpu("tpu-v6e-slice", "v6e", 1, "v2-alpha-tpuv6e"),
}
_CHIPS_PER_HOST = 4


def launcher(name: str) -> pathlib.Path:
    """Return a file of launch/, in the installed package or in the source tree."""
    package = pathlib.Path(__file__).parents[1]
    return next(path for path in (package / "_launch" / name, package.parent / "launch" / name) if path.is_file())


def slurm(command: Sequence[str], name: str, nodes: int, tasks: int, gpus: int, cpus: int, hours: float, setup: str) -> str:
    """Return a job script for `sbatch`.

    Args:
        tasks: processes on each node. The other arguments are those of `jaxnmt launch slurm`.

    Raises:
        UserError: the time limit leaves too little time to save.
    """
    minutes, least = math.ceil(hours * 60) if math.isfinite(hours) else 0, 2 * _SAVE_MINUTES
    if minutes < least:
        raise UserError(
            f"--hours {hours:g} is too short: the job saves the run {_SAVE_MINUTES} minutes before the limit; give at least "
            f"{least / 60:.2g} hours ({least} minutes)"
        )
    values = {"name": name, "nodes": nodes, "tasks": tasks, "gpus": gpus, "cpus": cpus, "minutes": minutes, "command": shlex.join(command)}
    setup = setup or "# (commands that make jaxnmt available)"
    return _fill("slurm.sbatch", values | {"setup": setup, "saved": SAVED, "save_seconds": 60 * _SAVE_MINUTES})


def jobset(command: Sequence[str], name: str, image: str, on: str, hosts: int, slices: int, restarts: int) -> str:
    """Return a JobSet for `kubectl apply`. The arguments are those of `jaxnmt launch jobset`.

    Raises:
        UserError: `on` is neither gpu:N nor a TPU topology; `hosts` or `slices` do not fit it.
    """
    if gpus := re.fullmatch(r"gpu:([1-9]\d*)", on):
        if slices != 1:
            raise UserError(f"--slices {slices}: only TPUs come in slices; give the number of GPU machines with --hosts")
        limits, selector, annotations = {"nvidia.com/gpu": int(gpus[1])}, {}, {}
        # JAX cannot ask Kubernetes for the other processes, but the first pod's name and each pod's index are known.
        index = {"fieldRef": {"fieldPath": "metadata.annotations['batch.kubernetes.io/job-completion-index']"}}
        env = [
            {"name": "JAX_COORDINATOR_ADDRESS", "value": f"{name}-workers-0-0.{name}:{_PORT}"},
            {"name": "JAX_NUM_PROCESSES", "value": str(hosts)},
            {"name": "JAX_PROCESS_ID", "valueFrom": index},
        ]
    else:
        tpu = slice_of(on, "; gpu:N (N in each host)")
        per_host = min(tpu.chips, _CHIPS_PER_HOST)
        if hosts not in (1, tpu.chips // per_host):
            raise UserError(f"--hosts {hosts}: a slice {on} has {tpu.chips // per_host} hosts; leave --hosts out")
        hosts, limits, env = tpu.chips // per_host, {"google.com/tpu": per_host}, []
        annotations = {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"}  # one job per slice
        selector = {
            "cloud.google.com/gke-tpu-accelerator": TPUS[tpu.generation].label,
            "cloud.google.com/gke-tpu-topology": tpu.topology,
        }
    structures = {"command": command, "env": env, "limits": limits, "node_selector": selector, "annotations": annotations}
    values = {"name": name, "image": image, "hosts": hosts, "slices": slices, "restarts": restarts}
    values |= {key: json.dumps(value) for key, value in structures.items()}  # JSON is YAML
    return _fill("jobset.yaml", values | {"lasting_failures": [UserError.status, Diverged.status]})


def tpu_vm(command: Sequence[str], name: str, on: str, slices: int, zone: str, project: str, setup: str) -> str:
    """Return a script that requests Cloud TPU slices and runs the command on each host. The arguments are those of `jaxnmt launch tpu_vm`.

    Raises:
        UserError: `on` is not a TPU topology.
    """
    wanted = slice_of(on)
    tpu = TPUS[wanted.generation]
    lines = ["set -e", 'export PATH="$HOME/.local/bin:$PATH" JAXNMT_DISTRIBUTED=auto', setup, "(exit $?)", shlex.join(command)]
    words = {"name": name, "zone": zone, "project": project, "on_each_host": "\n".join(lines)}
    values = {key: shlex.quote(word) for key, word in words.items()}
    values |= {"accelerator_type": f"{tpu.type}-{wanted.chips * tpu.units}", "runtime": tpu.runtime}
    nodes = f"--node-id={name}" if slices == 1 else f"--node-count={slices} --node-prefix={name}"
    return _fill("tpu_vm.sh", values | {"nodes": nodes})


def _fill(file: str, values: Mapping[str, object]) -> str:
    """Return a file of launch/ with its placeholders `@{name}` replaced."""
    return re.sub(r"@\{(\w+)\}", lambda match: str(values[match[1]]), launcher(file).read_text(encoding="utf-8"))
