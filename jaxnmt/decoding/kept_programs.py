"""Compiled functions that a later process need not trace again.

Tracing a model and its search takes longer than to load the compiled program. JAX's compilation cache keeps only the latter, and needs the
traced program to find it. So the traced program (StableHLO, by `jax.export`) is kept, too.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.export

from jaxnmt.parallel import kept


class KeptFunction:
    """`jax.jit(function)`, traced only if no process has kept its program for arguments of these shapes."""

    def __init__(self, function: Callable[..., Any], identity: tuple[object, ...]):
        """Make a function of any pytrees.

        Args:
            function: returns lists, tuples or dicts of arrays. Its keyword arguments are static.
            identity: all that the program depends on besides its arguments and `kept.name`.
        """
        self._function, self._identity = function, identity
        self._program = functools.cache(self._find)

    def __call__(self, *args: Any, **static: Any) -> Any:
        """Call the function."""
        leaves, tree = jax.tree.flatten(args)
        types = tuple((x.shape, x.dtype, x.weak_type) for x in map(jax.typeof, leaves))
        return self._program(tree, types, tuple(sorted(static.items())))(leaves)

    def _find(self, tree: Any, types: tuple[Any, ...], static: tuple[tuple[str, Any], ...]) -> Callable[[list[Any]], Any]:
        """Return the compiled program for arguments of these types."""
        entry = kept.name(*self._identity, str(tree), types, static)
        if content := kept.read(entry):
            # What cannot be read after all is traced.
            with contextlib.suppress(Exception):
                return jax.jit(jax.export.deserialize(bytearray(content)).call)
        flat = lambda leaves: self._function(*jax.tree.unflatten(tree, leaves), **dict(static))  # noqa: E731
        shapes = [jax.ShapeDtypeStruct(shape, dtype, weak_type=weak) for shape, dtype, weak in types]
        program = jax.export.export(jax.jit(flat))(shapes)
        kept.write(entry, bytes(program.serialize()))
        return jax.jit(program.call)
