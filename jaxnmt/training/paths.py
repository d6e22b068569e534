"""Choose parameters by patterns of their paths.

A pattern is a regular expression that matches the whole path of a parameter or of a module around it: `encoder/layer_[0-3]` stands for all
parameters of four layers. Layers are named one by one, as checkpoints name them, also where a model stacks them.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

from jaxnmt.config.fields import did_you_mean
from jaxnmt.errors import UserError


def by_path(tree: Any) -> dict[str, Any]:
    """Return the leaves of nested dicts by their paths, `a/b/c`."""
    return flatten_dict(tree, sep="/")


def modules_around(path: str) -> list[str]:
    """Return "a", "a/b" and "a/b/c" of the path "a/b/c"."""
    return list(itertools.accumulate(path.split("/"), "{}/{}".format))


def layer_paths(path: str, axes: str, shape: Sequence[int]) -> list[str]:
    """Return the paths of a parameter in checkpoints: one, or one for each layer if its first axis counts layers."""
    if not axes.startswith("L"):
        return [path]
    return [f"/{path}".replace("/layers/", f"/layer_{layer}/", 1)[1:] for layer in range(shape[0])]


def matching(setting: str, patterns: Sequence[str], paths: Mapping[str, Sequence[str]], kind: str = "parameter") -> set[str]:
    """Return the parameters that a pattern matches.

    Args:
        setting: that has the patterns, for messages.
        paths: for each parameter its paths in checkpoints (`layer_paths`).
        kind: what they are, for messages.

    Raises:
        UserError: a pattern matches nothing; or some layers of a stack, but not all.
    """
    check(setting, patterns, paths, kind)
    found = set()
    for name, names in paths.items():
        hits = [any(_matches(pattern, each) for pattern in patterns) for each in names]
        if any(hits) and not all(hits):
            raise UserError(
                f"{setting} {' '.join(patterns)} matches some layers of {name.partition('/layers/')[0]} and not others, "
                "and model.scan_layers True stacks them: set model.scan_layers False, which parameters of a scanned run fit"
            )
        if all(hits):
            found.add(name)
    return found


def check(setting: str, patterns: Sequence[str], paths: Mapping[str, Sequence[str]], kind: str = "parameter") -> None:
    """Check that each pattern matches a parameter.

    Raises:
        UserError: one matches nothing; names the nearest paths.
    """
    names = list(itertools.chain.from_iterable(paths.values()))
    for pattern in patterns:
        if not any(_matches(pattern, name) for name in names):
            around = dict.fromkeys(itertools.chain.from_iterable(map(modules_around, names)))
            near = did_you_mean(pattern, around) or f"; the largest modules are {', '.join(path for path in around if '/' not in path)}"
            raise UserError(f"{setting} {pattern} matches no {kind}{near}")


def factors(setting: str, rates: Sequence[tuple[str, float]], paths: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return a factor for each parameter: that of the first pattern that matches it, else 1. That of stacked layers is an array (L,).

    Raises:
        UserError: a pattern matches nothing.
    """
    check(setting, [pattern for pattern, _ in rates], paths)

    def factor(name: str) -> float:
        return next((value for pattern, value in rates if _matches(pattern, name)), 1.0)

    made = {name: [factor(each) for each in names] for name, names in paths.items()}
    return {name: values[0] if len(set(values)) == 1 else np.array(values, np.float32) for name, values in made.items()}


def _matches(pattern: str, path: str) -> bool:
    return any(re.fullmatch(pattern, module) for module in modules_around(path))
