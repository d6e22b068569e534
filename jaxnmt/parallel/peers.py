"""Find the processes of one command: read the environment, locate process 0, and limit the time to connect."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

from jaxnmt.errors import Unreachable, UserError

WAIT_SECONDS = 300.0
"""Time for all processes to start. Hosts of one job may be minutes apart."""
_RESOLVE_SECONDS = 60.0
"""Time to resolve a fixed name while the name server is busy."""
_VARIABLES = (  # variables that `are_expected` and JAX read; of SLURM, all that a step sets
    *("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID", "JAXNMT_DISTRIBUTED"),
    *("MEGASCALE_COORDINATOR_ADDRESS", "TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES"),
)
_FIRST_PORT, _PORTS = 61440, 4096  # above the ports that Linux assigns to connections


@dataclasses.dataclass(frozen=True)
class Peers:
    """The processes that the environment describes. JAX detects what is None."""

    address: str | None = None
    """host:port of process 0."""
    count: int | None = None
    index: int | None = None
    """The number of this process."""
    devices: list[int] | None = None
    """The GPUs of this process, as numbers among the visible ones; None: all."""
    is_fixed: bool = False
    """Whether the address is fixed while a job runs: a name that does not resolve now will not resolve later."""

    @property
    def is_complete(self) -> bool:
        """Return whether JAX has nothing left to detect."""
        return None not in (self.address, self.count, self.index)

    @property
    def prefix(self) -> str:
        """Return the beginning of a message of this process."""
        return "" if self.index is None or self.count is None else f"process {self.index} of {self.count}: "


def are_expected() -> bool:
    """Return whether the environment describes several processes.

    This is the case if `JAX_COORDINATOR_ADDRESS` (host:port of process 0) is set, with `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`; in a SLURM
    step of several tasks; on a TPU slice of several hosts in Kubernetes, or on several slices; and if `JAXNMT_DISTRIBUTED=auto` lets JAX
    detect them (Cloud TPU machines, whose metadata it reads).
    """
    hosts = os.environ.get("TPU_PROCESS_ADDRESSES") or os.environ.get("TPU_WORKER_HOSTNAMES") or ""
    return (
        bool(os.environ.get("JAX_COORDINATOR_ADDRESS") or os.environ.get("MEGASCALE_COORDINATOR_ADDRESS"))
        or _is_slurm_step()
        or "," in hosts
        or os.environ.get("JAXNMT_DISTRIBUTED") == "auto"
    )


def single_process_env() -> dict[str, str]:
    """Return the environment for a subprocess that is not one of several processes."""
    return {name: value for name, value in os.environ.items() if name not in _VARIABLES and not name.startswith("SLURM_STEP")}


def read_environment() -> Peers:
    """Read the JAX_ variables and, for what they do not set, those of a SLURM step.

    Raises:
        UserError: a variable is not a number, or the address is not host:port.
    """
    address = _variable("JAX_COORDINATOR_ADDRESS", _is_address, "host:port of process 0")
    port = _variable("JAX_COORDINATOR_PORT", _is_port, "a number from 1 to 65535")
    found = Peers(address, _number("JAX_NUM_PROCESSES"), _number("JAX_PROCESS_ID"))
    if found.is_complete or found.count == 1 or not _is_slurm_step():
        return found
    local = _number("SLURM_LOCALID") or 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or os.environ.get("ROCR_VISIBLE_DEVICES") or ""
    # Each task uses one GPU: its own among those that all tasks of the node see, or the only one that SLURM shows it.
    devices = None if os.environ.get("JAX_LOCAL_DEVICE_IDS") else [local % (visible.count(",") + 1)] if visible else [local]
    index = _number("SLURM_PROCID") if found.index is None else found.index
    return Peers(address or _slurm_address(port), found.count or _number("SLURM_STEP_NUM_TASKS"), index, devices, is_fixed=True)


def _is_slurm_step() -> bool:
    return os.environ.get("SLURM_STEP_NUM_TASKS", "1") not in ("", "1")


def _slurm_address(port: str | None) -> str | None:
    """Return the first node of the step, where process 0 runs, and a port.

    Args:
        port: None: one that differs from those of other steps and neighbouring jobs.
    """
    nodes = os.environ.get("SLURM_STEP_NODELIST")
    if not nodes:
        return None
    first = re.match(r"([^,\[]|\[[^\]]*\])*", nodes)[0]  # type: ignore[index]
    host = re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", first)  # node[001-015,020] -> node001
    own = (_number("SLURM_JOB_ID") or 0) + 1021 * (_number("SLURM_STEP_ID") or 0)
    return f"{host}:{port or _FIRST_PORT + own % _PORTS}"


def _number(name: str) -> int | None:
    value = _variable(name, str.isdecimal, "a whole number")
    return None if value is None else int(value)


def _variable(name: str, is_valid: Callable[[str], bool], what: str) -> str | None:
    """Return a variable of the environment; None if it is not set, or empty.

    Raises:
        UserError: its value is not valid, which `what` says in words.
    """
    value = os.environ.get(name)
    if value and not is_valid(value):
        raise UserError(f"{name} is {value!r} in the environment; it must be {what}")
    return value or None


def _is_port(text: str) -> bool:
    return text.isdecimal() and 0 < int(text) < 65536


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return bool(host) and _is_port(port)


@contextlib.contextmanager
def connect_timeout(peers: Peers) -> Iterator[None]:
    """Say where process 0 is, and exit this process if the block, in which the processes connect, takes longer than `WAIT_SECONDS`.

    JAX prints nothing while it waits, and then aborts without naming the address.

    Raises:
        Unreachable: the host name of process 0 does not resolve; or this is process 0, and another program uses its port.
    """
    give_up = threading.Timer(WAIT_SECONDS, _give_up, [peers])
    give_up.daemon = True
    give_up.start()
    try:
        if peers.address:
            _resolve(peers, peers.address)
            if peers.index == 0 and peers.count:
                _check_port(peers.address)
                _say(f"process 0 at {peers.address}, waiting for {peers.count - 1} other{'s' if peers.count > 2 else ''}")
        yield
    finally:
        give_up.cancel()


def _resolve(peers: Peers, address: str) -> None:
    """Wait until the host name of process 0 resolves. On Kubernetes it does once the pod of that process has a host."""
    host, _, port = address.rpartition(":")
    seconds = _RESOLVE_SECONDS if peers.is_fixed else WAIT_SECONDS
    end, is_waiting = time.monotonic() + seconds, False
    while True:
        try:
            socket.getaddrinfo(host.strip("[]"), int(port))
            return
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or str(error)
            may_come = not peers.is_fixed or getattr(error, "errno", None) == socket.EAI_AGAIN
        where = f"{peers.prefix}process 0 is at {address}, and {host} does not resolve"
        if not may_come or time.monotonic() > end - 2:
            raise Unreachable(
                f"{where} on {socket.gethostname()} ({why}): "
                "give its name to this host, or set JAX_COORDINATOR_ADDRESS to host:port of process 0 as this host knows it"
            )
        if not is_waiting:
            _say(f"{where} ({why}); trying for {seconds / 60:g} min")
        is_waiting = True
        time.sleep(1)


def _check_port(address: str) -> None:
    """Check that no other program uses a port of this host, because some versions of jaxlib crash on it."""
    try:
        socket.create_server(("", int(address.rpartition(":")[2]))).close()
    except OSError as error:
        raise Unreachable(
            f"process 0 cannot take its port of {address} ({os.strerror(error.errno or 0)}): "
            "end the program that uses it, or set another port in JAX_COORDINATOR_ADDRESS, in a SLURM step in JAX_COORDINATOR_PORT"
        ) from error


def _give_up(peers: Peers) -> None:
    found = f"process 0 at {peers.address or 'an unknown address'} cannot be reached, or waits for others"
    if peers.index == 0 and peers.count:
        found = f"not all of the {peers.count - 1} others have connected to process 0 at {peers.address}"
    with contextlib.suppress(OSError):  # stderr is closed
        _say(
            f"error: {peers.prefix}{found} after {WAIT_SECONDS / 60:g} min: "
            "see whether all have started and reach that port, then start all again"
        )
    os._exit(Unreachable.status)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
