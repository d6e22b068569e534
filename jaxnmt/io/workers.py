"""Call a function in several processes, each on its share of the cores if wanted. The results come in the order of the arguments."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import sys
import threading
import types
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from jaxnmt.errors import UserError

_make: Callable[[], Callable[..., Any]]  # in a worker


def cores() -> list[int]:
    """Return the numbers of the cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def in_order(
    make: Callable[[], Callable[..., Any]], arguments: Iterable[tuple | None], workers: int, died: str, divide_cores: bool = False
) -> Generator[Any]:
    """Yield what a function returns for each tuple of arguments. At most two calls for each worker are under way.

    A process starts when it is needed. None is left when the iterator ends, is closed, or raises what the function raised.

    Args:
        make: returns the function; called once in each process. It must be picklable, such as a partial of a module's function.
        arguments: one call each; at a None, results that are ready are yielded.
        died: message if a process is killed.
        divide_cores: give each process the same number of cores of its own, where the system can (Linux).

    Raises:
        UserError: a process was killed.
    """
    context = multiprocessing.get_context("spawn")  # forking a process that has JAX's threads may hang
    is_wanted, wanted = context.Pipe(duplex=False)
    shares = context.SimpleQueue()
    for share in _shares(workers) if divide_cores else [None] * workers:
        shares.put(share)
    pool = ProcessPoolExecutor(workers, context, _start, (is_wanted, shares, make))
    pending: deque[Future] = deque()
    try:
        for each in arguments:
            if each is not None:
                pending.append(_submit(pool, each))
            while pending and (len(pending) >= 2 * workers or pending[0].done()):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool as error:
        raise UserError(died) from error
    except BaseException:
        wanted.close()  # ends calls that are under way
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        wanted.close()


def _shares(workers: int) -> list[list[int]]:
    """Return the cores of each worker."""
    all_cores = cores()
    bounds = [len(all_cores) * i // workers for i in range(workers + 1)]
    return [all_cores[start:stop] for start, stop in zip(bounds, bounds[1:], strict=False)]


def _submit(pool: ProcessPoolExecutor, arguments: tuple) -> Future:
    # A worker that is spawned would import the script in __main__, and with it JAX, or start it again.
    main, sys.modules["__main__"] = sys.modules["__main__"], types.ModuleType("__main__")
    try:
        return pool.submit(_call, arguments)
    finally:
        sys.modules["__main__"] = main


# ---- in a worker


def _start(is_wanted, shares, make: Callable[[], Callable[..., Any]]) -> None:
    """Leave Ctrl-C to the parent, exit when it is killed or needs this process no more, and take a share of the cores."""
    global _make
    _make = make
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_when_unwanted, args=(is_wanted,), daemon=True).start()
    share = shares.get()
    if share and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, share)


def _exit_when_unwanted(is_wanted) -> None:
    is_wanted.poll(None)  # nothing is ever sent: it returns when the parent has closed the other end
    os._exit(1)


@functools.cache
def _function() -> Callable[..., Any]:
    return _make()


def _call(arguments: tuple) -> Any:
    return _function()(*arguments)
