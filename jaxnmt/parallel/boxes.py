"""The boxes in which linen keeps what a parameter declares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct


@flax.struct.dataclass
class Multiplied(nn.LogicallyPartitioned):
    """The box of a weight that its model uses only in products `x @ w` and look-ups `w[tokens]`. Decoding may load it in int8."""


def boxed(init: Callable[..., Any], axes: str, multiplied: bool) -> Callable[..., Any]:
    """Return the initializer of a parameter in a box with the letters of its axes; `multiplied`: the box is `Multiplied`."""
    made = nn.with_logical_partitioning(init, tuple(axes))
    return (lambda *given: Multiplied(**vars(made(*given)))) if multiplied else made
