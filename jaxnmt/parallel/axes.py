"""Axes of arrays, named by letters: the legend of the whole project, and what a parameter's letters say about it.

    B  rows of a batch            V  vocabulary, padded             L  stacked layers (always the first axis)
    S  source positions           P  rows of a position table       G  gates of a recurrent cell
    T  target positions           D  model width: what layers       U  units of a recurrent layer
    H  attention heads               read and hand on               Z  gates x units
    K  width of one head          F  hidden width of an MLP         N  anything else that is counted
    Q  queries of a sentence      A  width in which an attention compares queries with keys
    W  beams of a sentence        C  candidates of a search step    R  batch rows x beams

A name ends with the letters of its array: `logits_BTV`. A digit is an axis of that size. A parameter declares its letters where it is made
(`declare`); `-` stands for an axis that nobody declared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from jaxnmt import errors

UNDECLARED = "-"


def path_name(path: Any) -> str:
    """Return a pytree path as `a/b/c`."""
    return "/".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)


def declare(init: Callable[..., Any], axes: str, multiplied: bool = False) -> Callable[..., Any]:
    """Return the initializer `init` of a parameter with these axes ("DF"); "" declares nothing. For `multiplied` see `boxes.Multiplied`."""
    from jaxnmt.parallel import boxes  # translating by kept programs needs no flax, which takes 0.2 s to import

    return boxes.boxed(init, axes, multiplied) if axes else init


def declared(params: Any) -> Any:
    """Return each parameter's letters, as a tree of strings: one letter for each axis.

    Args:
        params: what a linen module's `init` returns, or its shapes, with flax's boxes around the parameters that declare their axes.

    Raises:
        UserError: a parameter declares more or fewer axes than it has.
    """

    import flax.linen as nn

    def letters(path, x) -> str:
        if not isinstance(x, nn.Partitioned):
            stacked = "/layers/" in f"/{path_name(path)}"
            return "L" * stacked + UNDECLARED * (x.ndim - stacked)
        if len(x.names) != x.value.ndim:
            raise errors.UserError(
                f"the parameter {path_name(path)} declares the axes {x.names} but has the shape {x.value.shape}: declare one for each axis"
            )
        return "".join(name if name and len(name) == 1 else UNDECLARED for name in x.names)

    return jax.tree_util.tree_map_with_path(letters, params, is_leaf=lambda x: isinstance(x, nn.Partitioned))


def is_matrix(path: Any, axes: str) -> bool:
    """Return whether a parameter is a matrix: not a vector, and not one of linen's biases and scales, which may have several axes."""
    return len(axes.removeprefix("L")) > 1 and path[-1].key not in ("bias", "scale")


def is_kernel(path: Any, axes: str) -> bool:
    """Return whether activations are multiplied by a parameter: a matrix from or to D, or a `kernel` of linen's; not a table of vectors."""
    return is_matrix(path, axes) and axes.removeprefix("L")[0] not in "VP" and ("D" in axes or path[-1].key == "kernel")


def rows_and_columns(axes: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return which axes of a kernel are its inputs and which its outputs. A digit counts matrices and is neither.

    D is one side, everything else the other: "HKD" is (H x K, D), "D3HK" is 3 times (D, H x K). Without D, the first axis is the inputs.
    """
    places = [i for i, letter in enumerate(axes) if not (letter.isdigit() or (i == 0 and letter == "L"))]
    inputs = len(places) - 1 if axes.endswith("D") else 1
    return tuple(places[:inputs]), tuple(places[inputs:])
