"""Several processes that are one run: how they find each other, agree, stop together, and notice one that is stuck.

JAX's own runtime (`jax.distributed`) does the work. In a process of its own everything here does nothing, and does not even import JAX.
Processes agree through the key-value store of JAX's coordinator, which process 0 holds: no device takes part, and an hour's wait is no
collective that hangs. Every function that waits must be called by all processes in the same order.
"""

from __future__ import annotations

import collections
import contextlib
import json
import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from jaxnmt.errors import SAVED, Unreachable, UserError, first_line
from jaxnmt.parallel import peers

_A_DAY = 24 * 3600  # seconds; whoever waits for process 0 to read a large corpus waits long
_TOGETHER = (0, SAVED)  # statuses that all processes leave with at once


class _Place(NamedTuple):
    process: int = 0
    processes: int = 1
    client: Any = None


_here = _Place()
_uses: collections.Counter[str] = collections.Counter()


def join(stops_together: bool = False) -> None:
    """Find the other processes, where the environment speaks of any; before anything touches a device.

    Args:
        stops_together: SIGTERM does not end this process, but is what `reached_preemption` looks for.

    Raises:
        UserError: the environment is incomplete. Unreachable: they do not find each other.
    """
    if several() or not peers.are_several():
        return
    told = peers.read_environment()
    if told.count == 1:
        return
    with peers.patience(told):
        _initialize(told, stops_together)
    _take_place()


def _initialize(told: peers.Peers, stops_together: bool) -> None:
    import jax

    method = {"cluster_detection_method": "deactivate"} if told.is_complete else {}  # nobody else need be asked
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", stops_together)
    try:
        jax.distributed.initialize(
            *(told.address, told.count, told.index, told.devices),
            initialization_timeout=round(peers.WAIT_SECONDS) + 60,  # `patience` ends first
            shutdown_timeout_seconds=30,
            **method,
        )
    except (ValueError, RuntimeError) as error:
        at = f" at {told.address}" if told.address else ""
        kind = UserError if isinstance(error, ValueError) else Unreachable  # JAX raises the former where something is missing
        raise kind(
            f"the environment asks for several processes, and they do not find each other{at} ({first_line(error)}): set "
            "JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID in each"
        ) from error


def _take_place() -> None:
    """Remember which process this is, and meet the others for the first time."""
    global _here
    from jax._src import distributed as runtime  # the store and the barriers have no public name
    from jax.experimental import multihost_utils

    state = runtime.global_state
    if state.num_processes > 1:
        _here = _Place(state.process_id, state.num_processes, state.client)
        sys.excepthook = _fail
        with _silent_stdout():
            multihost_utils.sync_global_devices("jaxnmt")


@contextlib.contextmanager
def _silent_stdout() -> Iterator[None]:
    """Gloo tells of its peers on stdout, which is for results."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def several() -> bool:
    """Whether this process is one of several."""
    return _here.processes > 1


def is_leader() -> bool:
    """Whether this process is the one that prints, logs and writes what is written once."""
    return _here.process == 0


def prefix() -> str:
    """What a message of this process begins with: its number, where there are several."""
    return f"process {_here.process} of {_here.processes}: " if several() else ""


def agree(what: str, value: Any) -> Any:
    """What process 0 says: a value fit for JSON. `what` is what it is about, and the same everywhere."""
    if not several():
        return value
    key = _key(what)
    if not is_leader():
        return json.loads(_here.client.blocking_key_value_get(key, _A_DAY * 1000))
    text = json.dumps(value)
    _here.client.key_value_set(key, text)
    return json.loads(text)


def barrier(what: str, seconds: float = _A_DAY) -> None:
    """Until all processes are here."""
    if several():
        _here.client.wait_at_barrier(_key(what), round(seconds * 1000))


@contextlib.contextmanager
def leader_first(what: str) -> Iterator[None]:
    """The block runs in process 0 and then, when it is through there, in all others at once.

    Raises:
        UserError: in the others, where it failed in process 0, with that process's exit status; it is not run in them then.
    """
    if not several():
        yield
    elif is_leader():
        try:
            yield
        except BaseException as error:
            agree(what, (str(error) or type(error).__name__, error.status if isinstance(error, UserError) else 1))
            raise
        agree(what, None)
    else:
        if failed := agree(what, None):
            told = UserError(f"process 0 could not {what}: {failed[0]}")
            told.status = failed[1]
            raise told
        yield


def from_leader(what: str, items: Iterator[Any]) -> Iterator[Any]:
    """The items that process 0 has, in all processes; None among them ends it. `items` is looked at in process 0 alone."""
    while (item := agree(what, next(items, None) if is_leader() else None)) is not None:
        yield item


def reached_preemption(step: int) -> bool:
    """Whether all processes are to stop after this step, because one was sent SIGTERM; asked after every step.

    JAX's coordinator chooses the step: one that no process has passed yet.
    """
    from jax.experimental import multihost_utils

    return several() and multihost_utils.reached_preemption_sync_point(step)


def leave(status: int) -> int:
    """Say good-bye to the other processes -> the exit status.

    A process that fails alone does not wait for the others, which may be waiting for it in a collective: it ends at once.
    """
    if not several():
        return status
    sys.stdout.flush()
    sys.stderr.flush()
    if status in _TOGETHER:
        import jax

        barrier("leave")
        with contextlib.suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # srun sends it to all as soon as one has left with `SAVED`
        jax.distributed.shutdown()
    else:
        with contextlib.suppress(Exception):
            barrier("fail", 3)  # those that fail alike: process 0 is the last to go, and the others need not hear of it from JAX
        os._exit(status)
    return status


def _fail(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    for line in "".join(traceback.format_exception(kind, error, trace)).splitlines():
        print(f"{prefix()}{line}", file=sys.stderr)
    leave(1)


def _key(what: str) -> str:
    """A name that no other use of `what` has: the store does not forget."""
    _uses[what] += 1
    return f"jaxnmt/{what}/{_uses[what]}"


class Watchdog:
    """Ends this process when no step has begun for too long: a peer that is alive but stuck holds all others in a collective for ever."""

    def __init__(self, minutes: float, say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True)):
        """`minutes`: without a call of `at`, and not paused; 0: no limit. A process that is the only one is not watched."""
        self._limit, self._say = 60 * minutes, say
        self._step, self._since = 0, time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        if several() and minutes:
            self._thread.start()

    def at(self, step: int) -> None:
        """Note that this step begins now."""
        self._step, self._since = step, time.monotonic()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Within the block, time does not count."""
        self._since = math.inf
        try:
            yield
        finally:
            self._since = time.monotonic()

    def stop(self) -> None:
        """Watch no longer."""
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(min(5.0, self._limit / 4)):
            with contextlib.suppress(Exception):
                _here.client.key_value_set(f"jaxnmt/at/{_here.process}", str(self._step), allow_overwrite=True)
            if time.monotonic() - self._since > self._limit and not self._over.is_set():
                stuck = f"nothing done for {self._limit / 60:g} minutes since step {self._step:,} was begun{self._behind()}"
                with contextlib.suppress(OSError):  # stderr may be lost, too
                    self._say(f"{prefix()}{stuck}")
                os._exit(Unreachable.status)

    def _behind(self) -> str:
        """Which processes have begun fewer steps than others."""
        with contextlib.suppress(Exception):
            at = dict.fromkeys(range(_here.processes), 0)
            at |= {int(key.rpartition("/")[2]): int(step) for key, step in _here.client.key_value_dir_get("jaxnmt/at/")}
            late = sorted(index for index, step in at.items() if step < max(at.values()))
            if late:
                return f"; stuck is process {', '.join(map(str, late))}, at step {min(at.values()):,}: start all of them again"
        return ": one of the processes is stuck; start all of them again"
