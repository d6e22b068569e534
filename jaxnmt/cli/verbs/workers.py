"""Translation by several processes, each on its share of a CPU's cores: the option --workers."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any

from jaxnmt.config import Decoding, model_code
from jaxnmt.errors import UserError
from jaxnmt.io.workers import cores, in_order
from jaxnmt.parallel import compiler, distributed, log
from jaxnmt.run import Checkpoint, Run
from jaxnmt.runs import directory

WINDOW = 4
"""Batches of lines that a process gets at a time: few, so that all processes have work in a file of a thousand lines."""


def number(workers: int) -> int:
    """Return the number of processes that --workers means.

    Raises:
        UserError: there are fewer cores, or this process is one of several already.
    """
    available = len(cores())
    if workers != 1 and distributed.is_distributed():
        raise UserError(f"--workers {workers}: {distributed.prefix()}the processes share the work already; leave --workers out")
    if workers > available:
        raise UserError(f"--workers {workers} is more than the {available} cores that this process may use; 0 means one per core")
    return workers or available


def numbered(windows: Iterable[list[str]]) -> Iterator[tuple[list[str], int] | None]:
    """Yield each window with the number of its first line; None for an empty one."""
    first = 1
    for lines in windows:
        yield (lines, first) if lines else None
        first += len(lines)


def translated(
    make: Callable[..., Any], folders: Sequence[str], options: Any, windows: Iterator[tuple[list[str], int] | None], processes: int
) -> Generator[tuple[list[str], int]]:
    """Yield what `make(folder, options, checkpoints)(lines, first)` returns for each window, in order, computed by several processes.

    Args:
        make: a module's function.
        folders: of the run and of those of --ensemble.
    """
    runs = [Run(folder, options.checkpoint) for folder in folders]
    for run in runs:
        log.say(f"{run.checkpoint} of {run.folder}, by {processes} processes")
    # The decoding settings may be of a class of the user's own, which a worker does not know before it has read the run.
    plain, settings = dataclasses.replace(options, decoding=Decoding()), vars(options.decoding)
    opens = functools.partial(_open, make, folders[0], plain, settings, [run.pinned for run in runs])
    died = "a process that translates died (out of memory?): use fewer --workers"
    at_once: list[Any] = [([], 1)]  # opens the run before a line is waited for
    with contextlib.closing(in_order(opens, itertools.chain(at_once, windows), processes, died, divide_cores=True)) as results:
        next(results)
        yield from results


def _open(
    make: Callable[..., Any], folder: str, plain: Any, settings: dict[str, Any], checkpoints: Sequence[Checkpoint]
) -> Callable[[list[str], int], tuple[list[str], int]]:
    """Return what translates, in a worker.

    Raises:
        UserError: JAX's devices are not the cores of one CPU.
    """
    log.silence_libraries()
    compiler.enable_compilation_cache()
    compiler.check()
    import jax

    if jax.default_backend() != "cpu" or jax.device_count() > 1:
        found = f"{jax.device_count()} {jax.devices()[0].device_kind}"
        raise UserError(f"--workers divides the cores of one CPU, and JAX finds {found} devices, which share the work: leave --workers out")
    with model_code.all_trusted():  # the parent has checked
        decoding = dataclasses.replace(directory.read(folder).decoding, **settings)
        translate = make(folder, dataclasses.replace(plain, decoding=decoding), checkpoints)

    def translated(lines: list[str], first: int) -> tuple[list[str], int]:
        with log.printed():
            return translate(lines, first)

    return translated
