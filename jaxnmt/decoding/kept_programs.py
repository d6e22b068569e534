"""Compiled functions that a later process need not trace again.

Tracing a model and its search takes longer than loading the compiled program. JAX's compilation cache stores only the compiled program, and
finds it by the traced one. So the traced program (StableHLO, written by `jax.export`) is stored too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable
from typing import Any

import jax
import jax.export

from jaxnmt.parallel import kept


class _Kept:
    """What is made once for arguments of the same types, by the first process that needs it."""

    def __init__(self, function: Callable[..., Any], cache_key: tuple[object, ...]):
        """Make it for a function of any pytrees.

        Args:
            function: its keyword arguments are static.
            cache_key: everything that the result depends on besides the types of arguments and what `kept.name` adds; empty: it is not
                kept.
        """
        self._function, self._cache_key = function, cache_key
        self._of = functools.cache(self._find)

    def _find(self, tree: Any, types: tuple[Any, ...], static: tuple[tuple[str, Any], ...]) -> Any:
        """Return what is kept for arguments of these types. If this version of JAX cannot read it, it is made again."""
        entry = kept.name(*self._cache_key, str(tree), types, static) if self._cache_key else None
        if content := entry and kept.read(entry):
            with contextlib.suppress(Exception):
                return self._read(content)
        flat = lambda leaves: self._function(*jax.tree.unflatten(tree, leaves), **dict(static))  # noqa: E731
        made, content = self._make(flat, [jax.ShapeDtypeStruct(shape, dtype, weak_type=weak) for shape, dtype, weak in types])
        if entry:
            kept.write(entry, content)
        return made

    def _for(self, leaves: list[Any], tree: Any, static: dict[str, Any]) -> Any:
        types = tuple((x.shape, x.dtype, x.weak_type) for x in map(jax.typeof, leaves))
        return self._of(tree, types, tuple(sorted(static.items())))

    def _make(self, flat: Callable[[list[Any]], Any], types: list[jax.ShapeDtypeStruct]) -> tuple[Any, bytes]:
        """Make it for a function of a list. Returns it, and as bytes."""
        raise NotImplementedError

    def _read(self, content: bytes) -> Any:
        raise NotImplementedError


class KeptFunction(_Kept):
    """`jax.jit(function)`, traced only if no process has kept its program. The function returns lists, tuples or dicts of arrays."""

    def __init__(self, function: Callable[..., Any], cache_key: tuple[object, ...], donates: int = 0):
        """Make a function; the first `donates` arguments are donated."""
        super().__init__(function, cache_key)
        self._donates = donates

    def __call__(self, *args: Any, **static: Any) -> Any:
        """Call the function."""
        leaves, tree = jax.tree.flatten(args)
        donated = len(jax.tree.leaves(args[: self._donates]))
        return self._for(leaves, tree, static)(leaves[:donated], leaves[donated:])

    def _make(self, flat: Callable[[list[Any]], Any], types: list[jax.ShapeDtypeStruct]) -> tuple[Any, bytes]:
        program = jax.export.export(jax.jit(flat))(types)
        return _jitted(program), bytes(program.serialize())

    def _read(self, content: bytes) -> Any:
        return _jitted(_without_lapack(jax.export.deserialize(bytearray(content))))


class KeptTypes(_Kept):
    """`jax.eval_shape(function)`, traced only if no process has kept the result. The function returns a list."""

    def __call__(self, *args: Any, **static: Any) -> list[jax.ShapeDtypeStruct]:
        """Return the types of what the function returns."""
        leaves, tree = jax.tree.flatten(args)
        return self._for(leaves, tree, static)

    def _make(self, flat: Callable[[list[Any]], Any], types: list[jax.ShapeDtypeStruct]) -> tuple[Any, bytes]:
        found = jax.eval_shape(flat, types)
        return found, json.dumps([[x.shape, x.dtype.name] for x in found]).encode()

    def _read(self, content: bytes) -> Any:
        return [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in json.loads(content)]


def _jitted(program: jax.export.Exported) -> Callable[[list[Any], list[Any]], Any]:
    """Return a program as a function of the leaves that it may overwrite, and of the others."""
    return jax.jit(lambda donated, leaves: program.call([*donated, *leaves]), donate_argnums=0)


def _without_lapack(program: jax.export.Exported) -> jax.export.Exported:
    """Return the same program, for which JAX does not load LAPACK unless it calls LAPACK.

    JAX loads it for every exported program that names CPUs as its platform, by importing scipy.linalg: 0.2 s.
    """
    if b"lapack" in program.mlir_module_serialized:
        return program
    unchecked = (*program.disabled_safety_checks, jax.export.DisabledSafetyCheck.platform())
    return dataclasses.replace(program, platforms=("any",), disabled_safety_checks=unchecked)
