"""Laws 2 and 7: one device and eight reach the same loss, and one device restores the checkpoint of eight.

Another process simulates the eight. It reads the configuration from a file, and writes its losses and a checkpoint.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from jaxnmt import config as cfg
from jaxnmt import errors
from jaxnmt.config import model_code
from jaxnmt.config.files import read_config, save_config
from jaxnmt.lab.laws.practice import Practice, batch
from jaxnmt.lab.laws.subject import Subject, Verdict, close
from jaxnmt.lab.laws.training import restore, save
from jaxnmt.parallel.sharding import to_mesh
from jaxnmt.training.programs import evaluation_program
from jaxnmt.training.state import TrainState

STEPS, DEVICES = 5, 8
MESHES = (cfg.Mesh(data=2, fsdp=2, tensor=2), cfg.Mesh(data=DEVICES))
"""The law uses the first mesh whose axes divide the model's sizes."""


def devices(subject: Subject) -> Verdict:
    """Compare the loss of each of a few steps with dropout, on eight devices and on one; then the loss with the checkpoint of the eight."""
    practice = Practice(subject.model, subject.experiment)
    _, losses = practice.run(practice.fresh(), [batch(step) for step in range(STEPS)])
    with tempfile.TemporaryDirectory(prefix="jaxnmt-laws-") as name:
        told = _on_eight(subject, Path(name))
        state = restore(subject, practice, Path(name), STEPS)
    apart = np.abs(np.subtract(told["losses"], losses)).max()
    restored = abs(told["evaluation"] - _evaluation(subject, practice, state))
    if restored > 1e-5:
        return Verdict(False, f"the checkpoint of {told['mesh']} devices, restored on {practice.mesh.size}, has a loss {restored:.1g} away")
    return close(apart, 1e-4, f"{told['mesh']} devices, their checkpoint restored here, largest difference of a loss")


def _on_eight(subject: Subject, folder: Path) -> dict:
    """Run `worker` in a process with eight devices, and return what it writes."""
    save_config(subject.experiment, folder / "config.json")
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={DEVICES}"
    code = "import sys; from jaxnmt.lab.laws.devices import worker; worker(sys.argv[1])"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-P", "-c", code, str(folder)], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"on {DEVICES} devices: {(done.stderr.strip() or 'it ended without a message').splitlines()[-1]}")
    return json.loads((folder / "told.json").read_text())


def worker(folder: str) -> None:
    """Train on all devices of this process; write a checkpoint and `told.json` into a folder that holds `config.json`."""
    run = Path(folder)
    with model_code.all_trusted():  # the parent has written it
        experiment = read_config(run / "config.json")
    subject = Subject(experiment.model)
    for mesh in MESHES:
        try:
            practice = Practice(subject.model, cfg.replace(experiment, mesh=mesh))
            break
        except errors.UserError:
            if mesh == MESHES[-1]:
                raise
    state, losses = practice.run(practice.fresh(), [batch(step) for step in range(STEPS)])
    save(subject, state, run)
    named = " x ".join(str(n) for n in practice.mesh.devices.shape if n > 1)
    (run / "told.json").write_text(json.dumps({"losses": losses, "evaluation": _evaluation(subject, practice, state), "mesh": named}))


def _evaluation(subject: Subject, practice: Practice, state: TrainState) -> float:
    sums = evaluation_program(subject.model, 0.1, practice.mesh)(state.eval_params, to_mesh(batch(STEPS), practice.mesh))
    return float(sums.loss) / float(sums.tokens)
