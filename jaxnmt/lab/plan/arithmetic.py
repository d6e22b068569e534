"""Counts the arithmetic of a traced program: matrix products, including those in loops, of recomputation and in Pallas kernels."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import numpy as np


@dataclasses.dataclass(frozen=True)
class Work:
    """The work of all devices together in one call.

    Attributes:
        flops: floating-point operations of matrix products, including those in kernels.
        kernel_flops: those in Pallas kernels, which the compiler's analysis does not see.
        kernel_bytes: bytes that these kernels read and write.
    """

    flops: float
    kernel_flops: float
    kernel_bytes: float


def work(jaxpr: Any, unknown_trips: int) -> Work:
    """Return the work of one call of a traced program; of a `cond`, that of the branch with most.

    Args:
        jaxpr: `jitted.trace(...).jaxpr`.
        unknown_trips: number of iterations of a loop whose length is known only at run time.
    """
    return Work(*_program(jaxpr, unknown_trips).tolist())


def _program(jaxpr: Any, unknown_trips: int) -> np.ndarray:
    """Return the three numbers of `Work`."""
    return sum((_equation(eqn, unknown_trips) for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns), np.zeros(3))


def _equation(eqn: Any, unknown_trips: int) -> np.ndarray:
    inner = [x for x in jax.tree.leaves(eqn.params) if hasattr(x, "eqns") or hasattr(x, "jaxpr")]
    parts = [_program(each, unknown_trips) for each in inner]
    match eqn.primitive.name:
        case "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            products = math.prod(eqn.outvars[0].aval.shape) * math.prod(eqn.invars[0].aval.shape[axis] for axis in contracted)
            return np.array([2.0 * products, 0, 0])  # a multiplication and an addition each
        case "pallas_call":  # its program is that of one grid point
            flops = sum(part[0] for part in parts) * math.prod(eqn.params["grid_mapping"].grid)
            return np.array([flops, flops, sum(x.aval.size * x.aval.dtype.itemsize for x in (*eqn.invars, *eqn.outvars))])
        case "cond":
            return max(parts, key=lambda part: part[0])
        case "scan":
            times = eqn.params["length"]
        case "while":
            times = unknown_trips
        case "shard_map":  # its program is that of one device
            times = eqn.params["mesh"].size
        case _:
            times = 1
    return times * sum(parts, np.zeros(3))
