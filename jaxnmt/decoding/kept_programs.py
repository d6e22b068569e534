"""Compiled functions that a later process need not trace again.

Tracing a model and its search takes longer than loading the compiled program. JAX's compilation cache stores only the compiled program, and
finds it by the traced one. So the traced program (StableHLO, written by `jax.export`) is stored too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.export

from jaxnmt.parallel import kept


class KeptFunction:
    """`jax.jit(function)`, traced only if no process has kept its program for arguments of these shapes."""

    def __init__(self, function: Callable[..., Any], cache_key: tuple[object, ...]):
        """Make a function of any pytrees.

        Args:
            function: returns lists, tuples or dicts of arrays. Its keyword arguments are static.
            cache_key: everything that the program depends on besides its arguments and what `kept.name` adds.
        """
        self._function, self._cache_key = function, cache_key
        self._program = functools.cache(self._find)

    def __call__(self, *args: Any, **static: Any) -> Any:
        """Call the function."""
        leaves, tree = jax.tree.flatten(args)
        types = tuple((x.shape, x.dtype, x.weak_type) for x in map(jax.typeof, leaves))
        return self._program(tree, types, tuple(sorted(static.items())))(leaves)

    def _find(self, tree: Any, types: tuple[Any, ...], static: tuple[tuple[str, Any], ...]) -> Callable[[list[Any]], Any]:
        """Return the compiled program for arguments of these types."""
        entry = kept.name(*self._cache_key, str(tree), types, static)
        if content := kept.read(entry):
            # If this version of JAX cannot read it, the function is traced again.
            with contextlib.suppress(Exception):
                return jax.jit(_without_lapack(jax.export.deserialize(bytearray(content))).call)
        flat = lambda leaves: self._function(*jax.tree.unflatten(tree, leaves), **dict(static))  # noqa: E731
        shapes = [jax.ShapeDtypeStruct(shape, dtype, weak_type=weak) for shape, dtype, weak in types]
        program = jax.export.export(jax.jit(flat))(shapes)
        kept.write(entry, bytes(program.serialize()))
        return jax.jit(program.call)


def _without_lapack(program: jax.export.Exported) -> jax.export.Exported:
    """Return the same program, for which JAX does not load LAPACK unless it calls LAPACK.

    JAX loads it for every exported program that names CPUs as its platform, by importing scipy.linalg: 0.2 s.
    """
    if b"lapack" in program.mlir_module_serialized:
        return program
    unchecked = (*program.disabled_safety_checks, jax.export.DisabledSafetyCheck.platform())
    return dataclasses.replace(program, platforms=("any",), disabled_safety_checks=unchecked)
