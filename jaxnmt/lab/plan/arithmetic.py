"""Counts the arithmetic of a traced program: matrix products, including those in loops, of recomputation and in Pallas kernels."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any


@dataclasses.dataclass(frozen=True)
class Work:
    """The work of all devices together in one call.

    Attributes:
        flops: floating-point operations of matrix products, including those in kernels.
        kernel_flops: those in Pallas kernels, which the compiler's analysis does not see.
        kernel_bytes: bytes that these kernels read and write.
    """

    flops: float = 0.0
    kernel_flops: float = 0.0
    kernel_bytes: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.kernel_flops + other.kernel_flops, self.kernel_bytes + other.kernel_bytes)

    def __mul__(self, times: float) -> Work:
        return Work(times * self.flops, times * self.kernel_flops, times * self.kernel_bytes)


def work(jaxpr: Any, unknown_trips: int) -> Work:
    """Return the work of one call of a traced program; of a `cond`, that of the branch with most.

    Args:
        jaxpr: `jitted.trace(...).jaxpr`.
        unknown_trips: number of iterations of a loop whose length is known only at run time.
    """
    return sum((_equation(eqn, unknown_trips) for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns), Work())


def _equation(eqn: Any, unknown_trips: int) -> Work:
    parts = [work(inner, unknown_trips) for inner in _inner(eqn.params)]
    match eqn.primitive.name:
        case "dot_general":
            return Work(flops=_product(eqn))
        case "pallas_call":
            return _kernel(eqn, sum(part.flops for part in parts))
        case "cond":
            return max(parts, key=lambda part: part.flops, default=Work())
        case "scan":
            times = eqn.params["length"]
        case "while":
            times = unknown_trips
        case "shard_map":  # its program is that of one device
            times = eqn.params["mesh"].size
        case _:
            times = 1
    return sum(parts, Work()) * times


def _product(eqn: Any) -> float:
    """Return 2 for each pair of numbers multiplied."""
    (contracted, _), _ = eqn.params["dimension_numbers"]
    left = eqn.invars[0].aval.shape
    return 2.0 * math.prod(eqn.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)


def _kernel(eqn: Any, flops: float) -> Work:
    """Return the work of a Pallas kernel: that of one grid point, times the number of grid points."""
    flops *= math.prod(eqn.params["grid_mapping"].grid)
    moved = sum(x.aval.size * x.aval.dtype.itemsize for x in (*eqn.invars, *eqn.outvars))
    return Work(flops, flops, moved)


def _inner(params: dict[str, Any]) -> Iterator[Any]:
    """Yield the programs among an equation's parameters."""
    for value in params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            if hasattr(one, "eqns") or hasattr(one, "jaxpr"):
                yield one
