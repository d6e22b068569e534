"""Find the processes of one command: read the environment, locate process 0, and limit the time to connect."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator

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
    address = os.environ.get("JAX_COORDINATOR_ADDRESS") or None
    if address and not (re.fullmatch(r".+:\d+", address) and _is_port(address.rpartition(":")[2])):
        raise UserError(f"JAX_COORDINATOR_ADDRESS is {address!r} in the environment; it must be host:port of process 0")
    port = os.environ.get("JAX_COORDINATOR_PORT")
    if port and not _is_port(port):
        raise UserError(f"JAX_COORDINATOR_PORT is {port!r} in the environment; it must be a number from 1 to 65535")
    found = Peers(address, _number("JAX_NUM_PROCESSES"), _number("JAX_PROCESS_ID"))
    if found.is_complete or found.count == 1 or not _is_slurm_step():
        return found
    local = _number("SLURM_LOCALID") or 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or os.environ.get("ROCR_VISIBLE_DEVICES") or ""
    # Each task uses one GPU: its own among those that all tasks of the node see, or the only one that SLURM shows it.
    devices = None if os.environ.get("JAX_LOCAL_DEVICE_IDS") else [local % (visible.count(",") + 1)] if visible else [local]
    return Peers(
        found.address or _slurm_address(),
        _number("SLURM_STEP_NUM_TASKS") if found.count is None else found.count,
        _number("SLURM_PROCID") if found.index is None else found.index,
        devices,
        is_fixed=True,
    )


def _is_port(text: str) -> bool:
    return text.isdecimal() and 0 < int(text) < 65536


def _is_slurm_step() -> bool:
    return os.environ.get("SLURM_STEP_NUM_TASKS", "1") not in ("", "1")


def _slurm_address() -> str | None:
    """Return the first node of the step, where process 0 runs, and a port that differs from those of other steps and neighbouring jobs."""
    nodes, job, step = (os.environ.get(f"SLURM_{name}", "") for name in ("STEP_NODELIST", "JOB_ID", "STEP_ID"))
    if not nodes or not job.isdecimal():
        return None
    first = re.match(r"([^,\[]|\[[^\]]*\])*", nodes)[0]  # type: ignore[index]
    host = re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", first)  # node[001-015,020] -> node001
    port = _FIRST_PORT + (int(job) + 1021 * (int(step) if step.isdecimal() else 0)) % _PORTS
    return f"{host}:{os.environ.get('JAX_COORDINATOR_PORT') or port}"


def _number(name: str) -> int | None:
    value = os.environ.get(name)
    if value is not None and not value.isdecimal():
        raise UserError(f"{name} is {value!r} in the environment; it must be a whole number")
    return None if value is None else int(value)


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
            _resolve(peers, _RESOLVE_SECONDS if peers.is_fixed else WAIT_SECONDS)
        if peers.address and peers.index == 0 and peers.count:
            _check_port(peers.address)
            _say(f"process 0 at {peers.address}, waiting for {peers.count - 1} other{'s' if peers.count > 2 else ''}")
        yield
    finally:
        give_up.cancel()


def _resolve(peers: Peers, seconds: float) -> None:
    """Wait until the host name of process 0 resolves. On Kubernetes it does once the pod of that process has a host."""
    assert peers.address
    host, _, port = peers.address.rpartition(":")
    end = time.monotonic() + seconds
    is_waiting = False
    while True:
        try:
            socket.getaddrinfo(host.strip("[]"), int(port))
            return
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or str(error)
            is_temporary = getattr(error, "errno", None) == socket.EAI_AGAIN
        if (peers.is_fixed and not is_temporary) or time.monotonic() > end - 2:
            raise Unreachable(
                f"{_who(peers)}process 0 is at {peers.address}, and {host} does not resolve on {socket.gethostname()} ({why}): "
                "give its name to this host, or set JAX_COORDINATOR_ADDRESS to host:port of process 0 as this host knows it"
            )
        if not is_waiting:
            _say(f"{_who(peers)}process 0 is at {peers.address}, and {host} does not resolve ({why}); trying for {_minutes(seconds)}")
        is_waiting = True
        time.sleep(1)


def _check_port(address: str) -> None:
    """Check that no other program uses a port of this host, because some versions of jaxlib crash on it."""
    with socket.socket() as ours:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a connection that has just ended does not count
        try:
            ours.bind(("", int(address.rpartition(":")[2])))
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):  # such as a host without IPv4
                return
            raise Unreachable(
                f"process 0 cannot take its port of {address} ({error.strerror}): "
                "end the program that uses it, or set another port in JAX_COORDINATOR_ADDRESS, in a SLURM step in JAX_COORDINATOR_PORT"
            ) from error


def _give_up(peers: Peers) -> None:
    at = f" at {peers.address}" if peers.address else ""
    if peers.index == 0 and peers.count:
        found = f"not all of the {peers.count - 1} others have connected to process 0{at}"
    else:
        found = f"process 0{at} cannot be reached, or waits for others"
    waited = _minutes(WAIT_SECONDS)
    with contextlib.suppress(OSError):
        _say(f"error: {_who(peers)}{found} after {waited}: see whether all have started and reach that port, then start all again")
    os._exit(Unreachable.status)


def _who(peers: Peers) -> str:
    return "" if peers.index is None or peers.count is None else f"process {peers.index} of {peers.count}: "


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:g} minute{'' if seconds == 60 else 's'}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
