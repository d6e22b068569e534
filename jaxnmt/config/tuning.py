"""Settings of what a run trains: patterns of parameters' paths, learning rates by path, and low-rank adapters (LoRA)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from jaxnmt.config.fields import NonNegative, Positive


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters (LoRA, Hu et al. 2021): a kernel W becomes W + alpha / rank A B, and only A and B are trained."""

    rank: NonNegative[int] = 0
    """Rank of each product A B; 0: no adapters."""
    alpha: Positive[float] = 16.0
    """A B is multiplied by alpha / rank."""
    paths: tuple[str, ...] = (".*",)
    """Kernels that get adapters: regular expressions, as in training.freeze. Embeddings, norms and biases get none."""


def rate_factors(rates: Sequence[str]) -> list[tuple[str, float]]:
    """Return the pattern and the factor of each `PATTERN=FACTOR` of `training.rates`, which `problems` has checked."""
    return [(pattern, float(factor)) for pattern, _, factor in (rate.rpartition("=") for rate in rates)]


def problems(freeze: Sequence[str], rates: Sequence[str], lora: Lora) -> Iterator[str]:
    """Yield what is wrong with settings of `Training`, without knowing the model."""
    for rate in rates:
        pattern, _, factor = rate.rpartition("=")
        if not pattern or not _is_positive(factor):
            yield f"training.rates has {rate!r}; write a pattern, = and a factor above 0, such as encoder=0.1 (training.freeze freezes)"
    yield from _not_regular("training.freeze", freeze)
    yield from _not_regular("training.rates", (rate.rpartition("=")[0] for rate in rates))
    yield from _not_regular("training.lora.paths", lora.paths)
    if lora.rank and not lora.paths:
        yield "training.lora.paths is empty, so training.lora.rank has no effect: name some paths"
    if not lora.rank and lora != Lora():
        yield "training.lora.alpha and training.lora.paths have no effect without training.lora.rank: set it, to 8 for example"
    if lora.rank and freeze:
        yield "training.lora.rank freezes all parameters but the adapters: leave out training.freeze"


def _is_positive(text: str) -> bool:
    try:
        return math.isfinite(float(text)) and float(text) > 0
    except ValueError:
        return False


def _not_regular(setting: str, patterns: Iterable[str]) -> Iterator[str]:
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            yield f"{setting} has {pattern!r}, which is not a regular expression ({error}): write .* for anything"
