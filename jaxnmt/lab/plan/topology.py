"""Targets of compilation by name: a TPU slice or GPUs that need not exist, simulated CPU devices, or the GPUs of this machine.

Importing this module does not import JAX, so that a typo is reported at once.
"""

from __future__ import annotations

import contextlib

from jaxnmt.errors import UserError
from jaxnmt.lab.plan import gpus, tpus
from jaxnmt.lab.plan.chips import Chip, Target


def target(name: str) -> Target:
    """Return the target of a name such as `v5p:4x4x8`, `h100:2x8`, `cpu:8` or `gpu`. Call this before JAX initializes its devices.

    Raises:
        UserError: the name is unknown, or a compiler or a GPU is missing.
    """
    if name == "gpu":
        return gpus.here()
    if size := gpus.size_of(name):
        return gpus.target(name, *size)
    kind, _, number = name.partition(":")
    if kind == "cpu" and number.isdigit() and int(number) > 0:
        return _simulated(name, int(number))
    return tpus.target(tpus.slice_of(name, f"; {gpus.known()}; cpu:N (N simulated devices); gpu (this machine's)"))


def _simulated(name: str, number: int) -> Target:
    import jax

    jax.config.update("jax_platforms", "cpu")
    with contextlib.suppress(RuntimeError):  # JAX has initialized its devices: a config's own code may do so
        jax.config.update("jax_num_cpu_devices", number)
    devices = jax.devices("cpu")[:number]
    if len(devices) < number:
        raise UserError(f"--on {name}: this process has {len(devices)} simulated device(s), and JAX cannot add more: start a new process")
    return Target(name, Chip("simulated device"), devices)
