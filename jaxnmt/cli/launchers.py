"""The files of launch/, filled in: what starts the same command on many hosts. No JAX here."""

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
_SAVE_SECONDS = 300  # before a SLURM job's time limit


class Tpu(NamedTuple):
    """What Google calls a generation: as Kubernetes' node label, as Cloud TPU's accelerator type, how many units of that type a chip
    counts for, and the machine image (https://cloud.google.com/tpu/docs/runtimes)."""

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
    """A file of launch/, in the installed package or in the source tree."""
    package = pathlib.Path(__file__).parents[1]
    return next(path for path in (package / "_launch" / name, package.parent / "launch" / name) if path.is_file())


def slurm(command: Sequence[str], name: str, nodes: int, tasks: int, gpus: int, cpus: int, hours: float, setup: str) -> str:
    """Return a job script for `sbatch`.

    Args:
        tasks: processes on each node. The other arguments are those of `jaxnmt launch slurm`.

    Raises:
        UserError: a number is out of range, or the time limit leaves too little time before the signal to save.
    """
    check_counts(nodes=nodes, tasks=tasks, cpus=cpus)
    if gpus < 0:
        raise UserError(f"--gpus expects a number from 0 on, not {gpus}")
    minutes, least = math.ceil(hours * 60) if math.isfinite(hours) else 0, 2 * _SAVE_SECONDS // 60
    if minutes < least:
        raise UserError(
            f"--hours {hours:g} will not do: SLURM asks the run to save {_SAVE_SECONDS // 60} minutes before the limit; give at least "
            f"{least / 60:.2g} hours ({least} minutes)"
        )
    values = {"name": name, "nodes": nodes, "tasks": tasks, "gpus": gpus, "cpus": cpus, "minutes": minutes, "command": shlex.join(command)}
    values |= {"setup": setup or "# (whatever makes the command jaxnmt known)", "saved": SAVED, "save_seconds": _SAVE_SECONDS}
    return _fill("slurm.sbatch", values)


def check_counts(**counts: int) -> None:
    """Refuse a number below 1 by the name of its option."""
    for flag, count in counts.items():
        if count < 1:
            raise UserError(f"--{flag} expects a number above 0, not {count}")


def jobset(command: Sequence[str], name: str, image: str, on: str, hosts: int, slices: int, restarts: int) -> str:
    """A JobSet for `kubectl apply`. Arguments: as the flags of `jaxnmt launch jobset`.

    Raises:
        UserError: `on` is neither gpu:N nor a TPU topology; `hosts` or `slices` that do not go with it.
    """
    if gpus := re.fullmatch(r"gpu:([1-9]\d*)", on):
        if slices != 1:
            raise UserError(f"--slices {slices}: only TPUs come in slices; give the number of GPU machines with --hosts")
        limits, selector, annotations = {"nvidia.com/gpu": int(gpus[1])}, {}, {}
        # Kubernetes has no peers of its own that JAX could ask for: the first pod's name is known, and each pod's number.
        number = {"fieldRef": {"fieldPath": "metadata.annotations['batch.kubernetes.io/job-completion-index']"}}
        env = [
            {"name": "JAX_COORDINATOR_ADDRESS", "value": f"{name}-workers-0-0.{name}:{_PORT}"},
            {"name": "JAX_NUM_PROCESSES", "value": str(hosts)},
            {"name": "JAX_PROCESS_ID", "valueFrom": number},
        ]
    else:
        asked = slice_of(on, "; gpu:N (N in each host)")
        per_host = min(asked.chips, _CHIPS_PER_HOST)
        if hosts not in (1, asked.chips // per_host):
            raise UserError(f"--hosts {hosts}: a slice {on} has {asked.chips // per_host} hosts; leave --hosts out")
        hosts, limits, env = asked.chips // per_host, {"google.com/tpu": per_host}, []
        annotations = {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"}  # no two jobs on one slice
        selector = {
            "cloud.google.com/gke-tpu-accelerator": TPUS[asked.generation].label,
            "cloud.google.com/gke-tpu-topology": asked.topology,
        }
    lasting = [UserError.status, Diverged.status]
    structures = {"command": command, "env": env, "limits": limits, "node_selector": selector, "annotations": annotations}
    values = {"name": name, "image": image, "hosts": hosts, "slices": slices, "restarts": restarts, "lasting_failures": lasting}
    return _fill("jobset.yaml", values | {key: json.dumps(value) for key, value in structures.items()})  # JSON is YAML


def tpu_vm(command: Sequence[str], name: str, on: str, slices: int, zone: str, project: str, setup: str) -> str:
    """A script that asks Cloud TPU for slices and starts the command on each host. Arguments: as the flags of `jaxnmt launch tpu_vm`.

    Raises:
        UserError: `on` is no TPU topology.
    """
    asked = slice_of(on)
    tpu = TPUS[asked.generation]
    lines = ["set -e", 'export PATH="$HOME/.local/bin:$PATH" JAXNMT_DISTRIBUTED=auto', setup, "(exit $?)", shlex.join(command)]
    words = {"name": name, "zone": zone, "project": project, "on_each_host": "\n".join(lines)}
    values = {key: shlex.quote(word) for key, word in words.items()}
    values |= {"accelerator_type": f"{tpu.type}-{asked.chips * tpu.units}", "runtime": tpu.runtime}
    nodes = f"--node-id={name}" if slices == 1 else f"--node-count={slices} --node-prefix={name}"
    return _fill("tpu_vm.sh", values | {"nodes": nodes})


def _fill(file: str, values: Mapping[str, object]) -> str:
    return re.sub(r"@\{(\w+)\}", lambda match: str(values[match[1]]), launcher(file).read_text(encoding="utf-8"))
