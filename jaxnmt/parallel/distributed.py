"""Run several processes as one: connect them, agree on decisions, stop together, and detect a process that hangs.

The work is done by JAX's runtime (`jax.distributed`). In a single process, everything here does nothing and does not even import JAX.
Processes agree through the key-value store of JAX's coordinator in process 0, not by collectives: no device takes part, and a process may
wait for hours. All processes must call the functions that wait in the same order.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any

from jaxnmt.errors import SAVED, Unreachable, UserError, first_line
from jaxnmt.parallel import peers

_DAY = 24 * 3600
"""Seconds. Process 0 may take hours to read a large corpus, while the others wait."""


@dataclasses.dataclass(frozen=True)
class _Process:
    index: int = 0
    count: int = 1
    client: Any = None
    """The client of JAX's coordinator."""


_process = _Process()
_uses: collections.Counter[str] = collections.Counter()


def initialize(share_preemption: bool = False) -> None:
    """Connect to the other processes if the environment describes any. Call it before a device is used.

    Args:
        share_preemption: SIGTERM does not end this process; `reached_preemption` reports it in all processes.

    Raises:
        UserError: the environment is incomplete.
        Unreachable: the processes cannot connect.
    """
    global _process
    if is_distributed() or not peers.are_expected():
        return
    found = peers.read_environment()
    if found.count == 1:
        return
    import jax
    from jax._src import distributed as runtime  # the store and the barriers have no public name

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", share_preemption)
    try:
        with peers.connect_timeout(found):
            jax.distributed.initialize(
                *(found.address, found.count, found.index, found.devices),
                initialization_timeout=round(peers.WAIT_SECONDS) + 60,  # `connect_timeout` comes first
                shutdown_timeout_seconds=30,
                cluster_detection_method="deactivate" if found.is_complete else None,
            )
    except (ValueError, RuntimeError) as error:
        at = f" at {found.address}" if found.address else ""
        kind = UserError if isinstance(error, ValueError) else Unreachable  # JAX raises ValueError if something is missing
        raise kind(
            f"the environment describes several processes, and they cannot connect{at} ({first_line(error)}): set "
            "JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID in each"
        ) from error
    state = runtime.global_state
    if state.num_processes > 1:
        _process = _Process(state.process_id, state.num_processes, state.client)
        sys.excepthook = _shut_down_on_error
        _connect_devices()


def _connect_devices() -> None:
    """Wait for the other processes for the first time, and keep Gloo's messages about it out of stdout, which is for results."""
    from jax.experimental import multihost_utils

    sys.stdout.flush()
    stdout = os.dup(1)
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 1)
    multihost_utils.sync_global_devices("jaxnmt")
    os.dup2(stdout, 1)
    os.close(stdout)


def is_distributed() -> bool:
    """Return whether this process is one of several."""
    return _process.count > 1


def is_leader() -> bool:
    """Return whether this is process 0, which prints, logs and writes what is written once."""
    return _process.index == 0


def prefix() -> str:
    """Return the beginning of a message of this process: "process 1 of 4: ", or "" in a single process."""
    return f"process {_process.index} of {_process.count}: " if is_distributed() else ""


def broadcast_decision(name: str, value: Any) -> Any:
    """Return the value of process 0 in all processes.

    Args:
        name: what is decided, the same in all processes.
        value: JSON. Only that of process 0 matters.
    """
    if not is_distributed():
        return value
    key = _key(name)
    if is_leader():
        _process.client.key_value_set(key, json.dumps(value))
    return json.loads(_process.client.blocking_key_value_get(key, _DAY * 1000))


def barrier(name: str, seconds: float = _DAY) -> None:
    """Wait until all processes have called this."""
    if is_distributed():
        _process.client.wait_at_barrier(_key(name), round(seconds * 1000))


@contextlib.contextmanager
def leader_first(name: str) -> Iterator[None]:
    """Run the block in process 0, then in all others at once.

    Args:
        name: what the block does, as a verb: "prepare the data".

    Raises:
        UserError: in the other processes, if the block failed in process 0; it has the same exit status. They do not run the block then.
    """
    if is_leader():
        try:
            yield
        except BaseException as error:
            broadcast_decision(name, (str(error) or type(error).__name__, error.status if isinstance(error, UserError) else 1))
            raise
        broadcast_decision(name, None)
    elif failed := broadcast_decision(name, None):
        refused = UserError(f"process 0 could not {name}: {failed[0]}")
        refused.status = failed[1]
        raise refused
    else:
        yield


def from_leader(name: str, items: Iterator[Any]) -> Iterator[Any]:
    """Yield the items of process 0 (JSON, not None) in all processes. The other processes do not touch `items`."""
    while (item := broadcast_decision(name, next(items, None) if is_leader() else None)) is not None:
        yield item


def reached_preemption(step: int) -> bool:
    """Return whether all processes must stop after this step, because one of them received SIGTERM. Call it after every step.

    JAX's coordinator chooses a step that no process has passed yet.
    """
    from jax.experimental import multihost_utils

    return is_distributed() and multihost_utils.reached_preemption_sync_point(step)


def shutdown(status: int) -> int:
    """Disconnect from the other processes and return the exit status.

    A process that fails alone exits at once: the others may be waiting for it in a collective.
    """
    if not is_distributed():
        return status
    sys.stdout.flush()
    sys.stderr.flush()
    if status in (0, SAVED):  # all processes end with these at the same time
        import jax

        barrier("leave")
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # srun sends it to all as soon as one has left with `SAVED`
        jax.distributed.shutdown()
        return status
    with contextlib.suppress(Exception):
        barrier("fail", 3)  # if all fail alike, process 0 exits last, so that JAX reports no lost coordinator in the others
    os._exit(status)


def _shut_down_on_error(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    for line in "".join(traceback.format_exception(kind, error, trace)).splitlines():
        print(f"{prefix()}{line}", file=sys.stderr)
    shutdown(1)


def _key(name: str) -> str:
    """Return a key for this use of a name. The store keeps all keys, so that each use needs its own."""
    _uses[name] += 1
    return f"jaxnmt/{name}/{_uses[name]}"


class Watchdog:
    """Exits this process if no step begins for too long. A process that hangs would block all others in a collective for ever."""

    def __init__(self, minutes: float):
        """`minutes` is the longest time between calls of `at`, pauses aside; 0: no limit. A single process is not watched."""
        self._limit = 60 * minutes
        self._stopped = threading.Event()
        self.at(0)
        if is_distributed() and minutes:
            threading.Thread(target=self._watch, daemon=True).start()

    def at(self, step: int) -> None:
        """Note that this step begins now."""
        self._step, self._since = step, time.monotonic()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the clock while the block runs."""
        self._since = math.inf
        yield
        self._since = time.monotonic()

    def stop(self) -> None:
        """Stop watching."""
        self._stopped.set()

    def _watch(self) -> None:
        while not self._stopped.wait(min(5.0, self._limit / 4)):
            with contextlib.suppress(Exception):  # the coordinator may be gone
                _process.client.key_value_set(f"jaxnmt/at/{_process.index}", str(self._step), allow_overwrite=True)
            if time.monotonic() - self._since > self._limit:
                with contextlib.suppress(OSError):  # stderr may be closed
                    waited = f"nothing done for {self._limit / 60:g} minutes since step {self._step:,} was begun"
                    print(f"{prefix()}{waited}{_behind()}", file=sys.stderr, flush=True)
                os._exit(Unreachable.status)


def _behind() -> str:
    """Return which processes have begun fewer steps than others."""
    at = dict.fromkeys(range(_process.count), 0)
    with contextlib.suppress(Exception):
        at |= {int(key.rpartition("/")[2]): int(step) for key, step in _process.client.key_value_dir_get("jaxnmt/at/")}
    late = [str(index) for index, step in at.items() if step < max(at.values())]
    if late:
        return f"; stuck is process {', '.join(late)}, at step {min(at.values()):,}: start all of them again"
    return ": one of the processes is stuck; start all of them again"
